"""The rows and columns of a submission, its check and its writing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from birdkit import audio
from birdkit.errors import UserError, one_line
from birdkit.grid import MINUTE_S, row_ids, split_row_id, window_index, windows_in
from birdkit.kaggle import class_folders, mounts
from birdkit.kaggle.bad_file_rows import fill_missing
from birdkit.scoring.parts import SoundFile
from birdkit.scoring.predict import Scores

SAMPLE = "sample_submission.csv"
ROW_ID = "row_id"
# In a folder of so many files or more, this share of one length shows that all were meant to have it.
UNIFORM_FILES = 20
UNIFORM_SHARE = 0.8


@dataclass(frozen=True)
class Plan:
    """The rows of a submission, fixed before anything is decoded.

    Row i is window `window[i]` of `files[file[i]]`; where `file[i]` is -1, the sample submission
    names a recording that isn't there.
    """

    files: list[SoundFile]
    row_ids: list[str]
    file: NDArray[np.int64]
    window: NDArray[np.int64]
    remarks: list[str] = field(default_factory=list)  # on files that don't last a minute

    @property
    def absent(self) -> list[str]:
        """Stems that the sample submission names and the folder lacks."""
        lost = np.flatnonzero(self.file < 0)
        return sorted({split_row_id(self.row_ids[i])[0] for i in lost})


def asked_for(data: Path) -> tuple[list[str], list[str]]:
    """Row ids and class columns that a data folder asks for: those of its sample submission.

    A folder of recordings without one asks for its classes, in their order, and names no row.

    Raises
    ------
    UserError
        Where nothing says what is asked for.
    """
    sample, taxonomy = data / SAMPLE, data / mounts.TAXONOMY
    if sample.exists() or not class_folders.are_all(data):
        return read_sample(sample)
    if not taxonomy.is_file():
        return [], list(class_folders.find(data).recordings)
    listed = _read(taxonomy)
    if "primary_label" not in listed.columns:
        raise UserError(f"{taxonomy}: lacks the column primary_label; add it")
    return [], listed["primary_label"].tolist()


def read_sample(path: Path) -> tuple[list[str], list[str]]:
    """Row ids and class columns of a sample submission, in its order. Raises `UserError`."""
    frame = _read(path)
    if frame.columns[0] != ROW_ID:
        raise UserError(f"{path}: first column is '{frame.columns[0]}', expected '{ROW_ID}'")
    for line, row_id in enumerate(frame[ROW_ID], start=2):
        try:
            split_row_id(row_id)
        except UserError as error:
            raise UserError(f"{path}: line {line}: {error}; download it again") from None
    return frame[ROW_ID].tolist(), frame.columns[1:].tolist()


def _read(path: Path) -> pd.DataFrame:
    """A CSV whose labels and row ids are text. Raises `UserError`."""
    try:
        return pd.read_csv(
            path, dtype={ROW_ID: str, "primary_label": str}, keep_default_na=False, index_col=False
        )
    except FileNotFoundError:
        raise UserError(f"{path}: not found; --data must be a competition folder") from None
    except (OSError, pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: can't be read as CSV ({error}); download it again") from error


def plan_rows(paths: Sequence[Path], sample_rows: Sequence[str], window_s: float) -> Plan:
    """Rows of the sample submission; where it does not cover all files, all windows of each file too.

    Raises
    ------
    UserError
        Where a row id is none, or does not end where a window of `window_s` seconds does.
    """
    stems = {one_line(path.stem): index for index, path in enumerate(paths)}
    remarks: list[str] = []
    places = [(row_id, *split_row_id(row_id)) for row_id in sample_rows]
    if not any(stem in stems for _, stem, _ in places):
        places = []  # a public sample submission of three rows names none of the hidden files
    if not {stem for _, stem, _ in places}.issuperset(stems):
        # It names some of the files only, so it may name some of their rows only.
        listed = {row_id for row_id, _, _ in places}
        counts, remarks = _windows_by_length(paths, window_s)
        grid = [i for stem, n in zip(stems, counts, strict=True) for i in row_ids(stem, n, window_s)]
        places += [(row_id, *split_row_id(row_id)) for row_id in grid if row_id not in listed]
    window = [_window_of(row_id, end_s, window_s) for row_id, _, end_s in places]
    file = [stems.get(stem, -1) for _, stem, _ in places]
    n_windows = [1] * len(paths)
    for index, position in zip(file, window, strict=True):
        if index >= 0:
            n_windows[index] = max(n_windows[index], position + 1)
    return Plan(
        files=[SoundFile(path, n) for path, n in zip(paths, n_windows, strict=True)],
        row_ids=[row_id for row_id, _, _ in places],
        file=np.array(file, dtype=np.int64),
        window=np.array(window, dtype=np.int64),
        remarks=remarks,
    )


def _windows_by_length(paths: Sequence[Path], window_s: float) -> tuple[list[int], list[str]]:
    """How many windows each file has rows for, and a line on files that don't last a minute.

    A file without a length has as many as most others. A competition's soundscapes are equally long and
    its truth has equally many rows of each, so that where nearly all are, an odd one has as many, too.
    """
    found = [_n_windows(path, window_s) for path in paths]
    known = Counter(n for n in found if n)
    a_minute = windows_in(MINUTE_S, window_s)
    usual, n_usual = max(known.items(), key=itemgetter(1), default=(a_minute, 0))
    uniform = known.total() >= UNIFORM_FILES and n_usual >= UNIFORM_SHARE * known.total()
    counts = [usual if uniform else n or usual for n in found]
    if set(known) <= {a_minute}:
        return counts, []
    odd = [f"{path.name} {n}" for path, n in zip(paths, found, strict=True) if n and n != a_minute]
    rows = f"all have the {usual} rows of most" if uniform else "each has a row for each of its own"
    several = f"{len(odd)} files have more or less than the {a_minute} windows of a minute"
    return counts, [one_line(f"{several} ({', '.join(odd[:5])}{', …' * (len(odd) > 5)}): {rows}")]


def _n_windows(path: Path, window_s: float) -> int | None:
    """How many windows a file has by its length; None where it has none."""
    try:
        length_s = audio.length_s(path)
    except audio.AudioError:
        return None
    return windows_in(length_s, window_s) if length_s else None


def _window_of(row_id: str, end_s: float, window_s: float) -> int:
    """The index of the window that ends at `end_s`. Raises `UserError` where none does."""
    index = window_index(end_s, window_s)
    if index is None:
        raise UserError(
            f"row id '{row_id}' does not end on the model's grid of {window_s:g} s; "
            "train with the competition's window"
        )
    return index


def class_differences(model_classes: Sequence[str], columns: Sequence[str]) -> list[str]:
    """A line for columns that have no class, and one for classes that have no column.

    Names match whatever spaces are around them. Raises `UserError` where no class has a column, since
    every column would then be constant.
    """
    known, asked = ({name.strip() for name in names} for names in (model_classes, columns))
    missing, surplus = sorted(asked - known), sorted(known - asked)
    lines = []
    if missing:
        lines.append(f"{len(missing)} columns the model doesn't know: {', '.join(missing[:5])}")
    if surplus:
        lines.append(f"{len(surplus)} model classes without a column: {', '.join(surplus[:5])}")
    if not known & asked:
        raise UserError(refusal([*lines, "no class in common"]))
    return lines


def refusal(differences: Sequence[str]) -> str:
    """The message with which export and strict runs refuse `class_differences`."""
    return (
        f"the columns that are asked for and the model's classes differ ({'; '.join(differences)}); "
        "train on this data and export again"
    )


def build(
    plan: Plan,
    scores: Sequence[Scores],
    model_classes: Sequence[str],
    columns: Sequence[str],
) -> pd.DataFrame:
    """Scores of the plan's files as a table with the sample submission's columns, mapped by name.

    Rows without scores and columns without a class of the model hold medians: they are constant, so
    they neither help nor hurt a ranking. Callers count and report both.

    Parameters
    ----------
    scores : (n_windows, classes) a file, None where it has none
    """
    values = np.full((len(plan.row_ids), len(model_classes)), np.nan, dtype=np.float32)
    for row, (file, window) in enumerate(zip(plan.file, plan.window, strict=True)):
        of_file = scores[file] if file >= 0 else None
        if of_file is not None:
            values[row] = of_file[window]
    values = fill_missing(values)
    constant = np.full(len(values), np.median(values) if values.size else 0.0, dtype=np.float32)
    position = {name.strip(): index for index, name in enumerate(model_classes)}
    places = {name: position.get(name.strip()) for name in columns}
    by_name = {name: constant if at is None else values[:, at] for name, at in places.items()}
    table = pd.DataFrame(by_name, columns=list(columns))
    table.insert(0, ROW_ID, plan.row_ids)
    return table


def check(table: pd.DataFrame, expected_rows: Sequence[str], columns: Sequence[str]) -> None:
    """Raise `UserError` unless Kaggle's scorer would take the table."""
    problems = []
    if list(table.columns) != [ROW_ID, *columns]:
        problems.append("columns differ from the sample submission's")
    if table[ROW_ID].tolist() != list(expected_rows) or table[ROW_ID].duplicated().any():
        problems.append("row ids are not the expected ones, each once")
    values = table.drop(columns=ROW_ID)
    if not all(pd.api.types.is_float_dtype(dtype) for dtype in values.dtypes):
        problems.append("a column is not numeric")
    elif not np.isfinite(values.to_numpy()).all():
        problems.append("there are NaN or infinite values")
    if problems:
        raise UserError(f"the submission is not valid: {'; '.join(problems)}")


def to_csv(table: pd.DataFrame) -> bytes:
    """The table as the content of a CSV file."""
    return table.to_csv(index=False, float_format="%.7g").encode()
