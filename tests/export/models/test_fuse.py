"""Members behind one front end, as one graph; and what is chosen on labelled soundscapes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from birdkit import audio
from birdkit.contract import Contract
from birdkit.engines import golden, onnx_graphs
from birdkit.engines.engine import OnnxRuntimeEngine, OpenVinoEngine
from birdkit.engines.layout import Layout
from birdkit.errors import UserError
from birdkit.kaggle import mounts, table
from birdkit.scoring import calibration, ensemble
from birdkit.scoring.ensemble import Spec
from birdkit.scoring.parts import SoundFile
from export import to_onnx, to_openvino
from export.folder import model_folder
from export.gates import parity, selection
from export.gates.selection import Judgement
from export.models import onnx as onnx_files
from export.models import openvino as ir_files
from export.models.fuse import contract_of, into_files
from tests.conftest import submit, tiny_predictor
from train.config.settings import FrontEnd
from train.models.checkpoint import Final
from train.scoring.evaluate import TruthSet

pytestmark = pytest.mark.slow

LAYOUT = Layout(1, 1, 12)
ENGINES = {"onnxruntime": OnnxRuntimeEngine, "openvino": OpenVinoEngine}


@pytest.fixture(scope="module")
def fused_dir(run_dir: Path, competition: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fused") / "model"
    arguments = [str(run_dir), "--data", str(competition), "--out", str(out), "--fuse", "--fit"]
    assert to_onnx.main(arguments) == 0
    assert to_openvino.main([str(out), "--data", str(competition), "--precision", "f32"]) == 0
    return out


def test_fused_and_separate_graphs_agree(contract: Contract, tmp_path: Path) -> None:
    members = {"one": tiny_predictor(contract), "two": tiny_predictor(contract)}
    with torch.no_grad():
        for parameter in members["two"].network.parameters():
            parameter.mul_(1.2)
        for predictor in members.values():
            predictor.eval().network.att_block.cla.weight.mul_(30)
    both = replace(contract, members=tuple(members))
    onnx_files.write(list(members.values()), both, tmp_path / "both.onnx", both.to_metadata())
    for name, predictor in members.items():
        onnx_files.write([predictor], contract, tmp_path / f"{name}.onnx", contract.to_metadata())
    inputs = parity.probe_inputs(contract)
    for engine in (OnnxRuntimeEngine, OpenVinoEngine):
        fused = engine(tmp_path / "both.onnx", LAYOUT)
        answers = fused(inputs)
        assert fused.contract == both
        outputs = ["one.clipwise", "one.segmentwise", "two.clipwise", "two.segmentwise"]
        assert list(answers) == outputs
        for name in members:
            alone = engine(tmp_path / f"{name}.onnx", LAYOUT)(inputs)
            assert np.ptp(alone["segmentwise"]) > 1
            for output, values in both.of_member(answers, name).items():
                np.testing.assert_allclose(values, alone[output], atol=1e-6, rtol=1e-6)
        assert np.abs(answers["one.segmentwise"] - answers["two.segmentwise"]).max() > 0.1


def test_the_log_mel_is_in_a_fused_file_once(fused_dir: Path) -> None:
    graph = onnx.load(fused_dir / "fused.onnx").graph
    assert sum("log_mel" in node.output for node in graph.node) == 1
    mels = [i for i in graph.initializer if list(i.dims) == [32, 512]]
    assert len(mels) == 1
    assert "log_mel" not in [output.name for output in graph.output]


def test_members_of_another_front_end_get_a_file_of_their_own(run_dir: Path) -> None:
    final = Final.load(run_dir / "round0" / "test_resnet" / "final.pt")
    job = replace(final.job, frontend=replace(final.job.frontend, n_mels=40))
    other = replace(final, made_by=final.made_by | {"job": job.table()})
    longer = replace(final, contract=replace(final.contract, chunk_s=10.0))
    finals = {"a": final, "b": other, "c": final, "d": other, "e": longer}
    assert finals["b"].job.frontend == FrontEnd(n_fft=1024, hop=1024, n_mels=40)
    _, found = into_files(finals, fuse=True)
    assert found == {"fused": ["a", "c"], "fused2": ["b", "d"], "e": ["e"]}
    assert into_files(finals, fuse=False) == (finals, {name: [name] for name in finals})
    assert contract_of(finals, found["fused"]).members == ("a", "c")
    assert contract_of(finals, ["e"]) == longer.contract


def test_a_fused_folder_writes_the_same_submission(
    fused_dir: Path, model_dir: Path, competition: Path, tmp_path: Path
) -> None:
    spec = Spec.load(fused_dir)
    assert spec.files == {"fused": ["test_resnet", "test_resnet-2"]}
    assert not list(fused_dir.glob("test_resnet*"))
    separate = shutil.copytree(model_dir, tmp_path / "separate")
    for folder, out in ((fused_dir, "fused.csv"), (separate, "apart.csv")):
        replace(Spec.load(model_dir), files=Spec.load(folder).files).save(folder)
        assert submit(competition, folder, tmp_path / out) == 0
    spec.save(fused_dir)
    fused, apart = ((tmp_path / f"{name}.csv").read_text() for name in ("fused", "apart"))
    rows = [[float(x) for x in line.split(",")[1:]] for line in fused.splitlines()[1:]]
    expected = [[float(x) for x in line.split(",")[1:]] for line in apart.splitlines()[1:]]
    np.testing.assert_allclose(rows, expected, atol=1e-6)


def test_every_member_of_a_fused_file_is_gated_by_name(fused_dir: Path) -> None:
    report = model_folder.read_parity(fused_dir)
    assert sorted(report) == ["test_resnet", "test_resnet-2"]
    for engines in report.values():
        assert [each.engine for each in engines] == ["onnxruntime", "openvino", "openvino-ir"]


def test_a_judgement_is_of_the_ensemble_that_is_submitted(fused_dir: Path, competition: Path) -> None:
    judgement = Judgement.load(fused_dir)
    assert judgement is not None
    spec = Spec.load(fused_dir)
    assert spec.output == max(judgement.outputs, key=lambda output: judgement.outputs[output])
    assert judgement.n_soundscapes == 3
    assert judgement.n_windows == 36
    weighted = sum(auc * n for auc, n in judgement.groups.values()) / judgement.n_scored
    assert weighted == pytest.approx(judgement.outputs[spec.output])
    assert any("equal weights" in line or "fitted weights" in line for line in judgement.chosen)
    assert any(line.startswith("averaging ") for line in judgement.chosen)


def test_fitted_weights_are_taken_where_they_help_others_than_they_were_fitted_on(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(1)
    truth = rng.random((240, 3)) < 0.3
    files = tuple(SoundFile(tmp_path / f"{index}.ogg", 12) for index in range(20))
    labelled = TruthSet.of("soundscapes", files, truth, np.ones_like(truth))
    noise = rng.random((2, 240, 3)).astype(np.float32)
    good = 0.25 * truth + 0.75 * noise[0]
    scores = [np.stack([good, noise[1]])[:, 12 * i : 12 * (i + 1)] for i in range(20)]
    spec = Spec({"good": 1.0, "noise": 1.0})
    fitted, lines = selection._fit(spec, scores, labelled)
    assert fitted.members["good"] > 0.8
    assert "fitted weights" in lines[1]
    alike = [np.stack([each[0], each[0]]) for each in scores]
    assert selection._fit(spec, alike, labelled)[0].members == {"good": 0.5, "noise": 0.5}


def test_fit_without_labelled_soundscapes_is_refused(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--fit has nothing to choose on"):
        to_onnx.main([str(run_dir), "--fit", "--out", str(tmp_path / "model")])
    assert not (tmp_path / "model").exists()


def test_members_whose_classes_differ_are_refused(model_dir: Path, tmp_path: Path) -> None:
    source = model_dir / "test_resnet.onnx"
    contract = OnnxRuntimeEngine(source, LAYOUT).contract
    for name, classes in (("x", contract.classes), ("y", contract.classes[::-1])):
        model = onnx.load(source)
        onnx.helper.set_model_props(model, replace(contract, classes=classes).to_metadata())
        onnx.save(model, tmp_path / f"{name}.onnx")
    Spec({"x": 1.0, "y": 1.0}).save(tmp_path)
    with pytest.raises(UserError, match="members x and y differ in classes"):
        ensemble.load(tmp_path, LAYOUT)


@pytest.fixture(scope="module")
def duo_dir(competition: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fused folder of two members that answer differently; the heavier one is the second."""
    folder = tmp_path_factory.mktemp("duo")
    _, columns = table.read_sample(competition / "sample_submission.csv")
    contract = Contract(32000, 5.0, 5.0, tuple(columns), members=("one", "two"))
    predictors = [tiny_predictor(contract).eval() for _ in contract.members]
    with torch.no_grad():
        for parameter in predictors[1].network.parameters():
            parameter.mul_(1.2)
        for predictor in predictors:
            predictor.network.att_block.cla.weight.mul_(30)
    path = folder / "fused.onnx"
    onnx_files.write(predictors, contract, path, contract.to_metadata())
    golden.record(folder, "fused", "f32", OnnxRuntimeEngine(path, LAYOUT))
    ir_files.write_ir(path, path.with_suffix(".xml"))
    weights, files = {"one": 1.0, "two": 2.0}, {"fused": list(contract.members)}
    Spec(weights, "segmentwise", (0.25, 0.5, 0.25), files=files, shifts=(0.5,)).save(folder)
    return folder


