"""Pseudo labels: a table of teacher probabilities, and the targets that students learn from it.

A round's table is one parquet file, written once: a row a window of the kit's own grid, the teacher's
probabilities, and in the file's metadata the inputs that they depend on. The transform into targets
(thresholds, power, weighting) is applied on reading, so that another transform needs no new scoring;
it is part of each student's job. `pseudo.json` beside the table sums up the targets.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from birdkit.errors import UserError
from birdkit.files import write_whole
from birdkit.log import LOG
from birdkit.scoring.parts import SoundFile
from birdkit.scoring.predict import Scores
from train.config import provenance
from train.config.settings import Pseudo
from train.data.batches import LabelledWindows

NAME, SUMMARY_NAME = "pseudo.parquet", "pseudo.json"
METADATA_KEY = b"birdkit.pseudo"
CHECKSUM = "sha256"  # a key of the metadata; kits before it kept none
VERSION = 1


@dataclass(frozen=True)
class Labels:
    """A round's table of teacher probabilities, before any transform."""

    names: tuple[str, ...]  # file names of the soundscapes
    file: NDArray[np.int64]  # (windows,) index into `names`
    window: NDArray[np.int64]  # (windows,) on the grid of its file
    scores: NDArray[np.float32]  # (windows, classes) probabilities
    classes: tuple[str, ...]
    made_by: dict[str, Any]
    failures: dict[str, str]  # soundscape → why it could not be scored


@dataclass(frozen=True)
class Summary:
    """Statistics of the targets that a round's settings make from a table."""

    output: str
    n_windows: int
    n_soundscapes: int
    kept: float  # share of the windows that are drawn
    mass: dict[str, float]  # class → sum of its targets
    spread: dict[str, float]  # class → highest minus lowest probability

    def save(self, folder: Path) -> None:
        write_whole(folder / SUMMARY_NAME, (json.dumps(asdict(self), indent=1) + "\n").encode())

    def line(self, path: Path) -> str:
        """The statistics as one line of the log."""
        total = sum(self.mass.values())
        return (
            f"{path}: {self.n_windows} windows of {self.n_soundscapes} soundscapes, "
            f"{self.kept:.0%} of them drawn from, {total / self.n_windows:.2f} species a window"
        )


def made_by(
    teachers: Mapping[str, str],
    smoothing: Sequence[float],
    files: Sequence[SoundFile],
    pseudo: Pseudo,
    outside: Mapping[str, provenance.MadeBy] | None = None,
) -> dict[str, Any]:
    """The inputs that the probabilities depend on, as JSON values.

    Parameters
    ----------
    teachers : name of a model → sha256 of its checkpoint
    outside : name of a teacher from outside → what its answers depend on
    """
    of_others = {"outside": dict(outside)} if outside else {}
    listed = [f"{f.path.name} {f.n_windows} {f.path.stat().st_size}" for f in files]
    return of_others | {
        "version": VERSION,
        "teachers": dict(teachers),
        "output": pseudo.output,
        "shifts": list(pseudo.shifts),
        "out_of_fold": pseudo.out_of_fold,
        "smoothing": list(smoothing),
        "soundscapes": hashlib.sha256("\n".join(listed).encode()).hexdigest(),
    }


def can_be_kept(path: Path, wanted: provenance.MadeBy) -> bool:
    """Whether there is a table that was made from the wanted inputs; a damaged one is named."""
    if not path.is_file():
        return False
    try:
        return provenance.can_be_kept(wanted, read(path).made_by)
    except UserError as error:
        LOG.warning(f"{error}; it is made again")
        return False


def write(
    path: Path,
    files: Sequence[SoundFile],
    scores: Sequence[Scores],
    classes: Sequence[str],
    metadata: Mapping[str, Any],
) -> None:
    """Write the table whole, or not at all.

    Parameters
    ----------
    scores : (windows, classes) of each file; None where it could not be scored
    metadata : `made_by`, and `failures`: file name → why it has no scores
    """
    known = [(file, rows) for file, rows in zip(files, scores, strict=True) if rows is not None]
    if not known:
        why = "; ".join(metadata["failures"].values())
        raise UserError(
            f"no soundscape could be scored ({why or 'none there'}); "
            "pseudo labels need train_soundscapes/"
        )
    counts = [len(rows) for _, rows in known]
    names = np.repeat([file.path.name for file, _ in known], counts)
    windows = np.concatenate([np.arange(count) for count in counts])
    cells = np.concatenate([rows for _, rows in known])
    columns = [
        pa.array(names).dictionary_encode(),
        pa.array(windows, pa.int32()),
        *(pa.array(cells[:, column]) for column in range(len(classes))),
    ]
    keys = [_unused(key, classes) for key in ("soundscape", "window")]
    table = pa.table(columns, [*keys, *classes])
    checked = {**metadata, CHECKSUM: _checksum(_labels(table, metadata))}
    table = table.replace_schema_metadata({METADATA_KEY: json.dumps(checked)})
    content = BytesIO()
    pq.write_table(table, content, compression="zstd")
    write_whole(path, content.getvalue())


