"""The truth for a table of scores: labels, which cells are decided, and groups of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from birdkit.errors import UserError
from birdkit.kaggle.table import ROW_ID


@dataclass(frozen=True, eq=False)
class Truth:
    """Known truth, which metrics, gates, fits and the bootstrap take whole.

    labels : (rows, classes), whether the class is present
    decided : (rows, classes), whether the cell counts; the truth of the others is unknown
    groups : (rows,) labels; rows of one group, such as windows of one file, are not independent and
        are resampled together
    """

    labels: NDArray[np.bool_]
    decided: NDArray[np.bool_]
    groups: NDArray[np.generic]

    def __post_init__(self) -> None:
        shapes = self.labels.shape, self.decided.shape, self.groups.shape
        if self.labels.ndim != 2 or shapes[1:] != (shapes[0], shapes[0][:1]):
            raise ValueError(f"labels, decided and groups have the shapes {shapes}")

    @classmethod
    def of(
        cls,
        labels: NDArray[np.bool_],
        decided: NDArray[np.bool_] | None = None,
        groups: NDArray[np.generic] | None = None,
    ) -> Truth:
        """Truth in which, unless given, every cell is decided and each row is a group of its own."""
        decided = np.ones_like(labels) if decided is None else decided
        return cls(labels, decided, np.arange(len(labels)) if groups is None else groups)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def n_classes(self) -> int:
        return self.labels.shape[1]

    @property
    def n_positive(self) -> NDArray[np.int64]:
        """(classes,) decided positives of each class."""
        return np.asarray((self.labels & self.decided).sum(axis=0))

    def positives(self, column: int) -> NDArray[np.intp]:
        """Numbers of the rows in which a class is decided to be present."""
        return np.flatnonzero(self.labels[:, column] & self.decided[:, column])

    def negatives(self, column: int) -> NDArray[np.intp]:
        """Numbers of the rows in which a class is decided to be absent."""
        return np.flatnonzero(self.decided[:, column] > self.labels[:, column])

    def rows(self, index: NDArray[np.intp]) -> Truth:
        """Some of the rows, by number; a number may be there several times."""
        return Truth(self.labels[index], self.decided[index], self.groups[index])

    def same_as(self, other: Truth) -> bool:
        """Whether both decide the same cells alike."""
        return np.array_equal(self.labels, other.labels) and np.array_equal(self.decided, other.decided)


@dataclass(frozen=True)
class TruthTable:
    """Truth with the names of its rows and columns, as `truth.csv` and `mask.csv` have it."""

    row_ids: pd.Index
    classes: pd.Index
    truth: Truth

    def select(self, row_ids: Sequence[str], classes: Sequence[str]) -> Truth:
        """Rows and columns by name, in this order."""
        rows = self.row_ids.get_indexer(pd.Index(row_ids))
        columns = self.classes.get_indexer(pd.Index(classes))
        cells = np.ix_(rows, columns)
        return Truth(self.truth.labels[cells], self.truth.decided[cells], self.truth.groups[rows])


def read_truth(validation: Path) -> TruthTable:
    """Truth in the order of `truth.csv`. A cell that `mask.csv` marks with 1 is undecided.

    Raises
    ------
    UserError
        For a table that is absent, holds no numbers or lacks rows or columns of the other.
    """
    labels = read_cells(validation / "truth.csv") > 0.5
    groups = labels.index.str.rpartition("_").get_level_values(0).to_numpy()
    mask_path = validation / "mask.csv"
    if not mask_path.is_file():
        return TruthTable(labels.index, labels.columns, Truth.of(labels.to_numpy(), groups=groups))
    mask = read_cells(mask_path).reindex(index=labels.index, columns=labels.columns)
    if mask.isna().to_numpy().any():
        raise UserError(f"{mask_path}: lacks rows or columns of truth.csv beside it")
    truth = Truth(labels.to_numpy(), mask.to_numpy() <= 0.5, groups)
    return TruthTable(labels.index, labels.columns, truth)


def read_cells(path: Path) -> pd.DataFrame:
    """A table of numbers by row id."""
    try:
        return pd.read_csv(path, dtype={ROW_ID: str}).set_index(ROW_ID).astype(np.float64)
    except FileNotFoundError:
        raise UserError(
            f"{path}: not found; give the CSV of a submission, or a folder with truth.csv"
        ) from None
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: needs a {ROW_ID} column and numbers ({error})") from error
