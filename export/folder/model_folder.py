"""The folder that export writes and the submission reads."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import pandas as pd

from birdkit.detections.species import TAXONOMY_NAME
from birdkit.errors import UserError
from birdkit.kaggle import class_folders
from birdkit.kaggle.mounts import soundscapes, train_soundscapes
from birdkit.scoring.ensemble import SPEC_NAME
from export.gates import parity
from export.gates.parity import Parity
from train.data.bad_files import body_fault
from train.rounds.class_table import names_of

DEFAULT = Path(__file__).resolve().parents[2] / "submission" / "model"
PARITY_NAME = "parity.json"
SUFFIXES = (".onnx", ".xml", ".bin", ".tflite", ".npz", ".json", ".md")
# Two minutes of real audio are 24 windows, enough for every batch size in seconds.
GATE_RECORDINGS = 2
GATE_SHORT_RECORDINGS = 6  # which may last seconds only


def refuse_foreign(folder: Path) -> None:
    """Raise `UserError` where a folder holds something other than models of this kit."""
    if folder.exists() and not (folder / SPEC_NAME).is_file() and any(folder.iterdir()):
        raise UserError(f"{folder}: not a model folder, so it is not replaced; give another --out")
    for path in folder.glob("*"):
        known = path.suffix in SUFFIXES or path.name == TAXONOMY_NAME
        if not path.is_file() or not known:
            raise UserError(f"{path}: is no part of a model folder; move it, or give another --out")


def replace(folder: Path, staged: Path) -> None:
    """Put a finished folder in the place of an older one; `staged` lies in a scratch folder."""
    old = staged.parent / "old"
    if folder.exists():
        os.replace(folder, old)
    try:
        os.replace(staged, folder)
    except BaseException:
        if old.exists():
            os.replace(old, folder)
        raise


def read_parity(folder: Path) -> dict[str, list[Parity]]:
    """Member → its comparisons; none where the file is absent."""
    path = folder / PARITY_NAME
    if not path.is_file():
        return {}
    table = json.loads(path.read_text())
    return {name: [Parity(**figures) for figures in listed] for name, listed in table.items()}


def with_parity(
    report: Mapping[str, Sequence[Parity]], added: Mapping[str, Parity]
) -> dict[str, list[Parity]]:
    """Comparisons with a newer one for some members; it replaces the one in the same engine."""
    merged = {member: list(compared) for member, compared in report.items()}
    for member, comparison in added.items():
        others = [older for older in merged.get(member, []) if older.engine != comparison.engine]
        merged[member] = [*others, comparison]
    return merged


def write_parity(folder: Path, report: Mapping[str, Sequence[Parity]]) -> None:
    table = {name: [asdict(comparison) for comparison in of] for name, of in report.items()}
    (folder / PARITY_NAME).write_text(json.dumps(table, indent=2) + "\n")


def write_names(folder: Path, classes: Sequence[str], data: Path) -> None:
    """Write the names that a data folder gives classes, which tables of detections show; or nothing."""
    names = names_of([data]).reindex(pd.Index(classes, name="primary_label")).dropna(how="all")
    if len(names):
        names.to_csv(folder / TAXONOMY_NAME)


def gate_recordings(data: Path | None) -> list[Path]:
    """Real audio for the parity gate; none where no data folder is given.

    Soundscapes, or where there are none recordings of the folders of classes, from class to class.
    """
    if data is None:
        return []
    folder, count, why = train_soundscapes(data), GATE_RECORDINGS, ""
    sounds = soundscapes(folder) if folder.is_dir() else []
    if not sounds:
        try:
            sounds, count = class_folders.find(data).in_turn(), GATE_SHORT_RECORDINGS
        except UserError as error:
            why = f" ({error})"
    good = (path for path in sounds if body_fault(path, max_s=parity.HEARD_S) is None)
    recordings = list(islice(good, count))
    if not recordings:
        raise UserError(
            f"{folder}: no sound files for the parity gate{why}; leave --data out, or give others"
        )
    return recordings