@pytest.fixture(scope="module")
def soundscape(competition: Path) -> NDArray[np.float32]:
    first = mounts.soundscapes(competition / "validation" / "soundscapes")[0]
    return audio.read(first, 32000)


@pytest.mark.parametrize("shift", [0.0, 0.5])
@pytest.mark.parametrize(
    "engine, lower", [("onnxruntime", ()), ("openvino", ()), ("openvino", ("bf16",))]
)
def test_a_member_alone_scores_as_it_does_among_all(
    duo_dir: Path, soundscape: NDArray[np.float32], engine: Any, lower: Sequence[str], shift: float
) -> None:
    whole = ensemble.load(duo_dir, LAYOUT, engine, lower)
    expected = whole.ensemble.score(soundscape, 12, shift)
    assert np.abs(expected[0] - expected[1]).max() > 0.1
    for index, name in enumerate(["one", "two"]):
        alone = ensemble.load(duo_dir, LAYOUT, engine, lower, members=[name])
        assert list(alone.ensemble.spec.members) == [name]
        # The same rung of the ladder, and none before it failed: the golden input was answered.
        assert alone.engines == whole.engines
        assert alone.fallbacks == []
        scores = alone.ensemble.score(soundscape, 12, shift)
        np.testing.assert_allclose(scores, expected[[index]], rtol=0, atol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_golden_answers_of_a_member_alone_are_its_own(
    duo_dir: Path, tmp_path: Path, engine: Any
) -> None:
    folder = shutil.copytree(duo_dir, tmp_path / "model")
    recorded = json.loads((folder / golden.NAME).read_text())
    recorded["fused"]["f32"]["two.segmentwise"][0][0] += 1.0
    (folder / golden.NAME).write_text(json.dumps(recorded))
    assert ensemble.load(folder, LAYOUT, engine, members=["one"]).fallbacks == []
    with pytest.raises(UserError, match=r"golden input: two\.segmentwise is off by [\d.]+ >"):
        ensemble.load(folder, LAYOUT, engine, members=["two"])


def outputs_of(engine: Any) -> list[str]:
    """What the engine's graph computes, whether or not it is asked for."""
    if isinstance(engine, OpenVinoEngine):
        return [name for output in engine.stages[-1].outputs for name in output.get_names()]
    return [output.name for output in engine._session.get_outputs()]


def convolutions_run(engine: Any) -> int:
    """How many convolutions one call executes, as the engine itself says."""
    if isinstance(engine, OpenVinoEngine):
        ops = [op for stage in engine.stages for op in stage.get_runtime_model().get_ops()]
        kinds = [op.get_rt_info()["layerType"].value for op in ops]
    else:
        engine(golden.question(engine.contract)[:1])
        events = json.loads(Path(engine._session.end_profiling()).read_text())
        kinds = [each["args"]["op_name"] for each in events if each["name"].endswith("_kernel_time")]
    return sum(kind in ("Convolution", "Conv", "FusedConv") for kind in kinds)


@pytest.mark.parametrize(
    "engine, precision", [("onnxruntime", "f32"), ("openvino", "f32"), ("openvino", "bf16")]
)
def test_a_member_that_is_left_out_is_not_computed(
    duo_dir: Path,
    contract: Contract,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    engine: Any,
    precision: str,
) -> None:
    def profiled(options: Any = onnxruntime.SessionOptions) -> Any:
        found = options()
        found.enable_profiling, found.profile_file_prefix = True, str(tmp_path / "profile")
        return found

    monkeypatch.setattr(onnxruntime, "SessionOptions", profiled)
    path = duo_dir / ("fused.onnx" if engine == "onnxruntime" else "fused.xml")
    layers = tiny_predictor(contract).network.modules()
    n_of_one = sum(isinstance(layer, torch.nn.Conv1d | torch.nn.Conv2d) for layer in layers)
    assert n_of_one == 17
    whole = ENGINES[engine](path, LAYOUT, precision)
    assert convolutions_run(whole) == 2 * n_of_one  # the front end has none
    for name in ("one", "two"):
        alone = ENGINES[engine](path, LAYOUT, precision, [name])
        assert outputs_of(alone) == [f"{name}.clipwise", f"{name}.segmentwise"]
        assert convolutions_run(alone) == n_of_one


def test_an_onnx_file_is_cut_down_to_the_nodes_that_its_outputs_need(duo_dir: Path) -> None:
    file = (duo_dir / "fused.onnx").read_bytes()
    whole = onnx.load_from_string(file)
    names = [output.name for output in whole.graph.output]
    assert onnx_graphs.with_outputs(file, names) == file
    for some in (names[:2], names[2:], names[3:]):
        cut = onnx.load_from_string(onnx_graphs.with_outputs(file, some))
        onnx.checker.check_model(cut)
        expected = onnx.utils.Extractor(whole).extract_model(["waveform"], some)
        assert list(cut.graph.node) == list(expected.graph.node)
        assert list(cut.graph.output) == [each for each in whole.graph.output if each.name in some]
        assert cut.metadata_props == whole.metadata_props


# Windows a second by the number of members: 100 windows take both of them 115 s, one 11.5 s.
SPEEDS = {2: 1.0, 1: 10.0}


def pretend_speeds(monkeypatch: pytest.MonkeyPatch, speeds: dict[int, float]) -> None:
    monkeypatch.setattr(calibration, "windows_per_s", lambda of, streams: speeds[len(of.spec.members)])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "left_s, kept", [(116.0, ["one", "two"]), (114.0, ["one"]), (12.0, ["one"]), (11.0, ["one"])]
)
def test_the_first_members_of_a_fused_file_stay_as_many_as_there_is_time_for(
    duo_dir: Path,
    soundscape: NDArray[np.float32],
    monkeypatch: pytest.MonkeyPatch,
    engine: Any,
    left_s: float,
    kept: list[str],
) -> None:
    def open_in(layout: Any, members: Any) -> Any:
        return ensemble.load(duo_dir, layout, engine, members=members)

    pretend_speeds(monkeypatch, SPEEDS)
    found = calibration.what_fits(
        open_in, [LAYOUT], [SoundFile(Path(), 20)] * 5, 50.0 + left_s, clock=lambda: 50.0
    )
    assert list(found.loaded.ensemble.spec.members) == kept
    assert found.windows_per_s == SPEEDS[len(kept)]
    whole = open_in(LAYOUT, None).ensemble
    expected = dict(zip(whole.spec.members, whole.score(soundscape, 12), strict=True))
    scores = found.loaded.ensemble.score(soundscape, 12)
    np.testing.assert_allclose(scores, [expected[name] for name in kept], rtol=0, atol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_with_time_for_one_member_submits_that_members_table_and_says_so(
    duo_dir: Path,
    competition: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    engine: Any,
) -> None:
    def table_of(folder: Path, name: str, *arguments: str) -> Any:
        sounds = str(competition / "validation" / "soundscapes")
        where = ["--soundscapes", sounds, "--engine", engine]
        assert submit(competition, folder, tmp_path / name, *where, *arguments) == 0
        report = json.loads((tmp_path / f"{name}.report.json").read_text())
        lines = (tmp_path / name).read_text().splitlines()
        return report, np.array([[float(x) for x in line.split(",")[1:]] for line in lines[1:]])

    # The same table by another way: both members are computed, and one of them counts for nothing.
    weightless = shutil.copytree(duo_dir, tmp_path / "weightless")
    replace(Spec.load(duo_dir), members={"one": 1.0, "two": 0.0}).save(weightless)
    _, expected = table_of(weightless, "weightless.csv")
    everything, of_both = table_of(duo_dir, "both.csv")
    assert everything["members"] == ["one", "two"]
    assert np.abs(of_both - expected).max() > 0.01

    pretend_speeds(monkeypatch, {2: 1e-3, 1: 1e6})
    capsys.readouterr()
    report, found = table_of(duo_dir, "short.csv")
    left_out = "left out, since the budget is too short for all: two"
    assert report["members"] == ["one"]
    assert report["notes"] == [left_out]
    assert report["passes"] == ["plain", "shift 0.5"]
    assert report["scored"] == report["files"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert f"warning: {left_out}\n" in capsys.readouterr().err
    with pytest.raises(UserError, match="strict run: 1 fallbacks"):
        table_of(duo_dir, "strict.csv", "--strict")
