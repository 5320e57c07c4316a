"""Models that hear whole stretches: exported, compared frame by frame, and submitted as validated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from birdkit.engines.engine import OnnxRuntimeEngine, OpenVinoEngine
from birdkit.engines.layout import Layout, one_stream
from birdkit.scoring import ensemble
from birdkit.scoring.ensemble import Spec
from export import to_onnx, to_openvino
from export.folder import model_folder
from export.gates import parity
from export.models import onnx
from export.models.fuse import sharing
from export.models.members import Checkpoints, load
from tests.conftest import submit_validation
from train.models.checkpoint import Final
from train.scoring import evaluate
from train.scoring.evaluate import TorchEngine, validation_set
from train.scoring.submitted import score_submission

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def minutes_dir(run_dir: Path, competition: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's export, fused, that hears a minute at once."""
    out = tmp_path_factory.mktemp("export") / "minutes"
    data = ["--data", str(competition)]
    arguments = [str(run_dir), "--out", str(out), "--fuse", "--stretch-s", "60"]
    assert to_onnx.main([*arguments, *data]) == 0
    assert to_openvino.main([str(out), *data, "--precision", "f32"]) == 0
    return out


def test_what_is_submitted_is_what_torch_scores_over_stretches(
    competition: Path, run_dir: Path, minutes_dir: Path, tmp_path: Path
) -> None:
    validation = competition / "validation"
    out = tmp_path / "s.csv"
    submit_validation(competition, minutes_dir, out)
    finals = load([run_dir]).finals
    predictors = {name: final.predictor() for name, final in finals.items()}
    spec = Spec.load(minutes_dir)
    truth_set = validation_set(validation, next(iter(finals.values())).contract)
    aucs = {}
    for stretch_s in (0.0, 60.0):
        stretches_s = dict.fromkeys(predictors, stretch_s)
        engines = evaluate.engines_for(predictors, stretches_s, CPU, truth_set)
        aucs[stretch_s] = evaluate.evaluate(engines, spec, truth_set)[spec.output].macro
    assert aucs[60.0] == pytest.approx(score_submission(out, validation).macro, abs=1e-4)
    assert aucs[60.0] != aucs[0.0]


def test_members_hear_several_lengths_in_turn_as_torch_scores_them(
    run_dir: Path, competition: Path, tmp_path: Path
) -> None:
    out, table = tmp_path / "model", tmp_path / "s.csv"
    assert to_onnx.main([str(run_dir), "--out", str(out), "--fuse", "--stretch-s", "0", "60"]) == 0
    submit_validation(competition, out, table)
    finals = load([run_dir]).finals
    spec, validation = Spec.load(out), competition / "validation"
    (engine,) = ensemble.load(out, Layout(1, 1, 12)).ensemble.engines.values()
    names = tuple(finals)
    assert (engine.contract.members, engine.contract.by_window) == (names, names[:1])
    assert engine.contract.stretch_s == 60.0
    heard = sharing(load([run_dir]).over_stretches(0.0, 60.0).finals)
    truth_set = validation_set(validation, next(iter(finals.values())).contract)
    engines = {name: TorchEngine(final.predictor(), CPU) for name, final in heard.items()}
    expected = evaluate.evaluate(engines, spec, truth_set)[spec.output].macro
    assert score_submission(table, validation).macro == pytest.approx(expected, abs=1e-4)


def test_windows_are_not_shared_with_another_front_end_or_encoder_of_one_length(run_dir: Path) -> None:
    members = load([run_dir]).over_stretches(0.0, 15.0)
    (name, windows), (other, stretches) = members.finals.items()
    assert sharing({name: windows}) == {name: windows}
    job = replace(windows.job, frontend=replace(windows.job.frontend, n_mels=40))
    finer = replace(windows, made_by=windows.made_by | {"job": job.table()})
    assert sharing({name: finer, other: stretches})[name] == finer
    longer = replace(windows, contract=replace(windows.contract, chunk_s=10.0))
    assert sharing({name: longer, other: stretches})[name] == longer


def test_every_precision_of_the_folder_has_its_frames_compared_and_its_answers_recorded(
    minutes_dir: Path,
) -> None:
    report = model_folder.read_parity(minutes_dir)
    assert {c.engine for of in report.values() for c in of} == {
        "onnxruntime",
        "openvino",
        "openvino-ir",
    }
    loaded = ensemble.load(minutes_dir, Layout(1, 1, 12))
    assert loaded.fallbacks == []
    (engine,) = loaded.ensemble.engines.values()
    assert engine.contract.stretch_s == 60.0
    assert "stretches of 60 s" in (minutes_dir / "card.md").read_text()


@pytest.mark.parametrize("stretch_s", [5.0, 10.0, 15.0])
def test_every_frame_of_a_stretch_of_any_length_is_torchs(
    stretch_s: float, run_dir: Path, tmp_path: Path
) -> None:
    members = load([run_dir]).over_stretches(stretch_s)
    name, final = next(iter(members.finals.items()))
    alone = Checkpoints({name: final}, {name: members.paths[name]})
    path = tmp_path / "m.onnx"
    onnx.write_members(alone, [name], path)
    inputs = parity.probe_inputs(final.contract)
    reference = parity.answers(TorchEngine(final.predictor(), CPU), inputs)
    for engine in (OnnxRuntimeEngine, OpenVinoEngine):
        found = parity.answers(engine(path, one_stream(1)), inputs)
        assert found["framewise"].shape == reference["framewise"].shape
        np.testing.assert_allclose(found["framewise"], reference["framewise"], atol=1e-3)
        assert parity.compare(reference, found, engine.name).faults() == []
        for output, off in (("framewise", 2e-3), ("attention", 2e-3)):
            wrong = {key: of.copy() for key, of in found.items()}
            wrong[output][-1, -1, 0] += off  # one frame of one class
            assert parity.compare(reference, wrong, engine.name).faults()


def test_training_validates_over_stretches_where_the_recipe_says_so(
    run_dir: Path, competition: Path
) -> None:
    final = next(iter(load([run_dir]).finals.values()))
    assert final.over_stretches() == final
    table = final.made_by["job"] | {"postprocess": {"stretch_s": 60.0}}
    asked: Final = replace(final, made_by=final.made_by | {"job": table})
    assert asked.over_stretches().contract.stretch_s == 60.0
    assert asked.over_stretches(0.0).contract == final.contract
