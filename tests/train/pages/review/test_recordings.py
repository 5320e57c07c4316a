"""Recordings are scored as they are submitted, and their labels are found."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from birdkit.errors import UserError
from birdkit.grid import row_ids
from birdkit.recordings import folders
from birdkit.scoring.ensemble import Spec
from tests.conftest import submit_validation, write_sound
from train import label, report
from train.data.competition import read_labelled
from train.data.soundscapes import window_truth
from train.pages.review import page
from train.pages.review.recordings import find, model_of_folder, model_of_run, score
from train.scoring.truth import read_truth

CPU = torch.device("cpu")


def test_an_exported_folder_scores_as_the_submission_does(
    competition: Path, model_dir: Path, tmp_path: Path
) -> None:
    submit_validation(competition, model_dir, tmp_path / "submission.csv")
    submitted = pd.read_csv(tmp_path / "submission.csv", index_col="row_id")
    folder = competition / "validation" / "soundscapes"
    scored = score(folder, model_of_folder(model_dir))
    truth = read_truth(folder.parent)
    for number, path in enumerate(scored.paths):
        rows = scored.scores[number]
        assert rows is not None
        ids = row_ids(path.stem, len(rows), 5.0)
        columns = list(scored.contract.classes)
        # The table is written with a few digits.
        np.testing.assert_allclose(rows, submitted.loc[ids, columns], atol=1e-5)
        known, wanted = scored.known[number], truth.select(ids, columns)
        np.testing.assert_array_equal(known.decided, wanted.decided)
        np.testing.assert_array_equal(known.present, wanted.labels)


def test_names_are_those_of_the_model_folder_before_those_of_the_data(
    competition: Path, model_dir: Path, tmp_path: Path
) -> None:
    exported = shutil.copytree(model_dir, tmp_path / "model")
    taxonomy = pd.read_csv(competition / "taxonomy.csv", dtype=str).set_index("primary_label")
    taxonomy.loc["demwar1", "common_name"] = "Own Name"
    first = taxonomy.index[taxonomy.index != "demwar1"][0]
    taxonomy.loc[first, "common_name"] = ""
    taxonomy.to_csv(exported / "taxonomy.csv")
    scored = score(competition / "train_soundscapes", model_of_folder(exported))
    of_data = pd.read_csv(competition / "taxonomy.csv", dtype=str).set_index("primary_label")
    assert scored.common_names["demwar1"] == "Own Name"
    assert scored.common_names[first] == of_data.loc[first, "common_name"]
    alone = tmp_path / "alone"
    write_sound(alone / "a.wav", 1.0, rate=8000)
    assert score(alone, model_of_folder(exported)).common_names["demwar1"] == "Own Name"


def test_scores_are_probabilities_where_the_submission_averages_ranks(
    competition: Path, model_dir: Path, tmp_path: Path
) -> None:
    """As in the tables of detections: a rank depends on the other recordings."""
    ranked = shutil.copytree(model_dir, tmp_path / "ranked")
    replace(Spec.load(ranked), averaging="rank").save(ranked)
    folder = competition / "validation" / "soundscapes"
    probabilities = score(folder, model_of_folder(model_dir)).scores
    for one, other in zip(score(folder, model_of_folder(ranked)).scores, probabilities, strict=True):
        assert one is not None
        np.testing.assert_array_equal(one, other)


def test_a_run_scores_with_its_models_beside_the_labels(competition: Path, run_dir: Path) -> None:
    scored = score(competition / "train_soundscapes", model_of_run(run_dir, CPU))
    labelled = {soundscape.path.name: soundscape for soundscape in read_labelled(competition)[0]}
    names = [path.name for path in scored.paths]
    assert {names[number] for number in scored.known} == set(labelled)
    for number, known in scored.known.items():
        present, covered = window_truth(labelled[names[number]], scored.contract.classes, 5.0)
        np.testing.assert_array_equal(known.present, present)
        np.testing.assert_array_equal(known.decided[:, 0], covered)
    assert scored.common_names["demwar1"] == "Demo Warbler"
    assert scored.pseudo == {}


def test_pseudo_labels_of_a_round_stand_beside_its_scores(
    competition: Path, run_dir: Path, tmp_path: Path
) -> None:
    """A run that labels for itself: teacher and model are one, and so are their probabilities."""
    own = shutil.copytree(run_dir, tmp_path / "run")
    folder = competition / "train_soundscapes"
    before = model_of_run(own, CPU)
    assert label.main([str(own), "--soundscapes", str(folder), "--out", str(own / "round0")]) == 0
    scored = score(folder, model_of_run(own, CPU))
    assert set(scored.pseudo) == set(range(len(scored.paths)))
    for number, pseudo in scored.pseudo.items():
        rows = scored.scores[number]
        assert rows is not None
        np.testing.assert_allclose(rows[: len(pseudo)], pseudo, atol=1e-5)
    assert before.name == model_of_run(run_dir.parent / "tiny", CPU).name.replace("tiny", "run")


def test_recordings_of_one_name_do_not_share_pseudo_labels(
    competition: Path, run_dir: Path, tmp_path: Path
) -> None:
    own = shutil.copytree(run_dir, tmp_path / "run")
    one, two, three = sorted((competition / "train_soundscapes").glob("*.ogg"))[:3]
    field = tmp_path / "field"
    for source, place in ((one, "a"), (two, "a"), (three, "a"), (three, "b")):
        (field / place).mkdir(parents=True, exist_ok=True)
        shutil.copy(source, field / place)
    write_sound(field / "b" / one.name, 7.0)  # of another length
    arguments = ["--soundscapes", str(competition / "train_soundscapes")]
    assert label.main([str(own), *arguments, "--out", str(own / "round0")]) == 0
    scored = score(field, model_of_run(own, CPU))
    with_labels = [scored.names[number] for number in scored.pseudo]
    assert with_labels == [f"a/{one.name}", f"a/{two.name}"]
    assert scored.ambiguous == (f"a/{three.name}", f"b/{three.name}")
    page.write(tmp_path / "page.html", scored, "model", page.Choice())
    written = (tmp_path / "page.html").read_text()
    assert "2 recordings are shown without pseudo labels" in written
    assert f"<li><code>b/{three.name}</code></li>" in written


def test_truth_is_of_the_soundscapes_of_a_validation_folder_and_of_none_below(
    competition: Path, model_dir: Path, tmp_path: Path
) -> None:
    validation = shutil.copytree(competition / "validation", tmp_path / "validation")
    folder = validation / "soundscapes"
    first = sorted(folder.glob("*.ogg"))[0]
    (folder / "other").mkdir()
    shutil.copy(first, folder / "other")
    scored = score(folder, model_of_folder(model_dir))
    known = {scored.names[number] for number in scored.known}
    assert first.name in known
    assert f"other/{first.name}" not in known


def test_bad_recordings_and_odd_ones_cost_their_own_rows_only(model_dir: Path, tmp_path: Path) -> None:
    for name, seconds in (("a/x.wav", 0.2), ("b/x.wav", 12.0), ("b/silence.wav", 5.0)):
        write_sound(tmp_path / name, seconds)
    (tmp_path / "b" / "bad.ogg").write_bytes(b"no sound")
    (tmp_path / "b" / "empty.wav").write_bytes(b"")
    (tmp_path / "b" / "._hidden.wav").write_bytes(b"")
    scored = score(tmp_path, model_of_folder(model_dir))
    assert scored.names == ("a/x.wav", "b/bad.ogg", "b/empty.wav", "b/silence.wav", "b/x.wav")
    counts = [None if rows is None else len(rows) for rows in scored.scores]
    assert counts == [1, None, None, 1, 3]
    assert set(scored.failures) == {"b/bad.ogg", "b/empty.wav"}
    assert scored.known == {}


def test_the_review_finds_what_detections_find_by_the_same_names(tmp_path: Path) -> None:
    field = tmp_path / "field"
    for name in ("a.w64", "b.AIFF", "site/c.wav", ".trash/d.wav", ".trash/site/e.wav", "site/._f.wav"):
        write_sound(field / name, 0.1, rate=8000)
    (tmp_path / "elsewhere").mkdir()
    write_sound(tmp_path / "elsewhere" / "g.wav", 0.1, rate=8000)
    (field / "linked").symlink_to(tmp_path / "elsewhere")
    (field / "h.wav").symlink_to(tmp_path / "elsewhere" / "g.wav")
    (field / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    found, faults = find(field)
    assert [recording.name for recording in found] == ["a.w64", "b.AIFF", "h.wav", "site/c.wav"]
    assert list(faults) == ["gone.wav"]
    assert (found, faults) == folders.find([field], tmp_path / "out")


def test_a_folder_without_sound_is_an_error(model_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no recordings there"):
        find(tmp_path)
    with pytest.raises(UserError, match="no such folder; give a folder of recordings"):
        find(tmp_path / "none")
    (tmp_path / "bad.ogg").write_bytes(b"no sound")
    with pytest.raises(UserError, match=r"no recording can be scored \(.*bad\.ogg"):
        score(tmp_path, model_of_folder(model_dir))


def test_the_command_writes_a_page_and_says_which_recordings_it_took(
    competition: Path, model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "own"
    shutil.copytree(competition / "validation" / "soundscapes", folder)
    (folder / "bad.ogg").write_bytes(b"no sound")
    out = tmp_path / "pages" / "review.html"
    arguments = ["--soundscapes", str(folder), "--model", str(model_dir), "--out", str(out)]
    n_recordings = len(find(folder)[0]) - 1
    assert report.main([*arguments, "--most", "2", "--species", "demo warbler"]) == 0
    printed, warned = capsys.readouterr()
    assert f"2 of {n_recordings} recordings: chosen for demwar1, the highest scores first." in printed
    assert "left out: bad.ogg: " in warned
    assert f"{out}: {out.stat().st_size / 1e6:.1f} MB" in printed
    assert report.main(arguments) == 0
    assert f"All {n_recordings} recordings." in capsys.readouterr().out
    with pytest.raises(UserError, match=r"--species: 'Demo Wabler' is no class .* 'demo warbler'"):
        report.main([*arguments, "--species", "Demo Wabler"])


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["run", "--model", "m"], "one model scores them"),
        (["run", "other"], "OTHER_RUN_DIR goes with RUN_DIR, not with --soundscapes"),
        (["--marks", "marks.csv"], "give one of them"),
        (["--model", "m", "--out", "."], "is a folder"),
    ],
)
def test_options_that_contradict_each_other_are_an_error(arguments: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        report.main(["--soundscapes", "s", *arguments])
