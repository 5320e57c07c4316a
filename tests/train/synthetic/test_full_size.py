"""A competition of real size has the real one's numbers, and is read as one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import soundfile

from birdkit.errors import UserError
from train.data.competition import read_competitions
from train.synthetic.full_size import GROUPS, RATE_HZ, Size, make_full_size


def test_the_whole_has_the_numbers_of_2025() -> None:
    assert Size.of(1.0) == Size(28_564, 9_726)
    assert Size.of(0.1) == Size(2_856, 973)
    assert sum(GROUPS.values()) == 206


def test_a_folder_of_something_else_is_never_changed(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        make_full_size(tmp_path, 0.01)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.slow  # writes some 400 files
def test_it_is_read_as_a_competition_of_distinct_recordings(tmp_path: Path) -> None:
    folder = make_full_size(tmp_path / "data", 0.001)
    read = read_competitions([folder])
    assert (len(read.classes), len(read.recordings)) == (206, 412)
    assert len(read.soundscapes) == 5
    assert len(read.unlabelled()) == 5
    contents = {recording.path.read_bytes() for recording in read.recordings}
    assert len(contents) == 412
    assert all(0.5 < recording.duration_s <= 20 for recording in read.recordings)
    minute = soundfile.info(read.unlabelled()[0])
    assert (minute.frames, minute.samplerate) == (60 * RATE_HZ, RATE_HZ)
    assert {recording.primary for recording in read.recordings} == set(read.classes)
    before = os.stat(read.recordings[0].path).st_mtime_ns
    assert make_full_size(folder, 0.001) == folder
    assert os.stat(read.recordings[0].path).st_mtime_ns == before
