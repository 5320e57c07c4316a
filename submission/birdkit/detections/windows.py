"""The table of all windows above the floor, as CSV and as parquet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import numpy as np
import pandas as pd

from birdkit.detections.events import moment
from birdkit.detections.species import Species
from birdkit.detections.texts import text_file
from birdkit.errors import UserError
from birdkit.files import replacing
from birdkit.recordings.journal import Model, Scored

try:
    import pyarrow
    import pyarrow.parquet
except ImportError:  # the submission runs without it
    pyarrow = None

STEM = "windows"
TEXTS = ("recording", "time", "class", "scientific_name", "common_name", "model")
NUMBERS = {"start_s": "float64", "end_s": "float64", "score": "float32"}
COLUMNS = (
    *("recording", "start_s", "end_s", "time", "class"),
    *("scientific_name", "common_name", "score", "model"),
)
MOST_ROWS = 1 << 16  # made at a time
DECIMALS = 6  # of scores in the CSV


def check_pyarrow() -> None:
    """Raise `UserError` where parquet can't be written."""
    if pyarrow is None:
        raise UserError("pyarrow is missing, which writes windows.parquet; run pip install pyarrow")


class Windows:
    """Writes the windows of one recording after another."""

    def __init__(
        self,
        csv: TextIO,
        parquet: pyarrow.parquet.ParquetWriter,
        model: Model,
        species: Sequence[Species],
    ) -> None:
        self._csv, self._parquet, self._model = csv, parquet, model
        self._names = {
            "class": np.array([one.label for one in species], dtype=object),
            "scientific_name": np.array([one.scientific for one in species], dtype=object),
            "common_name": np.array([one.common for one in species], dtype=object),
        }
        pd.DataFrame(columns=list(COLUMNS)).to_csv(csv, index=False)

    def add(self, recording: str, scored: Scored) -> None:
        """Write what a recording's windows say."""
        for first in range(0, len(scored.scores), MOST_ROWS):
            rows = slice(first, first + MOST_ROWS)
            table = self._table(recording, scored, rows)
            self._parquet.write_table(pyarrow.Table.from_pandas(table, _schema(), preserve_index=False))
            table["score"] = table["score"].astype(float).round(DECIMALS)
            table.to_csv(self._csv, index=False, header=False)

    def _table(self, recording: str, scored: Scored, rows: slice) -> pd.DataFrame:
        windows, classes = scored.windows[rows], scored.classes[rows]
        starts = windows * self._model.window_s
        ends = np.minimum(starts + self._model.window_s, scored.sound.duration_s)
        times = {start: moment(scored.sound.start, start) for start in np.unique(starts).tolist()}
        values = {name: names[classes] for name, names in self._names.items()} | {
            "recording": recording,
            "model": self._model.name,
            "start_s": starts,
            "end_s": ends,
            "time": [times[start] for start in starts.tolist()],
            "score": scored.scores[rows],
        }
        return pd.DataFrame(values)[list(COLUMNS)]


@contextmanager
def windows_table(folder: Path, model: Model, species: Sequence[Species]) -> Iterator[Windows]:
    """Both files in a folder, which replace older ones at the end of the block."""
    with (
        text_file(folder / f"{STEM}.csv") as csv,
        replacing(folder / f"{STEM}.parquet") as file,
        pyarrow.parquet.ParquetWriter(file, _schema()) as parquet,
    ):
        yield Windows(csv, parquet, model, species)


def _schema() -> pyarrow.Schema:
    kinds = dict.fromkeys(TEXTS, "string") | NUMBERS
    return pyarrow.schema([(name, pyarrow.type_for_alias(kinds[name])) for name in COLUMNS])
