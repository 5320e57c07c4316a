"""Torch, ONNX Runtime and OpenVINO answer alike; and the gate refuses what does not."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import numpy_helper

from birdkit.contract import METADATA_KEY, Contract
from birdkit.engines.engine import OnnxRuntimeEngine, OpenVinoEngine
from birdkit.engines.layout import Layout
from birdkit.errors import UserError
from birdkit.scoring.ensemble import Spec
from birdkit.scoring.window_scores import probabilities
from export import to_onnx, to_openvino
from export.benchmark.baselines import WRITE_UP, untrained
from export.folder import model_folder
from export.gates import model_files, parity, selection
from export.models import members
from export.models import onnx as onnx_files
from export.models import openvino as ir_files
from tests.conftest import REAL, tiny_job, tiny_predictor, write_sound
from train.config import settings as config
from train.config.job import Job
from train.models.checkpoint import Final, sha256
from train.scoring.evaluate import TorchEngine

CPU = torch.device("cpu")


ONE_THREAD = Layout(1, 1, 12)
# The smallest of the write-up's family, with the same blocks; the others take a minute each.
BASE = "tf_efficientnet_b0"


def engine_parities(final: Final, path: Path, recordings: Sequence[Path] = ()) -> list[parity.Parity]:
    onnx_files.write([final.predictor()], final.contract, path, final.contract.to_metadata())
    exported = model_files.against_torch({path.stem: final}, path, recordings)[path.stem]
    ir_files.write_ir(path, path.with_suffix(".xml"))
    ir = model_files.against_onnx(path, path.with_suffix(".xml"), recordings)
    return [*exported, ir[path.stem]]


def test_a_trained_models_exports_agree_in_every_engine(model_dir: Path) -> None:
    report = model_folder.read_parity(model_dir)
    assert len(report) == 2
    for engines in report.values():
        assert [each.engine for each in engines] == ["onnxruntime", "openvino", "openvino-ir"]
        for each in engines:
            assert each.faults() == []
            assert each.n_inputs == 8 + 24  # real soundscapes were compared too


@pytest.mark.slow
@pytest.mark.parametrize(
    "encoder", [BASE, *(pytest.param(name, marks=pytest.mark.walk) for name in WRITE_UP)]
)
def test_the_write_ups_encoders_agree_in_every_engine(encoder: str, tmp_path: Path) -> None:
    contract = Contract(32000, 5.0, 5.0, tuple(f"class{i}" for i in range(206)))
    job = Job("write-up", model=config.Model(encoder, "none"))
    recordings = sorted((REAL / "train_soundscapes").glob("*.ogg"))[:1]
    for found in engine_parities(untrained(job, contract), tmp_path / "m.onnx", recordings):
        print(encoder, found)
        assert found.faults() == []


@pytest.mark.slow
def test_a_front_end_whose_hop_does_not_divide_a_longer_chunk_exports_too(tmp_path: Path) -> None:
    contract = Contract(32000, 10.0, 5.0, ("a", "b", "c"))
    job = replace(tiny_job(), frontend=config.FrontEnd(n_fft=1024, hop=626, n_mels=40))
    for found in engine_parities(untrained(job, contract), tmp_path / "m.onnx"):
        assert found.faults() == []


def test_a_model_file_describes_itself(model_dir: Path, run_dir: Path) -> None:
    final = Final.load(run_dir / "round0" / "test_resnet" / "final.pt")
    engines: list[tuple[type[OnnxRuntimeEngine] | type[OpenVinoEngine], str]] = [
        (OnnxRuntimeEngine, ".onnx"),
        (OpenVinoEngine, ".onnx"),
        (OpenVinoEngine, ".xml"),
    ]
    for engine, suffix in engines:
        assert engine(model_dir / f"test_resnet{suffix}", ONE_THREAD).contract == final.contract
    properties = {p.key: p.value for p in onnx.load(model_dir / "test_resnet.onnx").metadata_props}
    assert properties.keys() == {METADATA_KEY, onnx_files.MADE_BY_KEY}
    made_by = json.loads(properties[onnx_files.MADE_BY_KEY])["test_resnet"]
    assert made_by["job"]["model"]["encoder"] == "test_resnet"
    assert made_by["checkpoint_sha256"] == sha256(run_dir / "round0" / "test_resnet" / "final.pt")
    assert made_by["trained_on"] == list(final.trained_on)
    keys = {"job", "checkpoint_sha256", "commit", "weights_from", "trained_on", "taught_by"}
    assert made_by.keys() == keys
    assert not list(model_dir.glob("*.data"))


@pytest.fixture
def reference() -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    segmentwise = rng.normal(-2, 2, (24, 5)).astype(np.float32)
    return {
        "clipwise": (0.3 / (1 + np.exp(-segmentwise))).astype(np.float32),
        "segmentwise": segmentwise,
    }


def changed(
    outputs: dict[str, NDArray[np.float32]], name: str, value: float
) -> dict[str, NDArray[np.float32]]:
    copy = {key: array.copy() for key, array in outputs.items()}
    copy[name] += np.float32(value)
    return copy


def test_the_gate_passes_rounding(reference: dict[str, NDArray[np.float32]]) -> None:
    assert parity.compare(reference, changed(reference, "segmentwise", 1e-5), "x").faults() == []


@pytest.mark.parametrize(
    ("output", "value", "fault"),
    [
        ("segmentwise", 2e-3, "logits differ"),
        ("segmentwise", np.nan, "logits differ"),
        ("clipwise", 2e-4, "probabilities differ"),
        ("clipwise", np.nan, "clipwise differs"),
    ],
)
def test_the_gate_refuses_what_differs(
    reference: dict[str, NDArray[np.float32]], output: str, value: float, fault: str
) -> None:
    found = parity.compare(reference, changed(reference, output, value), "x").faults()
    assert any(fault in text for text in found)


def test_the_gate_holds_clipwise_to_its_own_small_size(
    reference: dict[str, NDArray[np.float32]],
) -> None:
    small = {**reference, "clipwise": reference["clipwise"] * np.float32(1e-3)}
    found = parity.compare(small, changed(small, "clipwise", 5e-6), "x").faults()
    assert len(found) == 1
    assert "relative to itself" in found[0]


def test_the_gate_refuses_a_changed_order(reference: dict[str, NDArray[np.float32]]) -> None:
    swapped = {key: array.copy() for key, array in reference.items()}
    swapped["segmentwise"][[0, 1]] = swapped["segmentwise"][[1, 0]]
    assert any("change their order" in f for f in parity.compare(reference, swapped, "x").faults())


@pytest.mark.parametrize(("apart", "flips"), [(0.9, 0), (1.1, 1)])
def test_pairs_swap_their_order_within_the_margin_without_a_flip(apart: float, flips: int) -> None:
    """Rounding may turn the order of two windows that are as good as equal."""
    margin = parity.PROBABILITY_TOLERANCE
    reference = np.array([[0.5], [0.5 + apart * margin]], dtype=np.float32)
    assert parity._rank_flips(reference, reference[::-1], margin) == flips
    assert parity._rank_flips(reference, reference, margin) == 0


def test_the_gate_refuses_inputs_that_prove_nothing(reference: dict[str, NDArray[np.float32]]) -> None:
    flat = {key: np.tile(array[:1], (24, 1)) for key, array in reference.items()}
    assert any("nothing is proven" in text for text in parity.compare(flat, flat, "x").faults())


def test_logits_of_thousands_may_round_as_much_as_their_size_makes_them(
    reference: dict[str, NDArray[np.float32]],
) -> None:
    """A correct export of a briefly trained network: in some inputs all is saturated."""
    wild = {key: array.copy() for key, array in reference.items()}
    wild["segmentwise"][0] = [-5910, -2950, -350, -60, -12]
    wild["clipwise"][0] = 0
    rounded = changed(wild, "segmentwise", 0)
    rounded["segmentwise"][0] += np.array([0.25, 0.1, 0.05, 0.02, 0.01], dtype=np.float32)
    assert parity.compare(wild, rounded, "x").faults() == []


def test_a_saturated_logit_may_round_by_a_thousandth_of_itself(
    reference: dict[str, NDArray[np.float32]],
) -> None:
    """Measured: EfficientNet-B0 after 45 steps, in ONNX Runtime, whose squeeze-and-excite rounds."""
    wild = {key: array.copy() for key, array in reference.items()}
    wild["segmentwise"][0] = [-1711.5, -672.1, -2234.2, -387.2, 3.0]
    wild["clipwise"][0] = 0
    for off, right in (([0.09, 0.26, 0.02, 0.02, 0], True), ([0, 0.7, 0, 0, 0], False)):
        rounded = changed(wild, "segmentwise", 0)
        rounded["segmentwise"][0] = wild["segmentwise"][0] + np.array(off, dtype=np.float32)
        assert (parity.compare(wild, rounded, "x").faults() == []) == right


def in_half_precision(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return logits.astype(np.float16).astype(np.float32)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda logits: logits * np.float32(1.002),
        lambda logits: logits + np.float32(2e-3),
        lambda logits: np.maximum(logits, -80),
        in_half_precision,
    ],
)
def test_saturated_logits_that_are_wrong_are_refused(
    wrong: Any, reference: dict[str, NDArray[np.float32]]
) -> None:
    wild = {key: array.copy() for key, array in reference.items()}
    wild["segmentwise"][0] = [-5911, -2951, -351, -61.3, -12.2]
    found = parity.compare(wild, wild | {"segmentwise": wrong(wild["segmentwise"])}, "x").faults()
    assert any("logits differ" in text for text in found)


def barely_moved(bias: float, scale: float) -> dict[str, NDArray[np.float32]]:
    """Answers of a model that was trained for a few steps: near its first bias, whatever it hears."""
    rng = np.random.default_rng(0)
    logits = (bias + scale * rng.standard_normal((32, 20))).astype(np.float32)
    outputs = {"segmentwise": logits, "clipwise": np.zeros_like(logits)}
    return outputs | {"clipwise": 0.9 * probabilities(outputs, "segmentwise")}


@settings(max_examples=15)
@given(st.floats(-6, 0), st.floats(0.02, 0.5), st.integers(0, 100))
def test_a_model_that_hardly_moves_is_compared_on_the_little_that_it_moves(
    bias: float, scale: float, seed: int
) -> None:
    answers = barely_moved(bias, scale)
    noise = np.random.default_rng(seed).standard_normal((32, 20)).astype(np.float32)
    for error, right in ((1e-6, True), (0.01 * scale, False), (np.float32(np.nan), False)):
        logits = answers["segmentwise"] + error * noise
        candidate = answers | {"segmentwise": logits}
        assert (parity.compare(answers, candidate, "x").faults() == []) == right


def test_a_constant_answer_in_place_of_one_that_hardly_moves_is_refused() -> None:
    answers = barely_moved(-5.3, 0.1)
    assert parity.compare(answers, answers, "x").spread < parity.FULL_SPREAD
    constant = {key: np.broadcast_to(array.mean(axis=0), array.shape) for key, array in answers.items()}
    faults = parity.compare(answers, constant, "x").faults()
    assert any("probabilities differ" in text for text in faults)
    assert any("change their order" in text for text in faults)


def test_real_audio_is_advised_only_where_there_was_none(
    reference: dict[str, NDArray[np.float32]],
) -> None:
    for n_inputs, advised in ((parity.N_SIGNALS, True), (24, False)):
        flat = {key: np.tile(array[:1], (n_inputs, 1)) for key, array in reference.items()}
        (fault,) = parity.compare(flat, flat, "x").faults()
        assert ("--data" in fault) == advised
        assert "train longer" in fault


def test_every_batch_size_is_asked_for(contract: Contract) -> None:
    predictor = tiny_predictor(contract).eval()
    sizes = []

    class Counted(TorchEngine):
        def __call__(self, inputs: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
            sizes.append(len(inputs))
            return super().__call__(inputs)

    inputs = np.random.default_rng(0).random((20, contract.chunk_samples), dtype=np.float32)
    found = parity.answers(Counted(predictor, CPU), inputs)
    assert sizes == [1, 5, 12, 1, 1]
    np.testing.assert_allclose(
        found["segmentwise"], TorchEngine(predictor, CPU)(inputs)["segmentwise"], atol=1e-5
    )


@pytest.mark.slow
def test_a_checkpoint_whose_export_differs_is_not_written(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exported file is tampered with: one weight of the head is off by a hundredth."""
    write = onnx_files.write

    def tampered(predictors: Any, *rest: Any) -> None:
        with torch.no_grad():
            predictors[0].network.att_block.cla.bias += 0.01
        write(predictors, *rest)

    out = tmp_path / "model"
    monkeypatch.setattr(onnx_files, "write", tampered)
    with pytest.raises(UserError, match=r"parity refused, nothing written: .*logits differ"):
        to_onnx.main([str(run_dir), "--out", str(out)])
    assert not out.exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_refused_export_leaves_the_last_good_folder_as_it_was(
    run_dir: Path, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(model_dir, tmp_path / "model")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(parity, "MIN_SPREAD", 2.0)
    with pytest.raises(UserError, match="nothing written"):
        to_onnx.main([str(run_dir), "--out", str(folder)])
    with pytest.raises(UserError, match="no IR written"):
        to_openvino.main([str(folder)])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_replacement_that_fails_brings_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, staged = tmp_path / "model", tmp_path / "scratch" / "model"
    for place, text in ((folder, "old"), (staged, "new")):
        place.mkdir(parents=True)
        (place / "ensemble.json").write_text(text)
    rename = os.replace

    def fails_on_the_new_one(source: Path, target: Path) -> None:
        if source == staged:
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "replace", fails_on_the_new_one)
    with pytest.raises(OSError, match="No space"):
        model_folder.replace(folder, staged)
    assert (folder / "ensemble.json").read_text() == "old"


