"""The tables of a data folder: where each year has them, what folders tell, how cells are read."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from birdkit.errors import UserError
from birdkit.kaggle import class_folders, mounts
from birdkit.kaggle.class_folders import ClassFolders

COLUMNS = ["primary_label", "secondary_labels", "filename", "author"]
# The number of a recording at Xeno-canto or iNaturalist, which the names of its pieces begin with.
SOURCE = re.compile(r"(XC|iNat)\d+", re.IGNORECASE)
LABELS = ("train_soundscapes_labels.csv", "train_soundscape_labels.csv")  # 2021

LONGEST_S = 86400.0  # no label ends later in its soundscape
_NOTHING = {"", "none", "nan", "null", "<na>"}
_LABEL = re.compile(r"""'([^']*)'|"([^"]*)"|([^\s,'"()\[\]{}]+)""")


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """A CSV as strings (labels mix eBird codes and numeric iNaturalist ids), with these columns."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise UserError(f"{path}: not found; is {path.parent} a competition folder?") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: can't be read as CSV ({error}); download it again") from error
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise UserError(f"{path}: lacks the column {', '.join(missing)}; add it, or download it again")
    return table


@dataclass(frozen=True)
class Recordings:
    """The table of a data folder's recordings: primary_label, secondary_labels, filename, author."""

    path: Path  # the table, or the folder that it was derived from
    folder: Path  # that file names are relative to
    rows: pd.DataFrame  # indexed by where each row stands, as errors name it
    lines: tuple[str, ...]  # what was derived, and what was not read


def read_recordings(root: Path) -> Recordings:
    """The rows of train.csv, or where there is none a row for each recording in a folder of a class."""
    if class_folders.are_all(root):
        return _derived(root, class_folders.find(root))
    path = mounts.there(root, mounts.RECORDINGS)
    table = read_table(path, COLUMNS)[COLUMNS]
    table.index = pd.Index([f"{path}:{row}" for row in range(2, len(table) + 2)])
    return Recordings(path, mounts.there(root, mounts.AUDIO), table, ())


def _derived(root: Path, found: ClassFolders) -> Recordings:
    """The table of folders of recordings. Pieces of one recording have one author, who is not known."""
    first: dict[str, str] = {}
    rows, wheres = [], []
    for label, paths in found.recordings.items():
        for path in paths:
            name = path.relative_to(found.folder).as_posix()
            source = SOURCE.match(path.name)
            author = first.setdefault(source[0].lower(), name) if source else name
            rows.append((label, "", name, author))
            wheres.append(str(path.parent))
    inside = f"the folders of {found.folder.name}/" if found.folder != root else "its folders"
    classes = f"{len(found.recordings)} classes from {inside}, {len(rows)} recordings"
    line = f"{root}: no {mounts.RECORDINGS[0]}: {classes}"
    if (root / mounts.TAXONOMY).is_file():
        line += f"; {mounts.TAXONOMY} lists the classes"
    table = pd.DataFrame(rows, columns=COLUMNS, index=wheres)
    return Recordings(found.folder, found.folder, table, (line, *found.left_out))


def parse_label_list(text: str, where: str) -> tuple[str, ...]:
    """`"['a', 'b']"`, numpy's `"['a' 'b']"` or one label alone → its labels.

    No label comes as `['']` (2025), `[]` (2026), None, nan or nothing at all.
    """
    inner = text.strip()
    if inner[:1] + inner[-1:] in ("[]", "()", "{}"):
        inner = inner[1:-1]
    elif len(_LABEL.findall(inner)) > 1:
        raise UserError(f"{where}: secondary_labels {text!r} is no list of labels")
    if _LABEL.sub("", inner).strip(" ,\t\r\n"):
        raise UserError(f"{where}: secondary_labels {text!r} is no list of labels")
    labels = ("".join(groups).strip() for groups in _LABEL.findall(inner))
    return tuple(label for label in labels if label.lower() not in _NOTHING)


def parse_seconds(text: str, where: str) -> float:
    """`HH:MM:SS`, or plain seconds."""
    total_s = 0.0
    try:
        for part in text.split(":"):
            total_s = 60 * total_s + float(part)
    except ValueError:
        total_s = math.nan
    if not 0 <= total_s <= LONGEST_S:
        raise UserError(f"{where}: time '{text}' is not HH:MM:SS within a day")
    return total_s
