"""Any name gives an encoder or one line that says why not."""

from __future__ import annotations

import math

import pytest
import timm
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from birdkit.errors import UserError
from train.config.settings import Model
from train.models import encoder

N_MELS, N_FRAMES = 64, 157


def build(name: str, drop_rate: float = 0.0) -> tuple[torch.nn.Module, encoder.Features]:
    torch.manual_seed(0)
    return encoder.build(Model(name, "none", 0.0, drop_rate), N_MELS, N_FRAMES)


# A name for each kind of head: layers behind the pooling, pooling that stays, channels last, and sides
# that must be multiples of 32.
@pytest.mark.parametrize(
    "name", ["test_resnet", "mobilenetv3_small_050", "efficientvit_b0", "mambaout_femto", "dla46_c"]
)
def test_features_are_what_timm_has_before_the_head(name: str) -> None:
    network, features = build(name)
    log_mel = torch.rand(2, 1, N_MELS, N_FRAMES)
    padded = torch.nn.functional.pad(log_mel, (0, -N_FRAMES % 32), value=-1.0)
    network.eval()
    with torch.inference_mode():
        found = features(network, log_mel)
        expected = network.forward_features(padded if name == "dla46_c" else log_mel)  # type: ignore[operator]
    if name == "mambaout_femto":
        expected = expected.permute(0, 3, 1, 2)
    assert torch.equal(found, expected)
    assert found.shape[:2] == (2, network.num_features)
    assert found.shape[2] == N_MELS // 32
    assert found.shape[3] == math.ceil(N_FRAMES / 32)


@pytest.mark.parametrize("name", ["test_resnet", "mobilenetv3_small_050"])
def test_the_encoders_own_dropout_acts_in_training_and_rests_in_eval(name: str) -> None:
    network, features = build(name, 0.5)
    log_mel = torch.rand(1, 1, N_MELS, N_FRAMES)
    network.eval()
    whole = features(network, log_mel)
    assert torch.equal(whole, features(network, log_mel))
    network.train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    dropped = features(network, log_mel)[whole != 0] == 0
    assert 0.4 < dropped.float().mean() < 0.6


@pytest.mark.parametrize(
    "name",
    [
        "vit_tiny_patch16_224",
        "swin_tiny_patch4_window7_224",
        "coat_lite_tiny",  # whose head can't do without its pooling
        "efficientvim_m1",  # which gives a list
        "aimv2_3b_patch14_224",  # which would take 11 GB
    ],
)
def test_a_backbone_without_features_over_time_is_refused_by_name(name: str) -> None:
    with pytest.raises(UserError, match=f"'{name}' gives no features over time .* 64 mels × 157") as e:
        build(name)
    assert "\n" not in str(e.value)


def test_an_encoder_is_tried_at_the_size_that_the_recipe_gives_it() -> None:
    assert encoder.probe("levit_conv_128s", 0.0, 0.0, 224, 224) == encoder.Features(0.0)
    with pytest.raises(UserError, match="64 mels × 157 frames"):
        encoder.probe("levit_conv_128s", 0.0, 0.0, 64, 157)


def test_an_unknown_backbone_and_one_without_drop_path_are_named() -> None:
    with pytest.raises(UserError, match="'tf_efficientnet_b33' is no timm model"):
        build("tf_efficientnet_b33")
    with pytest.raises(UserError, match=r"'resnet18.no_tag' can't be built .*no_tag.* choose another"):
        build("resnet18.no_tag")
    with pytest.raises(UserError, match=r"ghostnet_100.*drop_path_rate = 0"):
        encoder.build(Model("ghostnet_100", "none", 0.2), N_MELS, N_FRAMES)


def test_probing_draws_no_random_number_so_seeds_give_the_weights_they_gave() -> None:
    ours = build("test_resnet")[0].state_dict()
    torch.manual_seed(0)
    timms = timm.create_model("test_resnet", num_classes=0, in_chans=1).state_dict()
    assert ours.keys() == timms.keys()
    assert all(torch.equal(ours[key], timms[key]) for key in timms)


@settings(max_examples=10)
@given(st.text())
@example("res\nnet")
@example("[")
def test_any_text_gives_an_encoder_or_one_line(name: str) -> None:
    with pytest.raises(UserError) as e:
        encoder.build(Model(name, "none"), N_MELS, N_FRAMES)
    assert len(str(e.value).splitlines()) == 1


@pytest.mark.slow
@pytest.mark.walk  # most names of timm are of large networks
@settings(max_examples=15, derandomize=True)
@given(st.sampled_from(timm.list_models()))
def test_any_name_of_timm_gives_an_encoder_or_one_line(name: str) -> None:
    refusal = ""
    try:
        assert encoder.probe(name, 0.1, 0.0, N_MELS, N_FRAMES).drop_rate == 0.1
    except UserError as error:
        refusal = str(error)
    assert not refusal or repr(name) in refusal
    assert len(refusal.splitlines()) <= 1


@pytest.mark.parametrize(
    ("name", "frames"),
    [("resnet18", 32), ("tf_efficientnet_lite0", 32), ("inception_v3", 32), ("test_resnet", 32)],
)
def test_the_stride_is_how_many_frames_make_one_of_the_encoders(name: str, frames: int) -> None:
    """Also where an encoder pads nothing, and so gives fewer frames than that."""
    _, features = encoder.build(Model(name, "none", 0.0), 80, 313)  # inception needs as many mels
    assert encoder.stride(name, features, 80) == frames
