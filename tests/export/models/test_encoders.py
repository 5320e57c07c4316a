"""Every family of encoders in timm trains, exports and passes the parity gate, or is refused in a line.

`pytest -m walk` goes through all of them, for half an hour.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch

from birdkit.contract import Contract
from birdkit.errors import UserError
from export.benchmark.baselines import spread_answers
from export.gates import model_files, parity
from export.models import onnx
from tests.conftest import tiny_job
from train.config.settings import FrontEnd, Model
from train.fit.trainer import Trainer
from train.models import checkpoint, encoder
from train.models.checkpoint import Final
from train.models.sed import Predictor

CONTRACT = Contract(32000, 3.0, 3.0, ("a", "b", "c"))
# 96 mels × 94 frames: about the smallest that Inception takes, and no multiple of 32.
FRONT_END, N_FRAMES = FrontEnd(n_fft=1024, hop=1024, n_mels=96), 94

# timm's modules, each with its smallest model.
FAMILIES = {
    "byobnet": "mobileone_s0",
    "convnext": "convnext_atto",
    "cpubone": "cpubone_nano",
    "cspnet": "cs3darknet_focus_s",
    "cspnext": "cspnext_tiny",
    "davit": "davit_tiny",
    "densenet": "densenet121",
    "dla": "dla46_c",
    "dpn": "dpn68",
    "edgenext": "edgenext_xx_small",
    "efficientnet": "mobilenetv2_035",
    "efficientvit_mit": "efficientvit_b0",
    "efficientvit_msra": "efficientvit_m0",
    "fasternet": "fasternet_t0",
    "fastvit": "fastvit_t8",
    "focalnet": "focalnet_tiny_srf",
    "ghostnet": "ghostnet_050",
    "hardcorenas": "hardcorenas_b",
    "hgnet": "hgnetv2_b0",
    "hieradet_sam2": "sam2_hiera_tiny",
    "hrnet": "hrnet_w18_small",
    "iformer": "iformer_t",
    "inception_next": "inception_next_atto",
    "inception_resnet_v2": "inception_resnet_v2",
    "inception_v3": "inception_v3",
    "inception_v4": "inception_v4",
    "lcnetv2": "lcnetv2_small",
    "lowformer": "lowformer_b0",
    "mambaout": "mambaout_femto",
    "metaformer": "poolformer_s12",
    "mobilenetv3": "mobilenetv3_small_050",
    "mobilenetv5": "mobilenetv5_300m",
    "mobilevit": "mobilevit_xxs",
    "nasnet": "nasnetalarge",
    "nextvit": "nextvit_small",
    "nfnet": "nf_resnet26",
    "pnasnet": "pnasnet5large",
    "pvt_v2": "pvt_v2_b0",
    "qwen3_vit": "qwen3_vit_88m",
    "rdnet": "rdnet_tiny",
    "regnet": "regnetx_002",
    "repghost": "repghostnet_050",
    "repvit": "repvit_m0_9",
    "res2net": "res2net50_48w_2s",
    "resnest": "resnest14d",
    "resnet": "resnet18",
    "resnetv2": "resnetv2_18",
    "rexnet": "rexnet_100",
    "selecsls": "selecsls42",
    "senet": "legacy_seresnet18",
    "sequencer": "sequencer2d_s",
    "shvit": "shvit_s1",
    "sknet": "skresnet18",
    "starnet": "starnet_s050",
    "swiftformer": "swiftformer_xs",
    "tiny_vit": "tiny_vit_5m_224",
    "tresnet": "tresnet_m",
    "vgg": "vgg11",
    "vovnet": "ese_vovnet19b_slim_dw",
    "xception": "legacy_xception",
    "xception_aligned": "xception41",
}
# These train, and the export refuses them: rounding grows through the 32 layers of random weights to
# 4e-4 (f32 in torch itself is further from f64), and ONNX lacks what that attention needs.
NOT_EXPORTED = {"convmixer": "convmixer_768_32", "vision_transformer_sam": "samvit_base_patch16_224"}
# A model of each other module. Their attention is made for pictures of one size, or they give no map.
REFUSED = {
    "beit": "beit_base_patch16_224",
    "byoanet": "halonet26t",
    "cait": "cait_xxs24_224",
    "coat": "coat_tiny",
    "convit": "convit_tiny",
    "crossvit": "crossvit_tiny_240",
    "csatv2": "csatv2",
    "deepseek_vit": "deepseek_vit_412m",
    "deit": "deit_tiny_patch16_224",
    "efficientformer": "efficientformer_l1",
    "efficientformer_v2": "efficientformerv2_s0",
    "efficientvim": "efficientvim_m1",
    "eva": "eva02_tiny_patch14_224",
    "gcvit": "gcvit_xxtiny",
    "gemma4_vit": "gemma4_vit_167m",
    "hiera": "hiera_tiny_224",
    "levit": "levit_128s",
    "maxxvit": "maxvit_pico_rw_256",
    "mlp_mixer": "gmlp_ti16_224",
    "mvitv2": "mvitv2_tiny",
    "naflexvit": "naflexvit_base_patch16_siglip",
    "nest": "nest_tiny",
    "pit": "pit_ti_224",
    "swin_transformer": "swin_tiny_patch4_window7_224",
    "swin_transformer_v2": "swinv2_tiny_window8_256",
    "swin_transformer_v2_cr": "swinv2_cr_tiny_224",
    "tnt": "tnt_s_patch16_224",
    "twins": "twins_pcpvt_small",
    "visformer": "visformer_tiny",
    "vision_transformer": "vit_tiny_patch16_224",
    "vision_transformer_hybrid": "vit_tiny_r_s16_p8_224",
    "vision_transformer_relpos": "vit_relpos_small_patch16_224",
    "vitamin": "vitamin_small_224",
    "volo": "volo_d1_224",
    "xcit": "xcit_nano_12_p8_224",
}


def walk(name: str, folder: Path) -> None:
    """Train two steps, export and compare in every engine."""
    job = replace(tiny_job(), frontend=FRONT_END, model=Model(name, "none", 0.0, 0.1))
    torch.manual_seed(0)
    predictor = Predictor(job.frontend, job.model, CONTRACT)
    before = {key: value.clone() for key, value in predictor.network.encoder.named_parameters()}
    trainer = Trainer(predictor, job, 2, torch.device("cpu"))
    for step in range(2):
        waveforms = 0.1 * torch.randn(4, CONTRACT.chunk_samples)
        assert math.isfinite(trainer.step(waveforms, torch.eye(4, 3), step))
    after = dict(predictor.network.encoder.named_parameters())
    changed = sum(not torch.equal(before[key], after[key]) for key in before)
    assert changed > len(before) / 2
    spread_answers(predictor)
    state = {key: value.contiguous() for key, value in predictor.state_dict().items()}
    final = Final(CONTRACT, checkpoint.made_by(job, "none", {}), "random", "none", {}, state)
    path = folder / "m.onnx"
    onnx.write([final.predictor()], CONTRACT, path, CONTRACT.to_metadata())
    for compared in model_files.against_torch({"m": final}, path, [])["m"]:
        print(f"{name:<24} {compared}")
        parity.refuse({name: [compared]}, "nothing was written")


# A layer behind the pooling, and channels last; `walk` goes through the others.
@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientvit_b0", "mambaout_femto"])
def test_an_unusual_head_trains_exports_and_agrees(name: str, tmp_path: Path) -> None:
    walk(name, tmp_path)


@pytest.mark.slow
@pytest.mark.walk
@pytest.mark.parametrize("name", FAMILIES.values())
def test_every_family_of_encoders_trains_exports_and_agrees(name: str, tmp_path: Path) -> None:
    walk(name, tmp_path)


def test_every_module_of_timm_is_walked_or_refused() -> None:
    every = FAMILIES | NOT_EXPORTED | REFUSED
    assert sorted(every) == timm.list_modules()
    assert all(name in timm.list_models(module=module) for module, name in every.items())


@pytest.mark.slow
@pytest.mark.walk
@pytest.mark.parametrize("name", NOT_EXPORTED.values())
def test_what_trains_and_cannot_be_exported_is_refused_in_a_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"parity refused|can't export this network") as refused:
        walk(name, tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.slow
@pytest.mark.walk
@pytest.mark.parametrize("name", REFUSED.values())
def test_the_other_families_are_refused_in_a_line(name: str) -> None:
    with pytest.raises(UserError, match=f"^models.encoder '{name}' gives no features over time") as e:
        encoder.probe(name, 0.1, 0.0, FRONT_END.n_mels, N_FRAMES)
    assert "\n" not in str(e.value)
