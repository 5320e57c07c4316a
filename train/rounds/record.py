"""The tables that a run derived from folders of recordings, written down in the run's folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from birdkit.files import write_whole
from birdkit.kaggle import mounts, table
from train.config.job import Job
from train.data import tables
from train.data.dataset import Dataset

FOLDER = "data"


def write(dataset: Dataset, jobs: Sequence[Job], out: Path) -> list[str]:
    """Write train.csv, taxonomy.csv and sample_submission.csv into `out`/data, and a line on that.

    They are tables of a competition, with absolute file names, and `held_out_FOLD_of_N` beside them: 1
    for recordings that a model of that fold does not train on. Nothing is written where the data has
    such tables.
    """
    if not dataset.competition.of_folders:
        return []
    folder = out / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    classes = dataset.competition.classes
    _write(folder / mounts.RECORDINGS[0], _recordings(dataset, jobs))
    _write(folder / mounts.TAXONOMY, pd.DataFrame({"primary_label": classes}))
    _write(folder / table.SAMPLE, _sample(dataset.competition.roots[0], classes, jobs))
    names = ", ".join(path.name for path in sorted(folder.glob("*.csv")))
    return [f"{folder}: the tables that were derived ({names})"]


def _recordings(dataset: Dataset, jobs: Sequence[Job]) -> pd.DataFrame:
    recordings = dataset.recordings
    rows = [(r.primary, list(r.secondary), str(r.path.absolute()), r.author) for r in recordings]
    listed = pd.DataFrame(rows, columns=tables.COLUMNS)
    for data in {(job.data.fold, job.data.n_folds): job.data for job in jobs}.values():
        held_out = set(dataset.recordings_of(data)[1])
        if held_out:
            name = f"held_out_{data.fold}_of_{data.n_folds}"
            listed[name] = [int(recording in held_out) for recording in recordings]
    return listed


def _sample(root: Path, classes: Sequence[str], jobs: Sequence[Job]) -> pd.DataFrame:
    """The columns of a submission, and a row for each window of test soundscapes that are there."""
    folder = root / mounts.TEST_SOUNDSCAPES
    paths, _ = mounts.one_a_stem(mounts.soundscapes(folder) if folder.is_dir() else [])
    rows = table.plan_rows(paths, (), jobs[0].data.window_s).row_ids
    sample = pd.DataFrame(1 / len(classes), index=range(len(rows)), columns=list(classes))
    sample.insert(0, table.ROW_ID, rows)
    return sample


def _write(path: Path, content: pd.DataFrame) -> None:
    write_whole(path, content.to_csv(index=False).encode())
