"""Labelled soundscapes, and the truth of their windows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from birdkit.errors import UserError
from birdkit.grid import WINDOW_S
from birdkit.kaggle.mounts import there, train_soundscapes
from train.data import bad_files, tables
from train.data.tables import parse_seconds


@dataclass(frozen=True)
class Labels:
    """The labels that a folder may use."""

    wanted: frozenset[str]  # the classes that are trained
    own: frozenset[str] | None  # the classes of the folder itself, where it lists them

    def knows(self, label: str) -> bool:
        return label in self.wanted or label in (self.own or ())

    def check(self, label: str, where: str) -> bool:
        """Whether the label is wanted. Raises `UserError` for one that the folder does not list."""
        if self.own is not None and not self.knows(label):
            raise UserError(f"{where}: unknown label '{label}'; add it to taxonomy.csv")
        return label in self.wanted


Row = tuple[float, float, tuple[str, ...]]  # start s, end s, species


@dataclass(frozen=True)
class LabelledSoundscape:
    """A soundscape and its labels."""

    path: Path
    labels: tuple[Row, ...]


def read_soundscapes(
    root: Path, labels: Labels, skip_bad: bool
) -> tuple[tuple[LabelledSoundscape, ...], list[str]]:
    """The labelled soundscapes of a folder, and a line for everything that was left out.

    Labels count up to the window in which their soundscape ends.
    """
    path = there(root, tables.LABELS)
    if not path.is_file():
        return (), []
    # The file of 2026 lists every row twice.
    table = _read_labels(path, train_soundscapes(root)).drop_duplicates()
    by_file = {
        Path(str(name)): _rows(rows, labels, path) for name, rows in table.groupby("path", sort=True)
    }
    looks = bad_files.look_at_all(list(by_file))
    faults = {audio: why for audio, (_, why) in zip(by_file, looks, strict=True) if why}
    lines = bad_files.left_out(faults, skip_bad, f"{path}: ")
    soundscapes = []
    for (audio, rows), (duration_s, why) in zip(by_file.items(), looks, strict=True):
        end_s = math.ceil(duration_s / WINDOW_S - 1e-6) * WINDOW_S
        within = tuple((start, min(end, end_s), names) for start, end, names in rows if start < end_s)
        if not why and within != rows:
            lines.append(f"{audio}: lasts {duration_s:.1f} s, and labels after its end are left out")
        if within:
            soundscapes.append(LabelledSoundscape(audio, within))
    return tuple(soundscapes), lines


def _rows(rows: pd.DataFrame, labels: Labels, path: Path) -> tuple[Row, ...]:
    """The label rows of a soundscape. Raises `UserError` for a time or label that can't be."""
    found = []
    cells = zip(rows.index, rows["start"], rows["end"], rows["primary_label"], strict=True)
    for number, start, end, text in cells:
        where = f"{path}:{number + 2}"
        start_s, end_s = parse_seconds(start, where), parse_seconds(end, where)
        if not start_s < end_s:
            raise UserError(f"{where}: ends at '{end}', before it has begun ('{start}')")
        listed = (label.strip() for label in text.split(";") if label.strip())
        found.append((start_s, end_s, tuple(label for label in listed if labels.check(label, where))))
    return tuple(found)


def _read_labels(path: Path, folder: Path) -> pd.DataFrame:
    """The columns path, start, end and primary_label, one row for each label row."""
    if path.name == tables.LABELS[0]:
        table = tables.read_table(path, ["filename", "start", "end", "primary_label"])
        return table.assign(path=[str(folder / name) for name in table["filename"]])
    # 2021: an id, a site and the end of the window; the soundscape is <id>_<site>_<date>.ogg.
    table = tables.read_table(path, ["audio_id", "site", "seconds", "birds"])
    files = {"_".join(audio.stem.split("_")[:2]): audio for audio in sorted(folder.glob("*_*"))}
    stems = table["audio_id"] + "_" + table["site"]
    end_s = pd.to_numeric(table["seconds"], errors="coerce")
    birds = table["birds"].replace("nocall", "").str.split().str.join(";")
    return pd.DataFrame(
        {
            "path": [str(files.get(stem, folder / f"{stem}.ogg")) for stem in stems],
            "start": (end_s - WINDOW_S).astype(str),
            "end": end_s.astype(str),
            "primary_label": birds,
        }
    )


def window_counts(
    soundscapes: Sequence[LabelledSoundscape], classes: Sequence[str], window_s: float
) -> Counter[str]:
    """Class → in how many labelled windows it calls."""
    truths = (window_truth(soundscape, classes, window_s) for soundscape in soundscapes)
    counts = sum((truth[known].sum(axis=0) for truth, known in truths), np.zeros(len(classes), int))
    return +Counter(dict(zip(classes, counts.tolist(), strict=True)))


def window_truth(
    soundscape: LabelledSoundscape, classes: Sequence[str], window_s: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The classes that call in each window of the grid.

    Returns
    -------
    truth : (windows, classes), whether a label row that overlaps the window names the class
    labelled : (windows,), whether label rows cover the whole window; nothing is known of the others
    """
    column = {name: index for index, name in enumerate(classes)}
    count = max(1, round(max(end for _, end, _ in soundscape.labels) / window_s))
    truth = np.zeros((count, len(classes)), dtype=bool)
    covered_s = np.zeros(count)
    for start, end, species in soundscape.labels:
        for window in range(count):
            overlap_s = min(end, (window + 1) * window_s) - max(start, window * window_s)
            if overlap_s > 0:
                covered_s[window] += overlap_s
                truth[window, [column[name] for name in species if name in column]] = True
    return truth, covered_s >= window_s - 1e-6