def test_a_folder_that_is_no_model_folder_is_not_replaced(run_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="not a model folder"):
        to_onnx.main([str(run_dir), "--out", str(tmp_path)])
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_batch_norm_that_still_learns_is_refused(tmp_path: Path) -> None:
    constant = numpy_helper.from_array(np.ones(3, np.float32), "c")
    node = onnx.helper.make_node("BatchNormalization", ["x", *"cccc"], ["y"], training_mode=1)
    graph = onnx.helper.make_graph([node], "g", [], [], [constant])
    with pytest.raises(UserError, match=r"m\.onnx: BatchNormalization is in training mode"):
        onnx_files.refuse_training_mode(onnx.helper.make_model(graph), "m.onnx")


def test_a_network_that_an_engine_does_not_take_is_refused_in_a_line(tmp_path: Path) -> None:
    """torch pools over the one mel that is left at this depth, and OpenVINO does not."""
    settings = ("frontend.n_mels=16", "frontend.n_fft=1024", "frontend.hop=1024")
    job = tiny_job(*settings)
    contract = Contract(32000, 5.0, 5.0, ("a", "b"))
    predictor = tiny_predictor(contract, *settings).eval()
    path = tmp_path / "few_mels.onnx"
    onnx_files.write([predictor], contract, path, contract.to_metadata())
    final = Final(contract, {"job": job.table()}, "none", "", {}, predictor.state_dict())
    with pytest.raises(UserError, match=r"few_mels: openvino can't run this network.*mels") as refused:
        model_files.against_torch({"few_mels": final}, path, [])
    assert "\n" not in str(refused.value)


