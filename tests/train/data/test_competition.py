from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdkit.errors import UserError
from tests.conftest import REAL, write_sound
from train.data.competition import class_groups, read_competitions
from train.data.folds import site_of
from train.data.soundscapes import LabelledSoundscape, window_truth
from train.data.tables import parse_label_list


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
    competition = read_competitions([folder])
    assert competition.classes == ("amekes", "22774")
    assert [r.primary for r in competition.recordings] == ["amekes", "amekes", "22774"]
    assert [r.secondary for r in competition.recordings] == [("22774",), (), ()]


def test_lengths_are_read_from_the_headers(folder: Path) -> None:
    write_sound(folder / "train_audio" / "22774" / "XC3.ogg", 2.5, 44100)
    lengths = [recording.duration_s for recording in read_competitions([folder]).recordings]
    assert lengths == pytest.approx([1.0, 1.0, 2.5])


def test_a_recording_without_an_author_is_a_group_of_its_own(folder: Path) -> None:
    assert [r.author for r in read_competitions([folder]).recordings] == [
        "Ann",
        "amekes/XC2.ogg",
        "Bob",
    ]


def test_doubled_label_rows_count_once(folder: Path) -> None:
    (soundscape,) = read_competitions([folder]).soundscapes
    assert soundscape.labels == ((0.0, 5.0, ("amekes", "22774")), (5.0, 10.0, ()))


@pytest.mark.parametrize("text", ["['']", "[]", "", " ", "None", "nan", "NaN", "()", "''", "[None]"])
def test_every_way_to_write_no_secondary_label_is_read(text: str) -> None:
    assert parse_label_list(text, "here") == ()


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("['a', 'b']", ("a", "b")),
        ('["a", "b"]', ("a", "b")),
        ("('a',)", ("a",)),
        ("['a' 'b']", ("a", "b")),  # numpy
        ("['a'\n 'b']", ("a", "b")),
        ("[47158, 22774]", ("47158", "22774")),
        ("9000001", ("9000001",)),
        ("'demfal1'", ("demfal1",)),
        ("demfal1", ("demfal1",)),
        ("""["Wilson's", '']""", ("Wilson's",)),
    ],
)
def test_every_way_to_write_secondary_labels_is_read(text: str, labels: tuple[str, ...]) -> None:
    assert parse_label_list(text, "here") == labels


@given(st.lists(st.text("abz019_-", min_size=1), max_size=5))
def test_lists_are_read_as_python_and_numpy_write_them(labels: list[str]) -> None:
    assert parse_label_list(repr(labels), "here") == tuple(labels)
    assert parse_label_list(str(np.array(labels, dtype=str)), "here") == tuple(labels)


@pytest.mark.parametrize("text", ["[a", "'a", "a b", "['a'] 'b'", "{'a': ['b']}", "[" + "a" * 9999])
def test_a_malformed_list_is_named(text: str) -> None:
    with pytest.raises(UserError, match=r"train\.csv:7: secondary_labels .* is no list"):
        parse_label_list(text, "train.csv:7")


def test_a_missing_folder_or_table_is_named(folder: Path) -> None:
    with pytest.raises(UserError, match=r"/nowhere: no such folder"):
        read_competitions([folder / "nowhere"])
    (folder / "taxonomy.csv").unlink()
    with pytest.raises(UserError, match=r"taxonomy\.csv: not found"):
        read_competitions([folder])


def test_an_unknown_label_is_named_with_its_row(folder: Path) -> None:
    edit(folder / "train.csv", primary_label="nobird")
    with pytest.raises(UserError, match=r"train\.csv:2: unknown label 'nobird'"):
        read_competitions([folder])


def test_an_unknown_secondary_label_is_left_out_and_counted(folder: Path) -> None:
    edit(folder / "train.csv", secondary_labels="['nobird', '22774']")
    competition = read_competitions([folder])
    assert competition.recordings[0].secondary == ("22774",)
    assert any(
        "1 secondary labels that taxonomy.csv lacks: nobird (1)" in x for x in competition.left_out
    )


def test_an_absent_or_garbage_recording_stops_training_and_is_named(folder: Path) -> None:
    (folder / "train_audio" / "amekes" / "XC1.ogg").unlink()
    with pytest.raises(UserError, match=r"train\.csv:2: .*XC1\.ogg is absent; restore it"):
        read_competitions([folder])
    (folder / "train_audio" / "amekes" / "XC1.ogg").write_bytes(b"garbage")
    with pytest.raises(UserError, match=r"XC1\.ogg can't be decoded \("):
        read_competitions([folder])


