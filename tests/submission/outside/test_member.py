"""Members from outside in a model folder: opened, checked, failing, and never in a submission's way."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from birdkit.contract import Contract
from birdkit.engines.engine import Answers
from birdkit.engines.ladder import Opened
from birdkit.engines.layout import Layout
from birdkit.errors import UserError
from birdkit.outside.card import card_of as card_path
from birdkit.outside.member import Membership, OutsideMember, open_member, probe_file
from birdkit.outside.probe import Probe
from birdkit.outside.runners import OnnxRuntimeRunner
from birdkit.recordings.models import ModelFolder
from birdkit.scoring import ensemble
from birdkit.scoring.ensemble import Ensemble, Spec, combine
from export import add_member
from export.folder.model_card import NAME as CARD
from export.gates import share
from export.gates.selection import labelled_set
from tests.conftest import submission_detect, submit, submit_validation
from tests.submission.outside import stand_in
from train.rounds.class_table import names_of
from train.scoring.evaluate import member_scores

LAYOUT = Layout(1, 1, 4)


@pytest.fixture(scope="module")
def source(competition: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A card with labels for all classes of the demo competition but the last."""
    folder = tmp_path_factory.mktemp("outside")
    names = names_of([competition])["scientific_name"]
    labels = ("Speech", *(f"{name}_Bird" for name in sorted(names)[:-1]))
    return stand_in.write(folder, stand_in.card_of(labels, licence="CC BY-NC-SA 4.0"))


