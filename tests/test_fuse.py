"""Members behind one front end, as one graph; and what is chosen on labelled soundscapes."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from conftest import submit, tiny_predictor

from birdkit import ensemble
from birdkit.engine import Layout, OnnxRuntimeEngine, OpenVinoEngine
from birdkit.ensemble import Spec
from birdkit.errors import UserError
from birdkit.predict import SoundFile
from export import judge, model_folder, parity, to_onnx, to_openvino
from export.fuse import contract_of, group
from export.judge import Judgement
from train.checkpoint import Final
from train.evaluate import TruthSet
from train.recipe import FrontEnd

pytestmark = pytest.mark.slow

LAYOUT = Layout(1, 1, 12)


@pytest.fixture(scope="module")
def fused_dir(run_dir, competition, tmp_path_factory):
    out = tmp_path_factory.mktemp("fused") / "model"
    arguments = [str(run_dir), "--data", str(competition), "--out", str(out), "--fuse", "--fit"]
    assert to_onnx.main(arguments) == 0
    assert to_openvino.main([str(out), "--data", str(competition), "--precision", "f32"]) == 0
    return out


@pytest.mark.parametrize("engine", [OnnxRuntimeEngine, OpenVinoEngine])
def test_fused_and_separate_graphs_agree(contract, tmp_path, engine):
    members = {"one": tiny_predictor(contract), "two": tiny_predictor(contract)}
    with torch.no_grad():
        for parameter in members["two"].network.parameters():
            parameter.mul_(1.2)
        for predictor in members.values():
            predictor.eval().network.att_block.cla.weight.mul_(30)
    both = replace(contract, members=tuple(members))
    to_onnx.export_onnx(list(members.values()), both, tmp_path / "both.onnx", both.to_metadata())
    fused = engine(tmp_path / "both.onnx", LAYOUT)
    inputs = parity.probe_inputs(contract)
    answers = fused(inputs)
    assert fused.contract == both
    assert list(answers) == ["one.clipwise", "one.segmentwise", "two.clipwise", "two.segmentwise"]
    for name, predictor in members.items():
        path = tmp_path / f"{name}.onnx"
        to_onnx.export_onnx([predictor], contract, path, contract.to_metadata())
        alone = engine(path, LAYOUT)(inputs)
        assert np.ptp(alone["segmentwise"]) > 1
        for output, values in both.of_member(answers, name).items():
            np.testing.assert_allclose(values, alone[output], atol=1e-6, rtol=1e-6)
    assert np.abs(answers["one.segmentwise"] - answers["two.segmentwise"]).max() > 0.1


def test_the_log_mel_is_in_a_fused_file_once(fused_dir):
    graph = onnx.load(fused_dir / "fused.onnx").graph
    assert sum("picture" in node.output for node in graph.node) == 1
    mels = [i for i in graph.initializer if list(i.dims) == [32, 512]]
    assert len(mels) == 1
    assert "picture" not in [output.name for output in graph.output]


def test_members_of_another_front_end_get_a_file_of_their_own(run_dir):
    final = Final.load(run_dir / "test_resnet" / "final.pt")
    recipe = json.loads(final.made_by.recipe)
    recipe["frontend"]["n_mels"] = 40
    other = replace(final, made_by=replace(final.made_by, recipe=json.dumps(recipe)))
    longer = replace(final, contract=replace(final.contract, chunk_s=10.0))
    finals = {"a": final, "b": other, "c": final, "d": other, "e": longer}
    assert finals["b"].recipe.frontend == FrontEnd(n_fft=1024, hop=1024, n_mels=40)
    found = group(finals, fuse=True)
    assert found == {"fused": ["a", "c"], "fused2": ["b", "d"], "e": ["e"]}
    assert group(finals, fuse=False) == {name: [name] for name in finals}
    assert contract_of(finals, found["fused"]).members == ("a", "c")
    assert contract_of(finals, ["e"]) == longer.contract


def test_a_fused_folder_writes_the_same_submission(fused_dir, model_dir, competition, tmp_path):
    spec = Spec.load(fused_dir)
    assert spec.files == {"fused": ["test_resnet", "test_resnet-2"]}
    assert not list(fused_dir.glob("test_resnet*"))
    for folder, out in ((fused_dir, "fused.csv"), (model_dir, "apart.csv")):
        replace(Spec.load(model_dir), files=Spec.load(folder).files).save(folder)
        assert submit(competition, folder, tmp_path / out) == 0
    spec.save(fused_dir)
    fused, apart = ((tmp_path / f"{name}.csv").read_text() for name in ("fused", "apart"))
    rows = [[float(x) for x in line.split(",")[1:]] for line in fused.splitlines()[1:]]
    expected = [[float(x) for x in line.split(",")[1:]] for line in apart.splitlines()[1:]]
    np.testing.assert_allclose(rows, expected, atol=1e-6)


def test_every_member_of_a_fused_file_is_gated_by_name(fused_dir):
    report = model_folder.read_parity(fused_dir)
    assert sorted(report) == ["test_resnet", "test_resnet-2"]
    for engines in report.values():
        assert [each.engine for each in engines] == ["onnxruntime", "openvino", "openvino-ir"]


def test_a_judgement_is_of_the_ensemble_that_is_submitted(fused_dir, competition):
    found = Judgement.load(fused_dir)
    spec = Spec.load(fused_dir)
    assert spec.output == max(found.outputs, key=lambda output: found.outputs[output])
    assert found.n_soundscapes == 3
    assert found.n_windows == 36
    weighted = sum(auc * n for auc, n in found.groups.values()) / found.n_scored
    assert weighted == pytest.approx(found.outputs[spec.output])
    assert any("equal weights" in line or "fitted weights" in line for line in found.chosen)
    assert any(line.startswith("averaging ") for line in found.chosen)


def test_fitted_weights_are_taken_where_they_help_others_than_they_were_fitted_on(tmp_path):
    rng = np.random.default_rng(1)
    truth = rng.random((240, 3)) < 0.3
    files = tuple(SoundFile(tmp_path / f"{index}.ogg", 12) for index in range(20))
    labelled = TruthSet("soundscapes", files, truth, np.ones_like(truth))
    noise = rng.random((2, 240, 3)).astype(np.float32)
    good = 0.25 * truth + 0.75 * noise[0]
    scores = [np.stack([good, noise[1]])[:, 12 * i : 12 * (i + 1)] for i in range(20)]
    spec = Spec({"good": 1.0, "noise": 1.0})
    fitted, lines = judge._fit(spec, scores, labelled)
    assert fitted.members["good"] > 0.8
    assert "fitted weights" in lines[1]
    alike = [np.stack([each[0], each[0]]) for each in scores]
    assert judge._fit(spec, alike, labelled)[0].members == {"good": 0.5, "noise": 0.5}


def test_fit_without_labelled_soundscapes_is_refused(run_dir, tmp_path):
    with pytest.raises(UserError, match="--fit needs labelled soundscapes"):
        to_onnx.main([str(run_dir), "--fit", "--out", str(tmp_path / "model")])
    assert not (tmp_path / "model").exists()


def test_members_whose_classes_differ_are_refused(fused_dir, contract, tmp_path):
    predictor = tiny_predictor(contract).eval()
    other = replace(contract, classes=("b", "a", "1234"))
    for name, of in (("x", contract), ("y", other)):
        to_onnx.export_onnx([predictor], of, tmp_path / f"{name}.onnx", of.to_metadata())
    Spec({"x": 1.0, "y": 1.0}).save(tmp_path)
    with pytest.raises(UserError, match="members x and y differ in classes"):
        ensemble.load(tmp_path, LAYOUT)
