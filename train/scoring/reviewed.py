"""Marks that a person saved from the review page: read, checked, and fitted class by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from birdkit.errors import UserError
from train.data import progress
from train.data.tables import read_table
from train.scoring.thresholds import ClassFit, Marks, fit

COLUMNS = ("recording", "start", "end", "class", "score", "mark", "model")
RIGHT, WRONG, UNSURE = MARKS = ("right", "wrong", "unsure")
# A window's detection, which has one mark; with its score, for recorders give files of two sites the
# same names.
KEY = ["recording", "start", "class", "score"]


@dataclass(frozen=True)
class Reviewed:
    """The marks of one model, class by class, and how many were left out of them."""

    model: str
    classes: dict[str, Marks]
    n_unsure: int
    n_doubled: int

    def __str__(self) -> str:
        n_marks = sum(len(marks.right) for marks in self.classes.values())
        return (
            f"{n_marks} marks of {len(self.classes)} classes, model {self.model}; left out: "
            f"{self.n_unsure} unsure, {self.n_doubled} that were marked again later"
        )


def read_marks(paths: Sequence[Path]) -> Reviewed:
    """The marks of saved tables; of a detection that was marked several times, the last one counts.

    Raises
    ------
    UserError
        Where a table lacks columns or marks, holds other values, or the marks are of several models.
    """
    table = pd.concat([_read(path) for path in paths], ignore_index=True)
    if table.empty:
        raise UserError(f"{paths[0]}: holds no marks; mark detections in the review page and save them")
    _refuse_several_models(table)
    last = table.drop_duplicates(KEY, keep="last")
    decided = last[last["mark"] != UNSURE]
    classes = {
        str(name): Marks(
            rows["score"].to_numpy(float),
            (rows["mark"] == RIGHT).to_numpy(),
            rows["recording"].to_numpy(str),
        )
        for name, rows in decided.groupby("class", sort=True)
    }
    n_unsure, n_doubled = len(last) - len(decided), len(table) - len(last)
    return Reviewed(str(table["model"].iloc[0]), classes, n_unsure, n_doubled)


def _read(path: Path) -> pd.DataFrame:
    """A saved table, its scores and times as numbers, and the column `where` that names each row."""
    table = read_table(path, COLUMNS)
    table = table.assign(where=[f"{path}:{row}" for row in range(2, len(table) + 2)])
    for column, highest in (("score", 1.0), ("start", None), ("end", None)):
        numbers = pd.to_numeric(table[column], errors="coerce")
        bad = ~(numbers >= 0) if highest is None else ~numbers.between(0, highest)
        if bad.any():
            row = table[bad].iloc[0]
            wanted = "a number from 0 to 1" if highest else "seconds"
            raise UserError(f"{row['where']}: {column} '{row[column]}' is not {wanted}")
        table[column] = numbers
    unknown = table[~table["mark"].isin(MARKS)]
    if len(unknown):
        row = unknown.iloc[0]
        raise UserError(f"{row['where']}: mark '{row['mark']}' is none of {', '.join(MARKS)}")
    return table


def _refuse_several_models(table: pd.DataFrame) -> None:
    counts = table["model"].value_counts()
    if len(counts) == 1:
        return
    fewest = counts.index[-1]
    where = table.loc[table["model"] == fewest, "where"].iloc[0]
    listed = ", ".join(f"{name} ({count} marks)" for name, count in counts.items())
    raise UserError(
        f"{where}: marks of another model than the others: {listed}; scores of two models can't be "
        "compared, so give the marks of one"
    )


def fit_classes(reviewed: Reviewed, precisions: Sequence[float]) -> list[ClassFit]:
    """The thresholds of every class that has a mark."""
    classes = tqdm(reviewed.classes.items(), **progress.bar("thresholds"))
    return [fit(name, marks, precisions) for name, marks in classes]
