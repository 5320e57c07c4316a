"""Finding recordings, and giving each a name of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from birdkit.errors import UserError
from birdkit.recordings.folders import find


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def names(*given: Path, out: Path) -> list[str]:
    return [recording.name for recording in find(given, out)[0]]


def test_a_folder_is_searched_below_and_nothing_hidden_is_found(tmp_path: Path) -> None:
    touch(tmp_path / "b.WAV", tmp_path / "site" / "night" / "a.flac", tmp_path / "notes.txt")
    touch(tmp_path / "._b.wav", tmp_path / ".trash" / "c.wav")
    assert names(tmp_path, out=tmp_path / "out") == ["b.WAV", "site/night/a.flac"]


def test_two_recordings_of_one_name_in_two_folders_have_two_names(tmp_path: Path) -> None:
    touch(tmp_path / "x" / "rec" / "1.wav", tmp_path / "y" / "rec" / "1.wav")
    given = (tmp_path / "x" / "rec", tmp_path / "y" / "rec")
    assert names(*given, out=tmp_path / "out") == ["x/rec/1.wav", "y/rec/1.wav"]


def test_a_file_is_taken_whatever_its_suffix_and_once_however_often_given(tmp_path: Path) -> None:
    touch(tmp_path / "a.wav", tmp_path / "b.raw")
    given = (tmp_path / "b.raw", tmp_path / "a.wav", tmp_path, tmp_path / "." / "a.wav")
    assert names(*given, out=tmp_path / "out") == ["a.wav", "b.raw"]


def test_clips_of_an_earlier_run_are_no_recordings(tmp_path: Path) -> None:
    touch(tmp_path / "a.wav", tmp_path / "out" / "clips" / "b.wav")
    assert names(tmp_path, out=tmp_path / "out") == ["a.wav"]


def test_a_link_to_nowhere_is_a_fault_and_one_to_a_folder_is_not_followed(tmp_path: Path) -> None:
    touch(tmp_path / "a.wav")
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    (tmp_path / "loop").symlink_to(tmp_path)
    found, faults = find([tmp_path], tmp_path / "out")
    assert [recording.name for recording in found] == ["a.wav"]
    assert faults == {"gone.wav": "No such file or directory"}


def test_a_name_that_is_no_utf8_is_shown_on_one_line(tmp_path: Path) -> None:
    touch(Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\xff\n.wav")))
    assert names(tmp_path, out=tmp_path / "out") == ["a\\udcff\\n.wav"]


@pytest.mark.parametrize("given", ["nowhere", "empty"])
def test_what_is_missing_or_holds_nothing_is_named(tmp_path: Path, given: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=given):
        find([tmp_path / given], tmp_path / "out")


@pytest.mark.parametrize("given", ["field", "field/clips"])
def test_the_folder_of_the_tables_is_none_of_recordings(tmp_path: Path, given: str) -> None:
    touch(tmp_path / "field" / "a.wav", tmp_path / "field" / "clips" / "b.wav")
    with pytest.raises(UserError, match="whose clips are no recordings"):
        find([tmp_path / given], tmp_path / "field")
