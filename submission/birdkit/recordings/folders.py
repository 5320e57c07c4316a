"""Finds recordings in files and folders, and names each of them by its own place."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from birdkit.audio import SUFFIXES
from birdkit.errors import UserError, one_line

# What field recorders and editors write beside the formats of competitions, and libsndfile reads.
FIELD_SUFFIXES = SUFFIXES | {".w64", ".rf64", ".aif", ".aiff", ".aifc", ".caf", ".au"}


@dataclass(frozen=True)
class Recording:
    """A file, its name in every table, and what tells that it has changed.

    The name is the path relative to what was given, so that two files of one name in two folders are
    not confused. It is on one line.
    """

    path: Path  # absolute
    name: str
    size: int  # bytes
    mtime_ns: int


def find(given: Sequence[Path], out: Path | None = None) -> tuple[list[Recording], dict[str, str]]:
    """The recordings in order of their names, and name → why of files that vanished or can't be seen.

    A file counts whatever its suffix is, and a folder is searched with all folders below it. Hidden
    files and folders are left out, and so is `out`, where clips lie, if there is such a folder.

    Raises
    ------
    UserError
        Where something is missing, or there is no recording at all.
    """
    roots = [Path(os.path.abspath(path)) for path in given]
    for root, path in zip(roots, given, strict=True):
        if not root.exists():
            raise UserError(f"{path}: no such file or folder; give recordings, or folders of them")
    tables = Path(os.path.abspath(out)) if out else None
    for root in roots:
        if tables and (root == tables or tables in root.parents):
            raise UserError(f"{root}: lies in --out, whose clips are no recordings; give another --out")
    # Relative to the folder given, or to the one that holds everything that was given.
    base = _base(roots)
    paths = {path for root in roots for path in _below(root, tables)}
    found, faults = [], {}
    for path in paths:
        name = one_line(path.relative_to(base).as_posix())
        try:
            status = path.stat()
        except OSError as error:
            faults[name] = error.strerror or str(error)
        else:
            found.append(Recording(path, name, status.st_size, status.st_mtime_ns))
    if not paths:
        kinds = ", ".join(sorted(FIELD_SUFFIXES))
        raise UserError(f"{', '.join(map(str, given))}: no recordings there ({kinds})")
    return sorted(found, key=lambda recording: (recording.name, recording.path)), faults


def _base(roots: Sequence[Path]) -> Path:
    """The folder that names are relative to."""
    folders = [root if root.is_dir() else root.parent for root in roots]
    return Path(os.path.commonpath(folders))


def _below(root: Path, out: Path | None) -> Iterator[Path]:
    """A file, or the sound files of a folder."""
    if not root.is_dir():
        yield root
        return
    yield from sound_files(root, FIELD_SUFFIXES, out)


def sound_files(root: Path, suffixes: Set[str], left_out: Path | None = None) -> Iterator[Path]:
    """The sound files of a folder and of all folders below it, without hidden ones and a folder.

    Links to folders are not followed, for they may loop.
    """
    for folder, folders, names in os.walk(root, onerror=_raise):
        inside = Path(folder)
        folders[:] = [name for name in folders if name[0] != "." and inside / name != left_out]
        for name in names:
            if name[0] != "." and Path(name).suffix.lower() in suffixes:
                yield inside / name


def _raise(error: OSError) -> None:
    """A folder that can't be listed is an error, since its recordings would be missed silently."""
    raise UserError(f"{error.filename}: {error.strerror}; make it readable, or leave it out")
