"""The classes of a run, with their names and what trains them, as its `classes.csv` keeps them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from birdkit.kaggle import mounts
from train.data import tables
from train.data.competition import Competition
from train.data.dataset import Dataset
from train.data.soundscapes import window_counts

NAME = "classes.csv"
NAMES = ("common_name", "scientific_name", "class_name")


def class_table(dataset: Dataset, window_s: float) -> pd.DataFrame:
    """A row a class, in the models' order.

    `n_recordings` counts recordings of which it is a primary label, held-out ones too and dropped
    duplicates not; `n_windows` the labelled windows that train in which it calls. Names are empty where
    no table has them.
    """
    classes = dataset.competition.classes
    recordings = Counter(recording.primary for recording in dataset.recordings)
    windows = window_counts(dataset.training, classes, window_s)
    counts = {
        "n_recordings": [recordings[name] for name in classes],
        "n_windows": [windows[name] for name in classes],
    }
    table = pd.DataFrame({"class": classes, **counts})
    return table.join(names_of(dataset.competition.roots), on="class").fillna("")


def scientific_names(competition: Competition) -> dict[str, str]:
    """Class → its scientific name, empty where no table has it; all classes, in order."""
    names = names_of(competition.roots)["scientific_name"].reindex(competition.classes).fillna("")
    return {str(label): str(name) for label, name in names.items()}


def names_of(roots: Sequence[Path]) -> pd.DataFrame:
    """The names of labels, from the first table of the folders that has them; labels are the index."""
    parts = [pd.DataFrame(columns=list(NAMES), index=pd.Index([], name="primary_label"))]
    for root in roots:
        for path in (root / mounts.TAXONOMY, mounts.there(root, mounts.RECORDINGS)):
            if path.is_file():
                table = tables.read_table(path, ["primary_label"]).set_index("primary_label")
                parts.append(table.reindex(columns=list(NAMES)))
    # groupby.first takes the first that is there of each column.
    return pd.concat(parts).replace("", pd.NA).groupby(level=0).first()
