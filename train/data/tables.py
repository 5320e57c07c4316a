"""The tables of a competition folder: where each year has them, and how their cells are read."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from birdkit.errors import UserError

# Names of one thing, the one of today first.
RECORDINGS = ("train.csv", "train_metadata.csv")  # 2021 to 2024
AUDIO = ("train_audio", "train_short_audio")  # 2021
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
        raise UserError(f"{path}: lacks the column {', '.join(missing)}; download it again")
    return table


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