def _unused(name: str, classes: Sequence[str]) -> str:
    """A column's name where no class has it, else another one; columns are read by their place."""
    return _unused(f"_{name}", classes) if name in classes else name


def read(path: Path) -> Labels:
    """Read a table of pseudo labels. Raises `UserError` for any other file, and for a damaged one."""
    try:
        table = pq.read_table(path)
        metadata = dict(json.loads(table.schema.metadata[METADATA_KEY]))
        labels = _labels(table, metadata)
    except Exception as error:  # parquet, its codecs and JSON each fail in their own way
        why = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise UserError(f"{path}: no pseudo labels of this kit ({why}); remove it") from error
    if metadata.get(CHECKSUM, checksum := _checksum(labels)) != checksum:
        raise UserError(f"{path}: damaged, its checksum differs; remove it")
    return labels


def _labels(table: pa.Table, metadata: Mapping[str, Any]) -> Labels:
    codes = table.column(0).combine_chunks()
    classes = table.column_names[2:]
    return Labels(
        tuple(codes.dictionary.to_pylist()),
        codes.indices.to_numpy().astype(np.int64),
        table.column(1).to_numpy().astype(np.int64),
        np.stack([column.to_numpy() for column in table.columns[2:]], axis=1),
        tuple(classes),
        metadata["made_by"],
        metadata["failures"],
    )


def _checksum(labels: Labels) -> str:
    """The hexadecimal SHA-256 of all that a table holds."""
    texts = [labels.names, labels.classes, labels.made_by, labels.failures]
    digest = hashlib.sha256(json.dumps(texts).encode())
    for array in (labels.file, labels.window, labels.scores):
        digest.update(array.tobytes())
    return digest.hexdigest()


def transformed(
    scores: NDArray[np.float32], pseudo: Pseudo
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Teacher probabilities → targets and probabilities of being drawn.

    Thresholds are on the probabilities, before the power.

    Parameters
    ----------
    scores : (windows, classes) probabilities, NaN where no teacher knows the class

    Returns
    -------
    targets : (windows, classes) in 0..1, NaN where the teacher is unsure or doesn't know the class
    chances : (windows,) probabilities of being drawn, sum 1

    Raises
    ------
    UserError
        Where no window is kept.
    """
    targets = np.where(scores < pseudo.zero_below, 0.0, scores) ** pseudo.power
    targets[scores >= pseudo.one_from] = 1.0
    surest, known = np.nan_to_num(scores).max(axis=1), ~np.isnan(scores).all(axis=1)
    sure_enough = known & (surest >= pseudo.keep_above)
    given = np.nan_to_num(targets)
    worth = {"none": np.ones(len(given)), "max": given.max(axis=1), "sum": given.sum(axis=1)}
    chance = np.where(sure_enough, worth[pseudo.weighting], 0.0).astype(np.float64)
    if not chance.sum() > 0:
        raise UserError(
            f"pseudo.keep_above {pseudo.keep_above:g}, zero_below {pseudo.zero_below:g}: no window is "
            f"left (the surest has {surest.max():.3g}); lower them"
        )
    low, high = pseudo.unsure or (1.0, 1.0)
    targets = np.where((scores >= low) & (scores < high), np.nan, targets)
    return targets.astype(np.float32), chance / chance.sum()


def windows_of(
    labels: Labels, pseudo: Pseudo, soundscapes: Sequence[Path], leave_out: Sequence[str] = ()
) -> LabelledWindows:
    """The windows that a student draws; it draws none of the soundscapes named in `leave_out`."""
    where = {path.name: path for path in soundscapes}
    targets, chance = transformed(labels.scores, pseudo)
    left_out = frozenset(leave_out)
    elsewhere = np.array([name in left_out for name in labels.names])
    chance = np.where(elsewhere[labels.file], 0.0, chance)
    if not chance.sum() > 0:
        raise UserError("pseudo.out_of_fold leaves this model no window; lower pseudo.keep_above")
    paths = tuple(where[name] for name in labels.names)
    return LabelledWindows(paths, labels.file, labels.window, targets, chance / chance.sum())


def summarise(labels: Labels, pseudo: Pseudo) -> Summary:
    """Sum up the targets of a round, of the classes that a teacher knows."""
    targets, chance = transformed(labels.scores, pseudo)
    known = np.flatnonzero(~np.isnan(labels.scores).all(axis=0))
    classes = [labels.classes[column] for column in known]
    mass = np.nan_to_num(targets[:, known]).sum(axis=0, dtype=np.float64)
    spread = np.nanmax(labels.scores[:, known], axis=0) - np.nanmin(labels.scores[:, known], axis=0)
    return Summary(
        output=pseudo.output,
        n_windows=len(targets),
        n_soundscapes=len(labels.names),
        kept=float(np.mean(chance > 0)),
        mass=dict(zip(classes, mass.tolist(), strict=True)),
        spread=dict(zip(classes, spread.tolist(), strict=True)),
    )
