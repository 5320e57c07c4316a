"""A table of a teacher's answers: row_id and a column for each class, as a submission has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from birdkit.errors import UserError, first_line
from birdkit.files import sha256
from birdkit.grid import row_ids, split_row_id
from birdkit.kaggle.table import ROW_ID
from birdkit.scoring.parts import SoundFile
from birdkit.scoring.predict import Scores
from train.config import provenance

LISTED = 5  # names in a line of text


@dataclass(frozen=True)
class AnswersTable:
    """A teacher of which there is a table only: anybody's answers for these soundscapes."""

    name: str
    path: Path
    classes: tuple[str, ...]
    licence: str
    window_s: float
    rows: pd.DataFrame  # indexed by row id; NaN in the columns of classes that it lacks
    surplus: tuple[str, ...]  # columns that are no class of the data

    @property
    def credit(self) -> str:
        return f"{self.path.name} (licence: {self.licence})"

    @property
    def knows(self) -> str:
        known = int(self.rows.notna().any().sum())
        line = f"{known} of {len(self.classes)} classes are among its columns"
        if self.surplus:
            more = ", …" * (len(self.surplus) > LISTED)
            line += f"; left out: {', '.join(self.surplus[:LISTED])}{more}, no classes here"
        return line

    @cached_property
    def made_by(self) -> dict[str, Any]:
        return {"table": sha256(self.path), "classes": provenance.key({"classes": self.classes})}

    def check(self, files: Sequence[SoundFile]) -> None:
        """Raise `UserError` where a window of a soundscape has no row."""
        stems = {split_row_id(row_id)[0] for row_id in self.rows.index}
        absent = [file.name for file in files if file.path.stem not in stems]
        if absent:
            more = f" (and {len(absent) - 1} more)" if absent[1:] else ""
            raise UserError(
                f"{self.path}: lacks the soundscape {absent[0]}{more}; a teacher's table has a row for "
                "each window of every soundscape that it labels"
            )
        known = set(self.rows.index)
        for file in files:
            for row_id in self._ids(file):
                if row_id not in known:
                    raise UserError(
                        f"{self.path}: lacks the row {row_id}; give one for each window of "
                        f"{self.window_s:g} s"
                    )

    def scores_of(self, files: Sequence[SoundFile]) -> tuple[list[Scores], dict[str, str]]:
        self.check(files)
        return [self.rows.loc[self._ids(file)].to_numpy() for file in files], {}

    def _ids(self, file: SoundFile) -> list[str]:
        return row_ids(file.path.stem, file.n_windows, self.window_s)

    @classmethod
    def read(
        cls, name: str, path: Path, classes: tuple[str, ...], licence: str, window_s: float
    ) -> AnswersTable:
        """Read a CSV, or a parquet file by its suffix.

        Raises
        ------
        UserError
            For a file that can't be read, rows that are doubled or no row ids, values that are no
            probabilities, and a table without a class of the data.
        """
        table = _read(path)
        if ROW_ID not in table.columns:
            raise UserError(f"{path}: lacks the column {ROW_ID}; name the column of row ids so")
        table = table.set_index(table[ROW_ID].astype(str)).drop(columns=ROW_ID)
        table.columns = table.columns.astype(str).str.strip()
        _check_rows(table, path)
        known = [name for name in classes if name in table.columns]
        if not known:
            raise UserError(
                f"{path}: has none of the {len(classes)} classes, but "
                f"{', '.join(table.columns[:LISTED])}; name its columns as taxonomy.csv does"
            )
        _check_values(table[known], path)
        rows = table[known].reindex(columns=list(classes)).astype(np.float32)
        surplus = tuple(column for column in table.columns if column not in classes)
        return cls(name, path, classes, licence, window_s, rows, surplus)


def _read(path: Path) -> pd.DataFrame:
    try:
        if path.suffix.lower() == ".parquet":
            return pd.read_parquet(path)
        return pd.read_csv(path, dtype={ROW_ID: str})
    except FileNotFoundError:
        raise UserError(f"{path}: not found; teachers.path names a table of answers") from None
    except Exception as error:  # pandas and its parquet engine fail in a dozen ways of their own
        raise UserError(f"{path}: can't be read as a table ({first_line(error)}); mend it") from error


def _check_rows(table: pd.DataFrame, path: Path) -> None:
    for kind, names in (("row", table.index), ("column", table.columns)):
        if names.has_duplicates:
            raise UserError(f"{path}: has the {kind} {names[names.duplicated()][0]} twice; keep one")
    for row_id in table.index:
        try:
            split_row_id(row_id)
        except UserError as error:
            raise UserError(f"{path}: {error}; mend it") from None


def _check_values(known: pd.DataFrame, path: Path) -> None:
    """Raise `UserError` where a class holds what is no probability."""
    for column in known.columns:
        if not pd.api.types.is_numeric_dtype(known[column]):
            raise UserError(f"{path}: column {column} holds texts; give probabilities from 0 to 1")
        bad = ~known[column].between(0.0, 1.0)
        if bad.any():
            value, row_id = known[column][bad].iloc[0], known.index[bad][0]
            advice = (
                "leave out the column of a class that the teacher doesn't know"
                if pd.isna(value)
                else "give probabilities from 0 to 1"
            )
            raise UserError(f"{path}: row {row_id}, column {column} is {value}; {advice}")
