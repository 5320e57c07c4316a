"""What judges and chooses: labelled soundscapes that trained no member, or nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from birdkit.engines.layout import Layout
from birdkit.errors import UserError
from birdkit.scoring.ensemble import SHIFTS, Spec
from birdkit.scoring.parts import SoundFile
from export import to_onnx, to_openvino
from export.folder import model_folder
from export.gates import lower_precisions, model_files, order, selection
from export.gates.selection import Judgement
from export.models import members
from export.models.onnx import MADE_BY_KEY
from train.data.competition import read_labelled
from train.models.checkpoint import Final
from train.scoring import evaluate
from train.scoring.evaluate import TruthSet

MEMBERS = ("test_resnet", "test_resnet-2")


@pytest.fixture(scope="module")
def labelled(competition: Path) -> list[str]:
    """Names of the labelled soundscapes."""
    names = [soundscape.path.name for soundscape in read_labelled(competition)[0]]
    assert len(names) == 3
    return names


def say_trained_on(path: Path, member: str, names: Collection[str] | None) -> None:
    """Make an ONNX file say which soundscapes trained its member; None as older files, which don't."""
    model = onnx.load(path)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    made_by = json.loads(metadata[MADE_BY_KEY])
    made_by[member].pop("trained_on")
    made_by[member] |= {} if names is None else {"trained_on": sorted(names)}
    onnx.helper.set_model_props(model, metadata | {MADE_BY_KEY: json.dumps(made_by)})
    onnx.save(model, path)


Export = Callable[..., Path]