@pytest.fixture(scope="module")
def folder(
    model_dir: Path, source: Path, competition: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The run's export with the member added, its share chosen."""
    out = tmp_path_factory.mktemp("with") / "model"
    shutil.copytree(model_dir, out)
    assert add_member.main([str(out), "--from", str(source), "--data", str(competition)]) == 0
    return out


@pytest.fixture(scope="module")
def probed(
    model_dir: Path, source: Path, competition: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The run's export with the member and a probe of few samples."""
    out, cache = tmp_path_factory.mktemp("probed") / "model", tmp_path_factory.mktemp("waveforms")
    shutil.copytree(model_dir, out)
    arguments = [str(out), "--from", str(source), "--data", str(competition), "--cache", str(cache)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(share, "PROBE_SHARES", (0.25,))  # what random weights say is not worth having
        assert add_member.main([*arguments, "--probe", "64"]) == 0
    return out


def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "model"))


def test_a_member_is_added_with_its_files_share_card_and_judgement(
    folder: Path, model_dir: Path
) -> None:
    spec, before = Spec.load(folder), Spec.load(model_dir)
    assert spec.soft == ("perch",)
    assert [*spec.members] == [*before.members, "perch"]  # the first to go where time is short
    assert spec.stems == before.stems
    assert (folder / "perch.onnx").is_file()
    member = Membership.read(card_path(folder, "perch"))
    card, classes, contract = member.card, member.classes, member.contract
    assert card.licence == "CC BY-NC-SA 4.0"
    assert classes.known.sum() == len(contract.classes) - 1
    page = (folder / CARD).read_text()
    assert "CC BY-NC-SA 4.0" in page
    assert f"{classes.known.sum()} of {len(contract.classes)}" in page
    chosen = json.loads((folder / "evaluation.json").read_text())["chosen"]
    assert any(line.startswith("perch: ") and "gain" in line for line in chosen)


def test_its_answers_are_nan_for_the_class_that_it_lacks_and_the_mean_is_not(
    folder: Path,
) -> None:
    loaded = ensemble.load(folder, LAYOUT)
    assert list(loaded.fallbacks) == []
    waveform = (0.1 * np.random.default_rng(0).standard_normal(3 * 160_000)).astype(np.float32)
    scores = loaded.ensemble.score(waveform, 3)
    unknown = ~Membership.read(card_path(folder, "perch")).known
    np.testing.assert_array_equal(np.isnan(scores[-1]), np.tile(unknown, (3, 1)))
    assert np.isfinite(scores[:-1]).all()
    (mean,) = combine([scores], loaded.ensemble.spec)
    assert mean is not None
    assert np.isfinite(mean).all()


def test_a_probe_answers_for_the_class_that_the_labels_lack(
    probed: Path, competition: Path, tmp_path: Path
) -> None:
    member = Membership.read(card_path(probed, "perch"))
    assert member.probe is not None
    assert member.known.sum() > member.classes.known.sum()
    loaded = ensemble.load(probed, LAYOUT)
    assert list(loaded.fallbacks) == []
    waveform = (0.1 * np.random.default_rng(0).standard_normal(3 * 160_000)).astype(np.float32)
    scores = loaded.ensemble.score(waveform, 3)
    np.testing.assert_array_equal(np.isnan(scores[-1]).all(axis=0), ~member.known)
    (line,) = [
        line
        for line in json.loads((probed / "evaluation.json").read_text())["chosen"]
        if line.startswith("perch: ")
    ]
    assert "probe 0.25" in line
    assert "by a probe on its embedding" in (probed / CARD).read_text()
    submit_validation(competition, probed, tmp_path / "with.csv")
    assert json.loads((tmp_path / "with.csv.report.json").read_text())["notes"] == []


def test_the_figure_of_the_choice_is_that_of_the_folder(probed: Path, competition: Path) -> None:
    """What was mixed from two hearings is what the member with its probe says."""
    labelled = labelled_set(competition, ensemble.load(probed, LAYOUT).ensemble.contract, ())
    assert labelled.truth_set is not None
    loaded = ensemble.load(probed, LAYOUT, precisions=())
    spec = Spec.load(probed)
    scores = member_scores(loaded.ensemble, labelled.truth_set)[spec.output]
    auc = labelled.truth_set.auc(combine(scores, spec)).macro
    judged = json.loads((probed / "evaluation.json").read_text())
    assert auc == pytest.approx(judged["outputs"][spec.output], abs=1e-4)


def test_a_probe_that_is_damaged_or_changed_costs_the_member_and_no_more(
    probed: Path, tmp_path: Path
) -> None:
    broken = copy(probed, tmp_path)
    path = probe_file(card_path(broken, "perch"))
    probe = Probe.load(path)
    replace(probe, bias=probe.bias + np.float32(1.0)).save(path)
    with pytest.raises(UserError, match=r"no engine runs perch .*golden input"):
        open_member(broken, "perch", LAYOUT)
    replace(probe, bias=probe.bias[:-1], weights=probe.weights[:, :-1]).save(path)
    with pytest.raises(UserError, match=r"perch\.probe\.npz: answers for .* classes"):
        open_member(broken, "perch", LAYOUT)
    path.unlink()
    loaded = ensemble.load(broken, LAYOUT)
    assert loaded.absent == ("perch",)
    assert "perch.probe.npz: can't be read as a probe" in loaded.fallbacks[-1]


@pytest.mark.parametrize("options", [[], ["--probe", "64"]], ids=["not asked for", "of no use"])
def test_a_member_that_is_added_again_without_a_probe_has_none(
    probed: Path,
    source: Path,
    competition: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
) -> None:
    other = copy(probed, tmp_path)
    monkeypatch.setattr(share, "PROBE_SHARES", (None,))
    arguments = ["--from", str(source), "--data", str(competition), "--cache", str(tmp_path / "cache")]
    assert add_member.main([str(other), *arguments, *options]) == 0
    assert not probe_file(card_path(other, "perch")).exists()
    assert Membership.read(card_path(other, "perch")).probe is None


def test_with_nothing_to_choose_on_it_has_half_of_a_mean_of_logits(
    model_dir: Path, source: Path, tmp_path: Path
) -> None:
    other = copy(model_dir, tmp_path)
    assert add_member.main([str(other), "--from", str(source)]) == 0
    spec = Spec.load(other)
    assert spec.averaging == "logit"
    assert spec.members["perch"] == pytest.approx(sum(spec.members.values()) / 2)


def test_a_submission_uses_it_and_goes_on_without_it(
    folder: Path, competition: Path, tmp_path: Path
) -> None:
    with_it, without = tmp_path / "with.csv", tmp_path / "without.csv"
    submit_validation(competition, folder, with_it)
    report = json.loads(Path(f"{with_it}.report.json").read_text())
    assert "perch" in report["members"]
    assert report["notes"] == []
    broken = copy(folder, tmp_path)
    (broken / "perch.onnx").unlink()
    submit_validation(competition, broken, without)
    report = json.loads(Path(f"{without}.report.json").read_text())
    assert "perch" not in report["members"]
    (note,) = report["notes"]
    assert "left out, since it can't be opened: perch" in note
    tables = [pd.read_csv(path) for path in (with_it, without)]
    assert tables[0].shape == tables[1].shape
    assert not tables[0].equals(tables[1])
    assert np.isfinite(tables[1].iloc[:, 1:].to_numpy()).all()
    strict = ["--soundscapes", str(competition / "validation" / "soundscapes"), "--strict"]
    with pytest.raises(UserError, match="strict run: 1 fallbacks"):
        submit(competition, broken, tmp_path / "s.csv", *strict, "--max-passes", "1")


def test_a_file_that_was_exchanged_fails_its_golden_check(folder: Path, tmp_path: Path) -> None:
    other = copy(folder, tmp_path)
    card = Membership.read(card_path(other, "perch")).card
    stand_in.write(tmp_path, card, scale=2.0)
    shutil.copyfile(tmp_path / "perch.onnx", other / "perch.onnx")
    with pytest.raises(UserError, match=r"no engine runs perch .*golden input"):
        open_member(other, "perch", LAYOUT)
    stand_in.write(tmp_path, card, scale=np.nan)
    shutil.copyfile(tmp_path / "perch.onnx", other / "perch.onnx")
    loaded = ensemble.load(other, LAYOUT)
    assert loaded.absent == ("perch",)
    assert "answers with NaN" in loaded.fallbacks[-1]


class Failing:
    """An engine that fails from its second call on."""

    def __init__(self, contract: Contract) -> None:
        self.contract, self.calls = contract, 0

    def __call__(self, inputs: NDArray[np.float32]) -> Answers:
        self.calls += 1
        if self.calls > 1:
            raise RuntimeError("out of memory")
        return {name: np.ones((len(inputs), 3), np.float32) for name in self.contract.tensors}


def test_a_member_that_fails_at_work_takes_its_next_engine_and_then_answers_nan(
    contract: Contract,
) -> None:
    others = [Opened(Failing(contract), "second")]

    def reopen(avoid: Sequence[str]) -> Opened:
        if not others:
            raise UserError(f"all failed: {avoid}")
        return others.pop()

    member = OutsideMember(Opened(Failing(contract), "first"), reopen)
    inputs = np.zeros((2, contract.chunk_samples), np.float32)
    assert (member(inputs)["clipwise"] == 1).all()
    assert (member(inputs)["clipwise"] == 1).all()
    assert member.opened.description == "second"
    assert np.isnan(member(inputs)["clipwise"]).all()
    assert member.fault == "second failed at work (out of memory)"
    whole = Ensemble({"bird": member}, Spec({"bird": 1.0}, soft=("bird",)))
    assert whole.lost == {"bird": member.fault}


def test_a_member_that_fails_at_work_is_a_note_and_the_table_is_the_others(
    folder: Path, competition: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = copy(folder, tmp_path)
    spec = Spec.load(alone)
    spec.only([name for name in spec.members if name != "perch"]).save(alone)
    submit_validation(competition, alone, tmp_path / "alone.csv")
    calls: list[int] = []

    def fail(self: OnnxRuntimeRunner, inputs: NDArray[np.float32]) -> Answers:
        calls.append(len(inputs))
        if len(calls) > 6:  # the golden input, four to calibrate, one file
            raise RuntimeError("out of memory")
        return answered(self, inputs)

    answered = OnnxRuntimeRunner.__call__
    monkeypatch.setattr("birdkit.outside.runners.RUNNERS", {"onnx": (OnnxRuntimeRunner,)})
    monkeypatch.setattr("birdkit.outside.member.RUNNERS", {"onnx": (OnnxRuntimeRunner,)})
    monkeypatch.setattr(OnnxRuntimeRunner, "__call__", fail)
    submit_validation(competition, folder, tmp_path / "lost.csv")
    notes = json.loads((tmp_path / "lost.csv.report.json").read_text())["notes"]
    assert len(notes) == 1
    assert "goes on without perch" in notes[0]
    tables = [pd.read_csv(tmp_path / f"{name}.csv").iloc[:, 1:] for name in ("alone", "lost")]
    np.testing.assert_allclose(tables[0].to_numpy(), tables[1].to_numpy(), atol=1e-5)


def test_detect_hears_with_it_too(folder: Path, competition: Path, tmp_path: Path) -> None:
    sound = sorted((competition / "train_soundscapes").iterdir())[0]
    out = tmp_path / "out"
    assert submission_detect.main([str(sound), "--model", str(folder), "--out", str(out)]) == 0
    assert any(out.iterdir())


def test_the_key_of_a_folder_changes_with_its_member(folder: Path, tmp_path: Path) -> None:
    other = copy(folder, tmp_path)
    assert ModelFolder(folder).key == ModelFolder(other).key
    with (other / "perch.onnx").open("ab") as file:
        file.write(b"\0")
    assert ModelFolder(folder).key != ModelFolder(other).key


def test_bad_requests_are_named(folder: Path, source: Path, tmp_path: Path, competition: Path) -> None:
    for arguments, message in [
        (["--from", "owl"], "is neither birdnet, perch nor NAME"),
        (["--from", "perch"], "needs --file perch_v2.onnx and --labels"),
        (["--from", str(source), "--name", "a/b"], "may have letters"),
        (["--from", str(source), "--name", "test_resnet"], "is a model of the folder's own"),
        (["--from", str(source), "--file", str(tmp_path / "no.onnx")], "not found"),
        (["--from", str(source), "--probe"], "--probe learns from recordings"),
    ]:
        with pytest.raises(UserError, match=message):
            add_member.main([str(folder), *arguments])
    strange = stand_in.write(tmp_path, stand_in.card_of())
    with pytest.raises(UserError, match=r"Perch v2: 0 of .* classes are among its labels"):
        add_member.main([str(folder), "--from", str(strange), "--data", str(competition)])
