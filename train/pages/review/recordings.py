"""Recordings as a model scores them, and what is known of them otherwise."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from birdkit.contract import Contract
from birdkit.detections import species
from birdkit.engines.layout import one_stream, usable_cores
from birdkit.errors import UserError
from birdkit.grid import row_ids, windows_in
from birdkit.kaggle import mounts
from birdkit.recordings import folders
from birdkit.recordings.folders import Recording
from birdkit.recordings.models import ModelFolder
from birdkit.scoring import ensemble
from birdkit.scoring.ensemble import Ensemble, combine
from birdkit.scoring.parts import SoundFile
from birdkit.scoring.predict import Scores, predict
from train.data import progress, tables
from train.data.bad_files import look_at_all
from train.data.competition import read_labelled
from train.data.soundscapes import window_truth
from train.rounds import plan, pseudo_labels, teachers
from train.scoring.truth import read_truth

ID_DIGITS = 12  # of a hash that names a model


@dataclass(frozen=True)
class Model:
    """What scores, and the name that marks of its scores carry."""

    ensemble: Ensemble
    name: str
    pseudo: Path | None = None  # the table of the labels that trained it
    folder: Path | None = None  # of an exported one


@dataclass(frozen=True)
class Known:
    """What is known of the windows of one recording: as many rows as are known, (windows, classes)."""

    present: NDArray[np.bool_]
    decided: NDArray[np.bool_]  # nothing is known of the other cells


@dataclass(frozen=True)
class Recordings:
    """Recordings in order, with what a model says of each and what is known of it.

    `names` are paths below the folder; `scores` are (windows, classes), None for those of `failures`.
    `known` and `pseudo`, teacher probabilities (windows, classes), are by the recordings' numbers.
    """

    paths: tuple[Path, ...]
    names: tuple[str, ...]
    scores: tuple[Scores, ...]
    failures: dict[str, str]  # name → why it has no scores
    contract: Contract
    known: dict[int, Known] = field(default_factory=dict)
    pseudo: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    common_names: dict[str, str] = field(default_factory=dict)  # of classes, else scientific ones
    ambiguous: tuple[str, ...] = ()  # names of those that may have the pseudo labels of another one


def model_of_run(run_dir: Path, device: torch.device) -> Model:
    """The models of a finished run's last round, together, as they would label soundscapes."""
    stage = plan.finished(run_dir)
    teacher = teachers.Teacher.load({member.name: member.final for member in stage.members}, device)
    output = stage.members[0].job.pseudo.output
    made_of = {"models": teacher.hashes, "output": output, "postprocess": asdict(teacher.postprocess)}
    digest = hashlib.sha256(json.dumps(made_of, sort_keys=True, default=str).encode()).hexdigest()
    name = f"{stage.folder.resolve().parent.name}-{stage.folder.name}-{digest[:ID_DIGITS]}"
    table = stage.folder / pseudo_labels.NAME
    return Model(
        teacher.ensemble(tuple(teacher.finals), output), name, table if table.is_file() else None
    )


def model_of_folder(folder: Path) -> Model:
    """The models of an exported folder, on the fastest engine that works here.

    They have the name that `submission/detect.py` gives them in its tables.
    """
    name = ModelFolder(folder).name
    return Model(ensemble.load(folder, one_stream(usable_cores())).ensemble, name, folder=folder)