def by_frames(final: Final) -> Final:
    """As after a training on every frame, without figures."""
    job = replace(final.job, fit=replace(final.job.fit, framewise=0.7))
    return replace(final, made_by=final.made_by | {"job": job.table()}, metrics={})


def heard_what_validates(final: Final) -> Final:
    """The model, as if teachers had labelled the validating soundscapes for its training."""
    job = final.job.table()
    job["pseudo"]["validating"] = True
    return replace(final, made_by=final.made_by | {"job": job}, trained_on=("a.ogg",))


def test_without_data_the_output_is_the_one_that_training_found_better(run_dir: Path) -> None:
    final = Final.load(run_dir / "round0" / "test_resnet" / "final.pt")

    def with_figures(clipwise: Any, segmentwise: Any) -> Final:
        return replace(
            final, metrics={"soundscapes": {"clipwise": clipwise, "segmentwise": segmentwise}}
        )

    finals = {"a": with_figures(0.7, 0.8), "b": with_figures(0.7, 0.65)}
    for chosen, expected in [
        (finals, "segmentwise"),
        ({"b": finals["b"]}, "clipwise"),
        ({"a": replace(final, metrics={})}, "clipwise"),
        ({"a": heard_what_validates(finals["a"])}, "clipwise"),
        ({"a": by_frames(final)}, "segmentwise"),
        ({"a": by_frames(final), "b": replace(final, metrics={})}, "clipwise"),
    ]:
        stems = {name: [name] for name in chosen}
        spec, judgement = selection.untested(chosen, stems, "there are no labels")
        assert spec.output == expected
        assert expected in judgement.chosen[0]
        assert judgement.n_soundscapes == 0