@pytest.fixture
def export(
    run_dir: Path, model_dir: Path, competition: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Export:
    """Export the run as if its members had been trained on some soundscapes; graphs are copied."""

    def copied(_: Any, stem: str, names: Sequence[str], folder: Path, *rest: Any) -> Any:
        shutil.copy(model_dir / f"{stem}.onnx", folder)
        return {name: model_folder.read_parity(model_dir)[name] for name in names}

    def run(trained_on: Sequence[Collection[str]], *arguments: str) -> Path:
        run = Path(shutil.copytree(run_dir, tmp_path / "run"))
        for member, names in zip(MEMBERS, trained_on, strict=True):
            path = run / "round0" / member / "final.pt"
            replace(Final.load(path), trained_on=tuple(names)).save(path)
        out = tmp_path / "model"
        data = ["--data", str(competition)]
        assert to_onnx.main([str(run), "--out", str(out), *data, *arguments]) == 0
        return out

    monkeypatch.setattr(model_files, "export_stem", copied)
    monkeypatch.setattr(order, "SHIFTS", SHIFTS[:1])
    return run


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of the soundscapes that export scores."""
    names: set[str] = set()
    score = evaluate.member_scores

    def spy(ensemble: Any, truth_set: Any, *rest: Any) -> Any:
        names.update(file.path.name for file in truth_set.files)
        return score(ensemble, truth_set, *rest)

    monkeypatch.setattr(selection, "member_scores", spy)
    return names


@pytest.mark.parametrize("n_left", [0, 1, 2, 3])
def test_a_soundscape_that_trained_any_member_judges_nothing(
    n_left: int, labelled: list[str], competition: Path, run_dir: Path
) -> None:
    contract = members.load([run_dir]).contract
    judging = selection.labelled_set(competition, contract, [*labelled[n_left:], "another.ogg"])
    files = judging.truth_set.files if judging.truth_set else ()
    assert [file.path.name for file in files] == labelled[:n_left]
    expected = {
        0: "all 3 labelled soundscapes trained a member",
        1: "2 of 3 labelled soundscapes trained a member and are left out",
        2: "1 of 3 labelled soundscapes trained a member and are left out",
        3: "",
    }
    assert judging.note == expected[n_left]


def test_labelled_soundscapes_that_cannot_be_decoded_are_left_out_by_name(
    labelled: list[str], competition: Path, run_dir: Path, tmp_path: Path
) -> None:
    """As training leaves them out with data.skip_bad; the folder may be of 2024, too."""
    folder = shutil.copytree(competition, tmp_path / "data")
    soundscapes = (folder / "train_soundscapes").rename(folder / "unlabeled_soundscapes")
    (soundscapes / labelled[0]).write_bytes(b"no sound")
    judging = selection.labelled_set(folder, members.load([run_dir]).contract, [])
    assert judging.truth_set is not None
    assert [file.path.name for file in judging.truth_set.files] == labelled[1:]
    assert labelled[0] in judging.note
    assert labelled[0] not in {path.name for path in model_folder.gate_recordings(folder)}


def test_soundscapes_in_which_no_class_can_be_ranked_judge_nothing(
    competition: Path, run_dir: Path, tmp_path: Path
) -> None:
    contract = replace(members.load([run_dir]).contract, classes=("no class of these",))
    judging = selection.labelled_set(competition, contract, [])
    assert judging.truth_set is None
    assert "no class both present and absent" in judging.note


def test_what_trained_one_member_is_left_out_of_every_choice_and_of_the_card(
    export: Export, heard: set[str], labelled: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    one, two, three = labelled
    out = export([[one], []], "--fit")
    assert heard == {two, three}
    note = "1 of 3 labelled soundscapes trained a member and are left out"
    assert note in capsys.readouterr().out
    judgement = Judgement.load(out)
    assert judgement is not None
    assert judgement.n_soundscapes == 2
    card = (out / "card.md").read_text()
    assert "on 2 labelled soundscapes" in card
    assert note in card
    assert "Chosen: averaging" in card


def test_where_all_trained_a_member_nothing_is_chosen_and_it_says_so(
    export: Export,
    heard: set[str],
    labelled: list[str],
    competition: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = export([labelled[:2], labelled[1:]])
    assert heard == set()
    assert tuple(Spec.load(out).shifts) == SHIFTS
    why = "since all 3 labelled soundscapes trained a member"
    assert f"not scored, {why}" in capsys.readouterr().out
    assert why in (out / "card.md").read_text()
    assert json.loads((out / selection.NAME).read_text())["outputs"] == {}
    with pytest.raises(UserError, match=f"--fit has nothing to choose on, {why}"):
        to_onnx.main([str(out.parent / "run"), "--data", str(competition), "--fit"])


@pytest.mark.parametrize("n_trained", [2, 3])
def test_the_output_that_is_asked_for_is_used_whatever_ranks_better(
    n_trained: int, export: Export, labelled: list[str]
) -> None:
    """By these members' figures it would be segmentwise."""
    out = export([labelled[:n_trained], []], "--output", "clipwise")
    assert Spec.load(out).output == "clipwise"
    assert "Chosen: output clipwise: asked for with --output" in (out / "card.md").read_text()


def test_an_output_that_the_models_lack_is_refused(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--output framewise: the models have clipwise and segmentwise"):
        to_onnx.main([str(run_dir), "--out", str(tmp_path / "model"), "--output", "framewise"])


@pytest.mark.parametrize("n_trained", [1, 3, None])
def test_a_lower_precision_is_judged_on_what_trained_no_member(
    n_trained: int | None,
    labelled: list[str],
    competition: Path,
    model_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The model files alone say what trained them; those of earlier kits do not."""
    # Seven arguments: fixtures.
    folder = Path(shutil.copytree(model_dir, tmp_path / "model"))
    names = None if n_trained is None else labelled[:n_trained]
    say_trained_on(folder / f"{MEMBERS[1]}.onnx", MEMBERS[1], names)
    judged: list[str] = []

    class Spy:
        def __init__(self, folder: Path, data: Path, truth_set: Any) -> None:
            judged.extend(file.path.name for file in truth_set.files)

        def judge(self, name: str) -> Any:
            raise UserError("judged")

    copied = shutil.ignore_patterns("no IR is written anew")
    monkeypatch.setattr(shutil, "ignore_patterns", lambda *_: copied)
    monkeypatch.setattr(to_openvino, "convert", lambda folder, recordings: None)
    monkeypatch.setattr(lower_precisions, "lacking", lambda name: "")
    monkeypatch.setattr(lower_precisions, "LowerPrecisions", Spy)
    arguments = [str(folder), "--data", str(competition)]
    if n_trained == 1:
        with pytest.raises(UserError, match="judged"):
            to_openvino.main(arguments)
        assert judged == labelled[1:]
        return
    assert to_openvino.main(arguments) == 0
    assert judged == []
    why = "all 3 labelled soundscapes" if n_trained else "these model files don't say"
    assert f"bf16: not tried, since {why}" in capsys.readouterr().out


@pytest.mark.parametrize(("gain", "expected"), [(0.2, "soft"), (1.5, "plain")])
def test_the_pooling_that_was_validated_stays_unless_another_gains_beyond_doubt(
    gain: float, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((10, 12, 4)) < 0.3
    files = tuple(SoundFile(Path("x.ogg"), 12) for _ in truth)
    labels = truth.reshape(-1, 4)
    labelled = TruthSet.of("labelled", files, labels, np.ones_like(labels))
    soft, plain = (truth * (1 + more) + rng.normal(0, 1, truth.shape) for more in (0, gain))
    scores = {"soft": soft, "plain": plain}

    def heard(ensemble: Any, *_: Any) -> Any:
        return {"segmentwise": list(scores[ensemble.spec.pooling].astype(np.float32)[:, None])}

    monkeypatch.setattr(selection, "Ensemble", lambda engines, spec: SimpleNamespace(spec=spec))
    monkeypatch.setattr(selection, "member_scores", heard)
    spec = Spec({"m": 1.0}, pooling="soft")
    loaded: Any = SimpleNamespace(spec=spec, engines={}, hears_stretches=True)
    pooling, chosen, (line,) = selection._pooling(loaded, labelled, Layout(1, 1, 4), None)
    assert pooling == expected
    np.testing.assert_allclose(np.stack(chosen["segmentwise"])[:, 0], scores[expected], rtol=1e-6)
    aucs = [float(word.strip(",")) for word in line.split() if word[0] == "0"]
    assert aucs[0] > aucs[1]  # plain ranks better in both cases