def test_bad_recordings_can_be_left_out_and_are_then_listed(folder: Path) -> None:
    (folder / "train_audio" / "amekes" / "XC1.ogg").write_bytes(b"")
    competition = read_competitions([folder], skip_bad=True)
    assert len(competition.recordings) == 2
    assert any("XC1.ogg: can't be decoded (" in line for line in competition.left_out)


@pytest.mark.parametrize("content", [None, b"garbage"])
def test_a_labelled_soundscape_that_is_absent_or_garbage_stops_or_is_left_out_and_listed(
    folder: Path, content: bytes | None
) -> None:
    path = folder / "train_soundscapes" / "S1.ogg"
    path.unlink()
    if content:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"labels\.csv: .*S1\.ogg .*; restore it, .*skip_bad=true"):
        read_competitions([folder])
    competition = read_competitions([folder], skip_bad=True)
    assert competition.soundscapes == ()
    assert any("S1.ogg: " in line for line in competition.left_out)


def test_an_unknown_label_or_time_in_a_soundscape_is_named(folder: Path) -> None:
    path = folder / "train_soundscapes_labels.csv"
    edit(path, primary_label="nobird")
    with pytest.raises(UserError, match=r"labels\.csv:2: unknown label 'nobird'"):
        read_competitions([folder])


@pytest.mark.parametrize("time", ["soon", "nan", "inf", "-inf", "1e12", "-1", "", "00:nan:00"])
@pytest.mark.parametrize("column", ["start", "end"])
def test_a_time_that_cannot_be_is_named_with_its_row(folder: Path, column: str, time: str) -> None:
    edit(folder / "train_soundscapes_labels.csv", **{column: time})
    with pytest.raises(UserError, match=rf"labels\.csv:2: time '{time}' is not HH:MM:SS within a day"):
        read_competitions([folder])


@pytest.mark.parametrize(("start", "end"), [("00:00:05", "00:00:00"), ("5", "5")])
def test_a_label_that_ends_before_it_begins_is_named(folder: Path, start: str, end: str) -> None:
    edit(folder / "train_soundscapes_labels.csv", start=start, end=end)
    with pytest.raises(UserError, match=rf"labels\.csv:2: ends at '{end}', before it has begun"):
        read_competitions([folder])


@pytest.mark.parametrize(("seconds", "n_windows"), [(15.0, 2), (9.9, 2), (5.0, 1), (4.9, 1), (0.01, 1)])
def test_labels_count_up_to_the_window_in_which_the_sound_ends(
    folder: Path, seconds: float, n_windows: int
) -> None:
    edit(folder / "train_soundscapes_labels.csv", end="86399")
    write_sound(folder / "train_soundscapes" / "S1.ogg", seconds)
    competition = read_competitions([folder])
    (soundscape,) = competition.soundscapes
    end_s = max(end for _, end, _ in soundscape.labels)
    assert end_s == (15.0 if seconds == 15.0 else 5.0 * n_windows)
    assert any("S1.ogg: lasts" in line for line in competition.left_out)


def test_a_soundscape_with_no_label_left_is_left_out(folder: Path) -> None:
    path = folder / "train_soundscapes_labels.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table.assign(start="00:01:00", end="00:01:05").to_csv(path, index=False)
    competition = read_competitions([folder])
    assert competition.soundscapes == ()
    assert any("S1.ogg: lasts 15.0 s" in line for line in competition.left_out)


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


def test_of_soundscapes_with_one_name_the_first_is_taken(folder: Path, tmp_path: Path) -> None:
    write_sound(folder / "train_soundscapes" / "S2.ogg", 15.0)
    other = further(folder, tmp_path / "other", read_competitions([folder]).recordings[0].primary)
    write_sound(other / "train_soundscapes" / "S3.ogg", 15.0)
    joined, theirs = read_competitions([folder, other]), other / "train_soundscapes"
    assert joined.unlabelled() == [folder / "train_soundscapes" / "S2.ogg", theirs / "S3.ogg"]
    assert joined.doubled_soundscapes() == [theirs / "S1.ogg", theirs / "S2.ogg"]  # S1 has labels


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
    assert any("recordings of classes that are not asked for" in line for line in narrow.left_out)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real recordings at {REAL}")
def test_the_real_competition_is_read_whole() -> None:
    competition = read_competitions([REAL])
    assert (len(competition.recordings), len(competition.classes)) == (224, 72)
    assert len(competition.soundscapes) == 12
    assert "22774" in competition.classes


