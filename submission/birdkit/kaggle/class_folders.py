"""One folder of recordings for each class, in place of a table that lists them."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from birdkit.audio import SUFFIXES
from birdkit.errors import UserError, one_line
from birdkit.kaggle import mounts

# Folders that stand beside those of the classes, where the data folder itself holds these.
NO_CLASSES = {*mounts.AUDIO, *mounts.TRAIN_SOUNDSCAPES, mounts.TEST_SOUNDSCAPES, "validation"}
NAMED = 5  # so many names in a line


@dataclass(frozen=True)
class ClassFolders:
    """The classes of a data folder, sorted, and the recordings of each, sorted by name."""

    folder: Path  # that holds the folders of the classes
    recordings: dict[str, tuple[Path, ...]]  # by class; each has one or more
    left_out: tuple[str, ...]  # a line for each kind of thing that is not read

    def in_turn(self) -> list[Path]:
        """The first recording of each class, then the second one of each, and so on."""
        turns = zip_longest(*self.recordings.values())
        return [path for turn in turns for path in turn if path is not None]


def are_all(data: Path) -> bool:
    """Whether no table lists the recordings of a data folder."""
    return not any((data / name).exists() for name in mounts.RECORDINGS)


def find(data: Path) -> ClassFolders:
    """The folders of classes in train_audio/ of a data folder, or where it has none in the data folder.

    A class is called as its folder, with letters in their composed form (NFC), which most tables have.
    Folders inside those of the classes are not searched: nothing tells whether they are classes.

    Raises
    ------
    UserError
        Where no folder of a class holds a recording, or two have one name.
    """
    audio = mounts.there(data, mounts.AUDIO)
    folder = audio if audio.is_dir() else data
    inside = _visible(folder)
    others = NO_CLASSES if folder == data else set()
    folders = [path for path in inside if path.is_dir() and path.name not in others]
    recordings = {path: tuple(mounts.soundscapes(path)) for path in folders}
    full = [path for path, sounds in recordings.items() if sounds]
    inner = [path for path in folders if _holds_folders(path)]
    if not full:
        raise UserError(_nothing(data, folder, inner))
    names = Counter(_class_of(path) for path in full)
    name, count = names.most_common(1)[0]
    if count > 1:
        raise UserError(f"{folder}: {count} folders are called '{name}'; put their recordings into one")
    of_class = {_class_of(path): recordings[path] for path in full}
    empty = [path for path in folders if path not in full and path not in inner]
    return ClassFolders(
        folder,
        {name: of_class[name] for name in sorted(of_class)},
        _left_out(folder, full, inner, empty),
    )


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _class_of(folder: Path) -> str:
    """Raises `UserError` for a name that no table can hold."""
    if one_line(folder.name) != folder.name:
        raise UserError(
            f"{folder}: its name is no plain text, which that of a class must be; rename it"
        )
    return unicodedata.normalize("NFC", folder.name).strip()


def _holds_folders(folder: Path) -> bool:
    """Whether there are recordings in folders of a folder."""
    return any(path.is_dir() and mounts.soundscapes(path) for path in _visible(folder))


def _left_out(
    folder: Path, full: Sequence[Path], inner: Sequence[Path], empty: Sequence[Path]
) -> tuple[str, ...]:
    """A line for each kind of thing that is not read."""
    loose = mounts.soundscapes(folder)
    files = [path for of in full for path in _visible(of) if path.is_file()]
    suffixes = Counter(path.suffix.lower() or path.name for path in files if not mounts.is_sound(path))
    kinds = [f"{suffix} {count}" for suffix, count in suffixes.most_common()]
    lines = {
        f"{len(inner)} folders of classes hold folders, which are not read; move recordings up": inner,
        f"{len(empty)} folders hold no recordings and are no classes": empty,
        f"{len(loose)} recordings lie in no folder of a class and are left out": loose,
    }
    said = [f"{line}: {_listed([path.name for path in of])}" for line, of in lines.items() if of]
    if kinds:
        read = ", ".join(sorted(SUFFIXES))
        said.append(f"{suffixes.total()} files are not of {read} and are left out: {_listed(kinds)}")
    return tuple(f"{folder}: {line}" for line in said)


def _nothing(data: Path, folder: Path, inner: Sequence[Path]) -> str:
    """What is said where no folder of a class holds a recording."""
    if inner:
        return (
            f"{folder}: recordings lie a folder deeper than those of classes, as in {inner[0].name}/; "
            "give the folder that holds one folder for each class"
        )
    return (
        f"{data}: holds neither {mounts.RECORDINGS[0]} nor a folder of recordings for each class "
        f"({', '.join(sorted(SUFFIXES))}); give a competition folder, or such folders"
    )


def _listed(names: Sequence[object]) -> str:
    more = ", …" if len(names) > NAMED else ""
    return ", ".join(map(str, names[:NAMED])) + more
