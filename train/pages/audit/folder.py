"""The recordings of a data folder, as its tables and their headers describe them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import soundfile

from birdkit.audio import SUFFIXES
from birdkit.errors import UserError
from birdkit.kaggle import class_folders, mounts
from birdkit.recordings.folders import sound_files
from train.data import competition, tables
from train.data.bad_files import look_at
from train.data.progress import in_threads

# Columns of a table of recordings that an audit can do without.
OPTIONAL = (
    "scientific_name",
    "common_name",
    "author",
    "license",
    "latitude",
    "longitude",
)


@dataclass(frozen=True)
class Header:
    """What a file's header tells; of one with a fault only the fault."""

    duration_s: float
    rate_hz: int
    channels: int
    format: str
    fault: str | None


@dataclass(frozen=True)
class Folder:
    """A folder's recordings.

    `rows` has a row for each row of the table: path, class, the columns of `OPTIONAL` ("" where they
    are absent; latitude and longitude as numbers), and those of `Header`.
    """

    root: Path
    audio: Path  # the folder that the recordings are below
    rows: pd.DataFrame
    classes: tuple[str, ...]  # of the taxonomy, or those that have recordings
    groups: dict[str, str]  # class → its group in the taxonomy, where it has one
    absent: frozenset[str]  # optional columns that the table lacks
    notes: tuple[str, ...]


def read(root: Path) -> Folder:
    """Raises `UserError` for a folder that is absent, holds no recordings or an unreadable table."""
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; give a folder of recordings with --data DIR")
    groups, notes = _groups(root)
    if class_folders.are_all(root):
        found = class_folders.find(root)
        audio, rows = found.folder, _of_folders(found)
        notes += found.left_out
    else:
        table_path, audio = mounts.there(root, mounts.RECORDINGS), mounts.there(root, mounts.AUDIO)
        rows = _of_table(table_path, audio)
        if unnamed := len(set(sound_files(audio, SUFFIXES)) - set(rows["path"])):
            notes.append(f"{unnamed} sound files in {audio.name} are in no row of {table_path.name}")
    if rows.empty:
        raise UserError(f"{root}: its table names no recordings; give one of other recordings")
    absent = frozenset(set(OPTIONAL) - set(rows.columns))
    rows = rows.assign(**dict.fromkeys(sorted(absent), ""))
    for name in ("latitude", "longitude"):
        rows[name] = pd.to_numeric(rows[name], errors="coerce")
    paths = list(dict.fromkeys(rows["path"]))
    headers = dict(zip(paths, in_threads(header, paths, "reading headers"), strict=True))
    rows = rows.join(pd.DataFrame([headers[path] for path in rows["path"]]))
    classes = tuple(dict.fromkeys([*groups, *sorted(set(rows["class"]))]))
    return Folder(root, audio, rows, classes, groups, absent, tuple(notes))


def _of_table(path: Path, audio: Path) -> pd.DataFrame:
    """The rows of a table of recordings, with as many of the optional columns as it has."""
    table = tables.read_table(path, ["primary_label", "filename"])
    kept = [name for name in OPTIONAL if name in table.columns]
    cells = zip(table["filename"], table["primary_label"], strict=True)
    paths = [competition.audio_file(audio, name, primary) for name, primary in cells]
    # An object column, for pandas would make strings of paths.
    files = pd.DataFrame({"path": pd.Series(paths, dtype=object), "class": table["primary_label"]})
    return files.join(table[kept])


def _of_folders(found: class_folders.ClassFolders) -> pd.DataFrame:
    """A row for each recording in the folder of a class."""
    cells = [(path, name) for name, paths in found.recordings.items() for path in paths]
    files, classes = zip(*cells, strict=True)
    return pd.DataFrame({"path": pd.Series(files, dtype=object), "class": classes})


def header(path: Path) -> Header:
    duration_s, fault = look_at(path)
    if fault:
        return Header(float("nan"), 0, 0, "", fault)
    info = soundfile.info(os.fsencode(path))
    return Header(duration_s, info.samplerate, info.channels, f"{info.format} {info.subtype}", None)


def _groups(root: Path) -> tuple[dict[str, str], list[str]]:
    """Class → group, and a note where nothing tells the groups."""
    try:
        return competition.class_groups(root), []
    except UserError as error:
        return {}, [f"No groups of classes are known: {error}"]
