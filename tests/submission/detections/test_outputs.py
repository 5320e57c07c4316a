"""What other programs read back from the tables."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import crowsetta
import numpy as np
import pandas as pd
import pytest
import soundfile

from birdkit.detections import events
from birdkit.detections.outputs import Choices, Counts, Outputs
from birdkit.detections.species import Species
from birdkit.detections.texts import place
from birdkit.recordings.folders import find
from birdkit.recordings.journal import Journal, Model, Scored, Sound

SPECIES = [
    Species("amerob", "Turdus migratorius", "American Robin"),
    Species("<x>\t1", "", ""),
    Species("quiet"),
]
MODEL = Model("m-123", tuple(one.label for one in SPECIES), 5.0, 32000, "1x1x2")
WINDOW_S = 5.0
# Recording → its seconds, and the (window, class, score) that are said of it.
SAID: dict[str, tuple[float, list[tuple[int, int, float]]]] = {
    "20250703_235955.wav": (12.0, [(0, 0, 0.9), (1, 0, 0.7), (2, 0, 0.6), (2, 1, 0.3)]),
    "b/rec.wav": (7.5, []),
    "c/rec.wav": (31.25, [(0, 1, 0.8), (3, 0, 0.95), (4, 2, 0.1), (5, 0, 0.55)]),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name, (seconds, _) in SAID.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        samples = rng.integers(-(2**15), 2**15, (round(seconds * 8000), 2), dtype=np.int16)
        soundfile.write(tmp_path / "in" / name, samples, 8000)
    (tmp_path / "out").mkdir()
    return tmp_path


@pytest.fixture
def journal(folder: Path) -> Iterator[Journal]:
    with closing(Journal(folder / "out", "key")) as journal:
        for recording in find([folder / "in"], folder / "out")[0]:
            seconds, said = SAID[recording.name]
            windows, classes, scores = zip(*said, strict=True) if said else ((), (), ())
            arrays = (np.array(windows, np.uint32), np.array(classes, np.uint16))
            start = "2025-07-03T23:59:55" if recording.name.startswith("2025") else ""
            sound = Sound(seconds, 8000, 2, start)
            journal.add(recording, 0.0, Scored(sound, *arrays, np.array(scores, np.float32)))
        yield journal


def write(folder: Path, journal: Journal, faults: dict[str, str] | None = None, **given: Any) -> Counts:
    choices: dict[str, Any] = {"floor": 0.2, "thresholds": [0.5] * 3, "wanted": [0, 1, 2]}
    choices |= {"species": SPECIES, "join": False, "clips": 0}
    outputs = Outputs(folder / "out", journal, MODEL, Choices(**choices | given))
    return outputs.write(find([folder / "in"], folder / "out")[0], faults or {})


def written(folder: Path) -> set[str]:
    paths = (folder / "out").rglob("*")
    return {
        str(p.relative_to(folder / "out")) for p in paths if p.is_file() and "journal" not in p.name
    }


def test_the_table_of_windows_has_every_score_above_the_floor(folder: Path, journal: Journal) -> None:
    counts = write(folder, journal)
    csv = pd.read_csv(folder / "out" / "windows.csv", keep_default_na=False)
    parquet = pd.read_parquet(folder / "out" / "windows.parquet")
    assert counts.windows == len(csv) == 7
    pd.testing.assert_frame_equal(csv, parquet, check_dtype=False, atol=1e-6, rtol=0)
    assert csv["recording"].tolist() == ["20250703_235955.wav"] * 4 + ["c/rec.wav"] * 3
    assert csv["start_s"].tolist() == [0.0, 5.0, 10.0, 10.0, 0.0, 15.0, 25.0]
    assert csv["end_s"].tolist() == [5.0, 10.0, 12.0, 12.0, 5.0, 20.0, 30.0]
    assert csv["time"].tolist()[:3] == [
        f"2025-07-0{t}" for t in ("3T23:59:55", "4T00:00:00", "4T00:00:05")
    ]
    assert csv["time"].tolist()[4:] == ["", "", ""]
    assert csv["class"].tolist()[3] == "<x>\t1"
    assert set(csv["model"]) == {"m-123"}
    np.testing.assert_allclose(csv["score"], [0.9, 0.7, 0.6, 0.3, 0.8, 0.95, 0.55], atol=1e-6)


def test_neighbouring_windows_are_joined_on_request_only(folder: Path, journal: Journal) -> None:
    assert write(folder, journal).detections == 6
    assert write(folder, journal, join=True).detections == 4
    table = pd.read_csv(folder / "out" / "detections.csv", keep_default_na=False)
    first = table.iloc[0]
    assert (first["start_s"], first["end_s"], first["windows"]) == (0.0, 12.0, 3)
    assert first["score"] == 0.9
    assert table["windows"].tolist() == [3, 1, 1, 1]
    assert table["class"].tolist() == ["amerob", "<x>\t1", "amerob", "amerob"]


def test_ravens_tables_have_the_right_offsets(folder: Path, journal: Journal) -> None:
    write(folder, journal)
    alone = {
        name: crowsetta.formats.bbox.Raven.from_file(path, annot_col="Common Name").to_bbox()
        for name in SAID
        if (path := folder / "out" / "raven" / f"{name}.selections.txt").exists()
    }
    assert sorted(alone) == ["20250703_235955.wav", "c/rec.wav"]
    expected = [(0.0, 5.0, "<x>\\t1"), (15.0, 20.0, "American Robin"), (25.0, 30.0, "American Robin")]
    assert [(box.onset, box.offset, box.label) for box in alone["c/rec.wav"]] == expected
    assert {(box.low_freq, box.high_freq) for box in alone["c/rec.wav"]} == {(0.0, 4000.0)}
    combined = crowsetta.formats.bbox.Raven.from_file(
        folder / "out" / "raven.selections.txt", annot_col="Common Name"
    )
    both = [box for name in SAID for box in alone.get(name, [])]
    before_s = {"20250703_235955.wav": 0.0, "c/rec.wav": 12.0 + 7.5}
    shifted = [before_s[name] + box.onset for name in SAID for box in alone.get(name, [])]
    assert [box.onset for box in combined.to_bbox()] == shifted
    assert [box.offset - box.onset for box in combined.to_bbox()] == [b.offset - b.onset for b in both]
    assert combined.df["File Offset (s)"].tolist() == [box.onset for box in both]
    assert combined.df["Selection"].tolist() == list(range(1, 7))
    # The selections lie where the recordings do that the list opens as one sound.
    listed = (folder / "out" / "raven.sounds.txt").read_text().splitlines()
    lengths_s = [soundfile.info(path).duration for path in listed]
    for begin_s, path, offset_s in combined.df[
        ["begin_time_s", "Begin Path", "File Offset (s)"]
    ].to_numpy():
        assert sum(lengths_s[: listed.index(path)]) + offset_s == begin_s


def test_audacitys_labels_are_read_back(folder: Path, journal: Journal) -> None:
    write(folder, journal, join=True)
    path = folder / "out" / "audacity" / "20250703_235955.wav.txt"
    assert path.read_text() == "0.000000\t12.000000\tAmerican Robin 0.90\n"
    labels = crowsetta.formats.seq.AudSeq.from_file(folder / "out" / "audacity" / "c" / "rec.wav.txt")
    sequence = labels.to_seq()
    assert sequence.onsets_s.tolist() == [0.0, 15.0, 25.0]
    assert sequence.offsets_s.tolist() == [5.0, 20.0, 30.0]
    assert sequence.labels.tolist() == ["<x>\\t1 0.80", "American Robin 0.95", "American Robin 0.55"]


def test_only_wanted_classes_above_their_thresholds_are_detected(
    folder: Path, journal: Journal
) -> None:
    counts = write(folder, journal, thresholds=[0.92, 0.25, 0.0], wanted=[0, 1])
    table = pd.read_csv(folder / "out" / "detections.csv", keep_default_na=False)
    assert table["score"].tolist() == [0.3, 0.8, 0.95]
    assert counts.species == {0, 1}
    windows = pd.read_csv(folder / "out" / "windows.csv")
    assert set(windows["class"]) == {"amerob", "<x>\t1"}


def test_clips_are_the_highest_scores_of_a_class_as_recorded(folder: Path, journal: Journal) -> None:
    assert write(folder, journal, clips=2).clips == 3
    clips = folder / "out" / "clips"
    names = sorted(str(path.relative_to(clips)) for path in clips.rglob("*.wav"))
    assert names == [
        "_x__1/0.800_c__rec.wav_0s.wav",
        "amerob/0.900_20250703_235955.wav_0s.wav",
        "amerob/0.950_c__rec.wav_15s.wav",
    ]
    clip, rate = soundfile.read(clips / names[2], dtype="int16")
    whole, _ = soundfile.read(folder / "in" / "c" / "rec.wav", dtype="int16")
    assert rate == 8000
    np.testing.assert_array_equal(clip, whole[15 * 8000 : 20 * 8000])


def test_what_only_an_earlier_run_wrote_is_removed(folder: Path, journal: Journal) -> None:
    write(folder, journal, clips=2)
    for name in ("mine.txt", "mine.partial", f"killed.{'0' * 16}.partial"):
        (folder / "out" / "raven" / name).write_text("kept, but for the last")
    write(folder, journal, thresholds=[0.92, 1.0, 1.0])
    assert written(folder) == {
        *("recordings.csv", "detections.csv", "windows.csv", "windows.parquet"),
        *("raven.selections.txt", "raven.sounds.txt"),
        *("raven/mine.txt", "raven/mine.partial"),
        *("raven/c/rec.wav.selections.txt", "audacity/c/rec.wav.txt"),
    }
    assert not list((folder / "out" / "clips").iterdir())


def test_every_recording_has_a_row_and_a_bad_one_its_fault(folder: Path, journal: Journal) -> None:
    write(folder, journal, {"b/rec.wav": "can't be decoded, alas", "gone.wav": "No such file"})
    table = pd.read_csv(folder / "out" / "recordings.csv", keep_default_na=False, dtype=str)
    table = table.set_index("recording")
    assert sorted(table.index) == ["20250703_235955.wav", "b/rec.wav", "c/rec.wav", "gone.wav"]
    assert table.loc["b/rec.wav", "fault"] == "can't be decoded, alas"
    assert table["detections"].tolist() == ["", "", "3", "3"]


def test_a_full_disk_leaves_the_older_tables_whole(
    folder: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, journal)
    before = (folder / "out" / "windows.csv").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(folder, journal, wanted=[0])
    assert (folder / "out" / "windows.csv").read_bytes() == before
    assert not list((folder / "out").rglob("*.partial"))


def test_a_name_too_long_for_a_file_is_cut_and_stays_its_own() -> None:
    long = [place(Path("x"), f"a/{'ü' * 120}{last}.wav", ".selections.txt") for last in "12"]
    assert len({path.name for path in long}) == 2
    assert max(len(path.name.encode()) for path in long) <= 255
    assert all(path.name.endswith(".selections.txt") for path in long)
    assert place(Path("x"), "a/b.wav", ".txt") == Path("x/a/b.wav.txt")


def test_a_detection_ends_where_the_recording_does() -> None:
    scored = Scored(
        Sound(0.2, 8000, 1, ""), np.zeros(1, np.uint32), np.zeros(1, np.uint16), np.ones(1, np.float32)
    )
    (one,) = events.detections(scored, [0.5], WINDOW_S, join=True)
    assert (one.start_s, one.end_s, one.n_windows) == (0.0, 0.2, 1)


def test_a_moment_keeps_the_time_zone_of_the_start() -> None:
    assert events.moment("2025-07-03T23:59:55-07:00", 7.5) == "2025-07-04T00:00:02.500000-07:00"
    assert events.moment("", 7.5) == ""


def test_windows_of_two_classes_that_follow_each_other_are_not_joined() -> None:
    windows, classes = np.array([0, 1, 3], np.uint32), np.array([0, 1, 1], np.uint16)
    scored = Scored(Sound(20.0, 8000, 1, ""), windows, classes, np.ones(3, np.float32))
    found = events.detections(scored, [0.5, 0.5], WINDOW_S, join=True)
    assert [(one.start_s, one.label) for one in found] == [(0.0, 0), (5.0, 1), (15.0, 1)]