@pytest.fixture
def year(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as the folder of an earlier year: no taxonomy, another name for the table."""
    other = tmp_path_factory.mktemp("years") / "2024"
    shutil.copytree(folder, other, ignore=shutil.ignore_patterns("taxonomy.csv"))
    (other / "train.csv").rename(other / "train_metadata.csv")
    return other


def test_an_earlier_year_has_the_classes_of_its_recordings(folder: Path, year: Path) -> None:
    of_today, earlier = read_competitions([folder]), read_competitions([year])
    assert earlier.classes == ("22774", "amekes")
    assert [r.primary for r in earlier.recordings] == [r.primary for r in of_today.recordings]
    assert [r.secondary for r in earlier.recordings] == [r.secondary for r in of_today.recordings]
    assert class_groups(year) == {"22774": "Aves", "amekes": "Aves"}
    assert earlier.fingerprint() != of_today.fingerprint()


def test_an_earlier_year_joins_with_the_labels_that_are_asked_for(folder: Path, year: Path) -> None:
    path = year / "train_metadata.csv"
    path.write_text(path.read_text().replace("22774", "newbird"))
    (year / "train_audio" / "22774").rename(year / "train_audio" / "newbird")
    (year / "train_soundscapes_labels.csv").unlink()
    (year / "train_soundscapes").rename(year / "unlabeled_soundscapes")
    sound = year / "unlabeled_soundscapes" / "S2.ogg"
    sound.with_name("S1.ogg").rename(sound)
    joined = read_competitions([folder, year])
    assert joined.classes == ("amekes", "22774")
    assert [r.primary for r in joined.recordings] == ["amekes", "amekes", "22774", "amekes", "amekes"]
    assert joined.left_out == (f"{path}: 1 recordings of classes that are not asked for",)
    assert joined.unlabelled() == [sound]
    union = read_competitions([folder, year], "union")
    assert union.classes == ("amekes", "22774", "newbird")
    assert union.recordings[3].secondary == ("newbird",)
    assert union.left_out == ()


def test_2021_has_recordings_and_labels_of_its_own_form(year: Path) -> None:
    edit(year / "train_metadata.csv", filename="XC1.ogg")
    (year / "train_audio").rename(year / "train_short_audio")
    (year / "train_soundscapes_labels.csv").unlink()
    sound = year / "train_soundscapes" / "7019_COR_20190904.ogg"
    (year / "train_soundscapes" / "S1.ogg").rename(sound)
    rows = [("7019", "COR", "5", "nocall"), ("7019", "COR", "10", "amekes 22774")]
    table = pd.DataFrame(rows, columns=["audio_id", "site", "seconds", "birds"])
    table.to_csv(year / "train_soundscape_labels.csv", index=False)
    competition = read_competitions([year])
    assert competition.recordings[0].path == year / "train_short_audio" / "amekes" / "XC1.ogg"
    (soundscape,) = competition.soundscapes
    assert soundscape == LabelledSoundscape(sound, ((0, 5, ()), (5, 10, ("amekes", "22774"))))
    assert site_of(sound) == "COR"
    assert competition.unlabelled() == []


def test_recordings_may_lie_outside_the_folder(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "audio"
    (folder / "train_audio").rename(elsewhere)
    path = folder / "train.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table.assign(filename=f"{elsewhere}/" + table["filename"]).to_csv(path, index=False)
    before = read_competitions([folder]).fingerprint()
    assert read_competitions([folder]).recordings[0].path == elsewhere / "amekes" / "XC1.ogg"
    sound = elsewhere / "amekes" / "XC1.ogg"
    sound.write_bytes(sound.read_bytes() + b"0")
    assert read_competitions([folder]).fingerprint() != before


def test_rows_of_one_file_are_joined_for_each_primary_label(folder: Path) -> None:
    path = folder / "train.csv"
    rows = [("amekes", "[]", "amekes/XC2.ogg", "Eve"), ("22774", "['']", "amekes/XC2.ogg", "Eve")]
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    pd.concat([table, pd.DataFrame(rows, columns=table.columns)]).to_csv(path, index=False)
    competition = read_competitions([folder])
    of_file = [r for r in competition.recordings if r.path.name == "XC2.ogg"]
    assert [(r.primary, r.secondary) for r in of_file] == [
        ("amekes", ("22774",)),
        ("22774", ("amekes",)),
    ]
    assert {r.author for r in of_file} == {"amekes/XC2.ogg"}  # the first row has no author
    assert any("1 rows name a file again" in line for line in competition.left_out)
    assert len(competition.recordings) == 4