def find(folder: Path) -> tuple[list[Recording], dict[str, str]]:
    """The recordings that `submission/detect.py` finds in a folder, by the same names, and its faults.

    Raises `UserError` where there is none.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give a folder of recordings with --soundscapes DIR")
    return folders.find([folder])


def score(folder: Path, model: Model, data: Path | None = None) -> Recordings:
    """Score all windows of all recordings in a folder, and look up what is known of them.

    Parameters
    ----------
    data : competition folder with labels of the soundscapes; None: the folder around, if it has any
    """
    found, faults = find(folder)
    paths, names = [recording.path for recording in found], [recording.name for recording in found]
    contract = model.ensemble.contract
    lengths_s = (seconds for seconds, _ in look_at_all(paths))
    counts = [windows_in(seconds, contract.window_s) for seconds in lengths_s]
    files = [SoundFile(path, count) for path, count in zip(paths, counts, strict=True)]
    with tqdm(total=len(files), **progress.bar("scoring")) as bar:

        def report(*_: float) -> None:
            bar.update(1)

        prediction = predict(files, model.ensemble.score, contract, report=report)
    # As `submission/detect.py` does: a rank is a place among these recordings, which no threshold fits.
    scores = tuple(combine(prediction.scores, replace(model.ensemble.spec, averaging="probability")))
    unscored = [i for i, rows in enumerate(scores) if rows is None]
    failures = faults | {names[i]: prediction.failures[files[i].name] for i in unscored}
    if len(unscored) == len(paths):
        raise UserError(f"{folder}: no recording can be scored ({next(iter(failures.values()))})")
    data = data or _around(folder)
    known = _labelled(paths, data, contract) if data else {}
    pseudo, ambiguous = _pseudo(paths, model.pseudo, contract)
    return Recordings(
        tuple(paths),
        tuple(names),
        scores,
        failures,
        contract,
        known | _validation(paths, folder, contract),
        pseudo,
        {one.label: one.shown for one in species_of(folder, model, data)},
        tuple(names[number] for number in ambiguous),
    )


def _around(folder: Path) -> Path | None:
    """The competition folder that a folder of soundscapes lies in, if it does and labels them."""
    parent = folder.resolve().parent
    return parent if mounts.there(parent, tables.LABELS).is_file() else None


def _labelled(paths: Sequence[Path], data: Path, contract: Contract) -> dict[int, Known]:
    """What the labels of a competition folder say of those recordings that are its soundscapes."""
    numbers = {path.resolve(): number for number, path in enumerate(paths)}
    labelled, _ = read_labelled(data)
    known = {}
    for soundscape in labelled:
        number = numbers.get(soundscape.path.resolve())
        if number is not None:
            present, covered = window_truth(soundscape, contract.classes, contract.window_s)
            known[number] = Known(present, np.repeat(covered[:, None], present.shape[1], axis=1))
    return known


def _validation(paths: Sequence[Path], folder: Path, contract: Contract) -> dict[int, Known]:
    """What `truth.csv` says, where the folder is the `soundscapes/` of a validation folder."""
    if folder.resolve().name != "soundscapes" or not (folder.resolve().parent / "truth.csv").is_file():
        return {}
    table = read_truth(folder.resolve().parent)
    shared = [name for name in contract.classes if name in table.classes]
    columns = [contract.classes.index(name) for name in shared]
    counts = table.row_ids.str.rpartition("_").get_level_values(0).value_counts()
    known = {}
    for number, path in enumerate(paths):
        if path.stem not in counts.index or path.parent.resolve() != folder.resolve():
            continue
        ids = row_ids(path.stem, int(counts[path.stem]), contract.window_s)
        if not set(ids) <= set(table.row_ids):
            continue
        truth = table.select(ids, shared)
        present, decided = np.zeros((2, len(ids), len(contract.classes)), dtype=bool)
        present[:, columns], decided[:, columns] = truth.labels, truth.decided
        known[number] = Known(present, decided)
    return known


def _pseudo(
    paths: Sequence[Path], table: Path | None, contract: Contract
) -> tuple[dict[int, NDArray[np.float32]], list[int]]:
    """The teacher probabilities that trained the model, and recordings that may have those of others.

    The table knows a soundscape by its file name and its number of windows. Where several recordings
    have both, in several folders, nothing tells which of them trained the model, and none gets them.
    """
    if table is None:
        return {}, []
    labels = pseudo_labels.read(table)
    if labels.classes != contract.classes:
        return {}, []
    counts = np.bincount(labels.file, minlength=len(labels.names)).tolist()
    codes = {of_file: code for code, of_file in enumerate(zip(labels.names, counts, strict=True))}
    files = teachers.soundscape_files(paths, contract.window_s)
    keys = {number: (file.path.name, file.n_windows) for number, file in enumerate(files)}
    listed = {number: key for number, key in keys.items() if key in codes}
    n_alike = Counter(listed.values())
    alone = {number: codes[key] for number, key in listed.items() if n_alike[key] == 1}
    of_recording = {number: labels.scores[labels.file == code] for number, code in alone.items()}
    return of_recording, [number for number in listed if number not in alone]


def species_of(folder: Path, model: Model, data: Path | None) -> list[species.Species]:
    """The classes, named by the model folder's table first, as in tables of detections.

    Parameters
    ----------
    folder, data : as for `score`
    """
    data = data or _around(folder)
    listed = [model.folder / species.TAXONOMY_NAME] if model.folder else []
    listed += [data / mounts.TAXONOMY, mounts.there(data, mounts.RECORDINGS)] if data else []
    classes = model.ensemble.contract.classes
    return species.named_by(classes, [path for path in listed if path.is_file()])


def labels_of(names: Sequence[str], folder: Path, model: Model, data: Path | None) -> tuple[str, ...]:
    """The classes that names name: a class, or its scientific or common name.

    Raises `UserError` for a name of no class or of several.
    """
    known = species_of(folder, model, data)
    return tuple(known[i].label for i in species.indices(names, known, "--species"))