def test_classes_that_differ_from_the_sample_submission_refuse_the_export(
    run_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "sample_submission.csv").write_text("row_id,demris1,newbird\n")
    (tmp_path / "train_soundscapes").mkdir()
    write_sound(tmp_path / "train_soundscapes" / "s.ogg", 5.0)
    with pytest.raises(UserError, match="1 columns the model doesn't know: newbird; 7 model classes"):
        to_onnx.main([str(run_dir), "--data", str(tmp_path), "--out", str(tmp_path / "model")])
    assert not (tmp_path / "model").exists()


def test_a_run_without_checkpoints_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no recipe\.json, so no finished run"):
        to_onnx.main([str(tmp_path), "--out", str(tmp_path / "model")])
    with pytest.raises(UserError, match=r"ensemble\.json: not found"):
        to_openvino.main([str(tmp_path)])


def test_a_run_is_exported_by_its_recipe_and_not_by_what_lies_in_its_folder(
    run_dir: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_dir, run)
    shutil.copytree(run / "round0" / "test_resnet", run / "round0" / "taken_out_of_the_recipe")
    assert members.load([run]).finals.keys() == {"test_resnet", "test_resnet-2"}
    facts = json.loads((run / "recipe.json").read_text())
    facts["fit"]["lr"] = 0.5
    (run / "recipe.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match=r"test_resnet/final\.pt: made by another job"):
        members.load([run])
    shutil.rmtree(run / "round0" / "test_resnet-2")
    (run / "recipe.json").write_text((run_dir / "recipe.json").read_text())
    with pytest.raises(UserError, match=r"test_resnet-2/final\.pt: no checkpoint there"):
        members.load([run])


def test_the_spec_lists_the_members_with_equal_weights(model_dir: Path) -> None:
    assert Spec.load(model_dir).members == {"test_resnet": 1.0, "test_resnet-2": 1.0}


def test_a_persons_own_file_in_a_model_folder_is_not_deleted(tmp_path: Path) -> None:
    (tmp_path / "ensemble.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"notes\.txt: is no part of a model folder"):
        model_folder.refuse_foreign(tmp_path)
