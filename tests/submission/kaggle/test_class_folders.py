"""Classes and recordings by their folders, where no table lists them."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from birdkit.errors import UserError
from birdkit.kaggle import class_folders, table
from tests.conftest import write_sound


def recordings(folder: Path, *names: str) -> Path:
    """A folder with these recordings, which nothing decodes."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def listed(data: Path) -> dict[str, list[str]]:
    found = class_folders.find(data)
    return {label: [path.name for path in paths] for label, paths in found.recordings.items()}


@pytest.mark.parametrize("audio", [".", "train_audio", "train_short_audio"])
def test_classes_are_the_folders_of_recordings_in_train_audio_or_in_the_data_folder(
    tmp_path: Path, audio: str
) -> None:
    recordings(tmp_path / audio, "wren/b.wav", "wren/a.OGG", "bittern/c.flac")
    assert listed(tmp_path) == {"bittern": ["c.flac"], "wren": ["a.OGG", "b.wav"]}
    assert class_folders.find(tmp_path).folder == tmp_path / audio
    assert class_folders.find(tmp_path).left_out == ()


def test_folders_of_a_competition_are_no_classes(tmp_path: Path) -> None:
    recordings(tmp_path, "wren/a.wav", "train_soundscapes/s.ogg", "test_soundscapes/t.ogg")
    recordings(tmp_path, "unlabeled_soundscapes/u.ogg", "validation/v.ogg", ".trash/w.ogg")
    assert listed(tmp_path) == {"wren": ["a.wav"]}
    assert class_folders.find(tmp_path).left_out == ()


def test_in_train_audio_every_folder_of_recordings_is_a_class(tmp_path: Path) -> None:
    recordings(tmp_path / "train_audio" / "validation", "a.wav")
    recordings(tmp_path / "train_audio" / "robin", "b.wav")
    assert list(listed(tmp_path)) == ["robin", "validation"]


def test_everything_that_is_not_read_is_counted_and_named(tmp_path: Path) -> None:
    recordings(tmp_path, "wren/a.wav", "wren/a.txt", "wren/b.m4a", "wren/c.m4a", "wren/._a.wav")
    recordings(tmp_path, "wren/site/d.wav", "loose.wav", "notes.txt", "docs/readme.md")
    (tmp_path / "empty").mkdir()
    assert listed(tmp_path) == {"wren": ["a.wav"]}
    assert class_folders.find(tmp_path).left_out == (
        f"{tmp_path}: 1 folders of classes hold folders, which are not read; move recordings up: wren",
        f"{tmp_path}: 2 folders hold no recordings and are no classes: docs, empty",
        f"{tmp_path}: 1 recordings lie in no folder of a class and are left out: loose.wav",
        f"{tmp_path}: 3 files are not of .flac, .mp3, .ogg, .opus, .wav and are left out: "
        ".m4a 2, .txt 1",
    )


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "holds neither train.csv nor a folder of recordings for each class"),
        (["a.wav"], "holds neither train.csv nor a folder of recordings for each class"),
        (["wren/a.txt"], "holds neither train.csv nor a folder of recordings for each class"),
        (["train/wren/a.wav"], "recordings lie a folder deeper .* as in train/; give the folder"),
        (["birdclef/train_audio/wren/a.wav"], "holds neither train.csv nor a folder"),
    ],
)
def test_a_folder_without_classes_is_refused_with_what_to_give(
    tmp_path: Path, files: list[str], message: str
) -> None:
    recordings(tmp_path, *files)
    with pytest.raises(UserError, match=message):
        class_folders.find(tmp_path)


def test_a_class_has_any_name_that_is_text(tmp_path: Path) -> None:
    names = ["<script>alert(1)<", "Zaunkönig", "a;b", 'it\'s "one"', "two, of a kind", "22774"]
    recordings(tmp_path, *(f"{name}/x.wav" for name in names))
    assert list(listed(tmp_path)) == sorted(names)
    assert table.asked_for(tmp_path) == ([], sorted(names))


def test_a_name_is_composed_as_tables_have_it_and_none_can_be_of_two_folders(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "Zaunkönig") for form in ("NFC", "NFD"))
    recordings(tmp_path, f"{apart}/x.wav")
    assert list(listed(tmp_path)) == [composed]
    recordings(tmp_path, f"{composed} /y.wav")
    with pytest.raises(UserError, match="2 folders are called 'Zaunkönig'; put their recordings into"):
        class_folders.find(tmp_path)


@pytest.mark.parametrize("name", ["two\nlines", "\udcff"])
def test_a_name_that_no_table_can_hold_is_refused(tmp_path: Path, name: str) -> None:
    recordings(tmp_path, f"{name}/x.wav")
    with pytest.raises(UserError, match="its name is no plain text"):
        class_folders.find(tmp_path)


def test_recordings_come_from_class_to_class(tmp_path: Path) -> None:
    recordings(tmp_path, "a/1.wav", "a/2.wav", "a/3.wav", "b/4.wav", "c/5.wav", "c/6.wav")
    in_turn = class_folders.find(tmp_path).in_turn()
    assert [path.stem for path in in_turn] == ["1", "4", "5", "2", "6", "3"]


def test_what_is_asked_for_is_told_by_the_sample_then_the_taxonomy_then_the_folders(
    tmp_path: Path,
) -> None:
    write_sound(tmp_path / "22774" / "x.wav", 0.1)
    assert table.asked_for(tmp_path) == ([], ["22774"])
    taxonomy = tmp_path / "taxonomy.csv"
    taxonomy.write_text("primary_label,common_name\n47158,Frog\n22774,Toad\n")
    assert table.asked_for(tmp_path) == ([], ["47158", "22774"])
    (tmp_path / "sample_submission.csv").write_text("row_id,22774\ns_5,0.5\n")
    assert table.asked_for(tmp_path) == (["s_5"], ["22774"])
    (tmp_path / "sample_submission.csv").unlink()
    (tmp_path / "train.csv").touch()  # of a competition, so the sample submission is missing
    with pytest.raises(UserError, match=r"sample_submission\.csv: not found"):
        table.asked_for(tmp_path)
    (tmp_path / "train.csv").unlink()
    taxonomy.write_text("label\n22774\n")
    with pytest.raises(UserError, match=r"taxonomy\.csv: lacks the column primary_label"):
        table.asked_for(tmp_path)
