from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from birdkit.errors import UserError
from tests.conftest import REAL, write_sound
from train.data.competition import (
    LabelledSoundscape,
    parse_label_list,
    read_competition,
    read_competitions,
    window_truth,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two species, three recordings, one labelled soundscape whose rows are doubled as in 2026."""
    pd.DataFrame({"primary_label": ["amekes", "22774"]}).to_csv(tmp_path / "taxonomy.csv", index=False)
    rows = [
        ("amekes", "['22774']", "amekes/XC1.ogg", "Ann"),
        ("amekes", "['']", "amekes/XC2.ogg", ""),
        ("22774", "[]", "22774/XC3.ogg", "Bob"),
    ]
    columns = ["primary_label", "secondary_labels", "filename", "author"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "train.csv", index=False)
    for _, _, name, _ in rows:
        write_sound(tmp_path / "train_audio" / name, 1.0)
    write_sound(tmp_path / "train_soundscapes" / "S1.ogg", 15.0)
    labels = [
        ("S1.ogg", "00:00:00", "00:00:05", "amekes;22774"),
        ("S1.ogg", "00:00:05", "00:00:10", ""),
    ]
    table = pd.DataFrame(labels * 2, columns=["filename", "start", "end", "primary_label"])
    table.to_csv(tmp_path / "train_soundscapes_labels.csv", index=False)
    return tmp_path


def edit(path: Path, **changes: str) -> None:
    """Change cells of the first row of a CSV."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    for column, value in changes.items():
        table.loc[0, column] = value
    table.to_csv(path, index=False)


def test_labels_are_strings_and_empty_secondaries_are_empty(folder: Path) -> None:
    competition = read_competition(folder)
    assert competition.classes == ("amekes", "22774")
    assert [r.primary for r in competition.recordings] == ["amekes", "amekes", "22774"]
    assert [r.secondary for r in competition.recordings] == [("22774",), (), ()]


def test_lengths_are_read_from_the_headers(folder: Path) -> None:
    write_sound(folder / "train_audio" / "22774" / "XC3.ogg", 2.5, 44100)
    lengths = [recording.duration_s for recording in read_competition(folder).recordings]
    assert lengths == pytest.approx([1.0, 1.0, 2.5])


def test_a_recording_without_an_author_is_a_group_of_its_own(folder: Path) -> None:
    assert [r.author for r in read_competition(folder).recordings] == ["Ann", "amekes/XC2.ogg", "Bob"]


def test_doubled_label_rows_count_once(folder: Path) -> None:
    (soundscape,) = read_competition(folder).soundscapes
    assert soundscape.labels == ((0.0, 5.0, ("amekes", "22774")), (5.0, 10.0, ()))


@pytest.mark.parametrize("text", ["['']", "[]", "", " "])
def test_every_way_to_write_no_secondary_label_is_read(text: str) -> None:
    assert parse_label_list(text, "here") == ()


def test_a_malformed_list_is_named() -> None:
    with pytest.raises(UserError, match=r"train\.csv:7: secondary_labels '\[a' is no list"):
        parse_label_list("[a", "train.csv:7")


def test_a_missing_folder_or_table_is_named(folder: Path) -> None:
    with pytest.raises(UserError, match=r"/nowhere: no such folder"):
        read_competition(folder / "nowhere")
    (folder / "taxonomy.csv").unlink()
    with pytest.raises(UserError, match=r"taxonomy\.csv: not found"):
        read_competition(folder)


def test_an_unknown_label_is_named_with_its_row(folder: Path) -> None:
    edit(folder / "train.csv", primary_label="nobird")
    with pytest.raises(UserError, match=r"train\.csv:2: unknown label 'nobird'"):
        read_competition(folder)


def test_an_unknown_secondary_label_is_left_out_and_counted(folder: Path) -> None:
    edit(folder / "train.csv", secondary_labels="['nobird', '22774']")
    competition = read_competition(folder)
    assert competition.recordings[0].secondary == ("22774",)
    assert any(
        "1 secondary labels that taxonomy.csv lacks: nobird (1)" in x for x in competition.left_out
    )


def test_an_absent_or_garbage_recording_stops_training_and_is_named(folder: Path) -> None:
    (folder / "train_audio" / "amekes" / "XC1.ogg").unlink()
    with pytest.raises(UserError, match=r"train\.csv:2: .*XC1\.ogg is absent; restore it"):
        read_competition(folder)
    (folder / "train_audio" / "amekes" / "XC1.ogg").write_bytes(b"garbage")
    with pytest.raises(UserError, match=r"XC1\.ogg is no sound file"):
        read_competition(folder)


def test_bad_recordings_can_be_left_out_and_are_then_listed(folder: Path) -> None:
    (folder / "train_audio" / "amekes" / "XC1.ogg").write_bytes(b"")
    competition = read_competition(folder, skip_bad=True)
    assert len(competition.recordings) == 2
    assert any("XC1.ogg: is no sound file" in line for line in competition.left_out)


def test_a_class_without_recordings_is_listed_and_keeps_its_column(folder: Path) -> None:
    shutil.copy(folder / "taxonomy.csv", folder / "t.csv")
    with (folder / "taxonomy.csv").open("a") as file:
        file.write("47158son16\n")
    competition = read_competitions([folder])
    assert competition.classes[-1] == "47158son16"
    assert any("1 of 3 classes have no recording (47158son16)" in x for x in competition.left_out)


def test_an_unknown_label_or_time_in_a_soundscape_is_named(folder: Path) -> None:
    path = folder / "train_soundscapes_labels.csv"
    edit(path, primary_label="nobird")
    with pytest.raises(UserError, match=r"labels\.csv: unknown label 'nobird'"):
        read_competition(folder)
    edit(path, primary_label="", start="soon")
    with pytest.raises(UserError, match=r"labels\.csv: time 'soon' is not HH:MM:SS"):
        read_competition(folder)


def test_windows_take_the_species_of_rows_that_overlap_them(folder: Path) -> None:
    labels = ((0.0, 5.0, ("a",)), (5.0, 10.0, ("b",)), (10.0, 12.0, ("a",)))
    truth, labelled = window_truth(LabelledSoundscape(folder, labels), ("a", "b"), 5.0)
    np.testing.assert_array_equal(truth, [[1, 0], [0, 1]])
    np.testing.assert_array_equal(labelled, [True, True])
    truth, labelled = window_truth(LabelledSoundscape(folder, labels), ("a", "b"), 4.0)
    np.testing.assert_array_equal(truth, [[1, 0], [1, 1], [1, 1]])
    assert labelled.all()


def test_a_window_that_no_row_covers_says_nothing(folder: Path) -> None:
    labels = ((0.0, 5.0, ("a",)), (10.0, 15.0, ()))
    _, labelled = window_truth(LabelledSoundscape(folder, labels), ("a",), 5.0)
    np.testing.assert_array_equal(labelled, [True, False, True])


def further(folder: Path, other: Path, *labels: str) -> Path:
    """A second folder: the same recordings under these labels, and no taxonomy."""
    shutil.copytree(folder, other)
    (other / "taxonomy.csv").unlink()
    (other / "train_soundscapes_labels.csv").unlink()
    table = pd.read_csv(other / "train.csv", dtype=str, keep_default_na=False)
    table["primary_label"] = [labels[i % len(labels)] for i in range(len(table))]
    table.to_csv(other / "train.csv", index=False)
    return other


def test_several_folders_join_into_one_training_set(folder: Path, tmp_path: Path) -> None:
    own = read_competitions([folder])
    label = own.recordings[0].primary
    other = further(folder, tmp_path / "other", label, "a stranger")
    joined = read_competitions([folder, other])
    assert joined.classes == own.classes
    added = joined.recordings[len(own.recordings) :]
    assert {recording.primary for recording in added} == {label}
    assert all(other in recording.path.parents for recording in added)
    assert any("recordings of classes that are not asked for" in line for line in joined.left_out)
    assert set(joined.unlabelled()) > set(own.unlabelled())


def test_a_wider_class_list_is_the_union_and_a_narrower_one_leaves_recordings_out(
    folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    first = read_competitions([folder]).classes[0]
    for path in other.glob("*.csv"):
        path.write_text(path.read_text().replace(first, "newbird"))
    (other / "train_audio" / first).rename(other / "train_audio" / "newbird")
    wide = read_competitions([folder, other], "union")
    assert wide.classes == (*read_competitions([folder]).classes, "newbird")
    assert any(recording.primary == "newbird" for recording in wide.recordings)
    narrow = read_competitions([folder, other])
    assert "newbird" not in {recording.primary for recording in narrow.recordings}
    assert {n for s in narrow.soundscapes for _, _, of in s.labels for n in of} <= set(narrow.classes)
    assert any("classes that the first folder does not have" in line for line in narrow.left_out)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real recordings at {REAL}")
def test_the_real_competition_is_read_whole() -> None:
    competition = read_competition(REAL)
    assert (len(competition.recordings), len(competition.classes)) == (224, 72)
    assert len(competition.soundscapes) == 12
    assert "22774" in competition.classes
