"""The folder that export writes and the submission reads."""

from __future__ import annotations

import os
from pathlib import Path

from birdkit.ensemble import SPEC_NAME
from birdkit.errors import UserError
from birdkit.kaggle import soundscapes

DEFAULT = Path(__file__).resolve().parents[1] / "submission" / "model"
PARITY_NAME = "parity.json"
# Two minutes of real audio are 24 windows: every batch size, and seconds of work.
GATE_RECORDINGS = 2


def replace(folder: Path, staged: Path) -> None:
    """Put a finished folder in the place of an older one; a failure leaves the older one there."""
    if folder.exists() and not (folder / SPEC_NAME).is_file() and any(folder.iterdir()):
        raise UserError(f"{folder}: not a model folder, so it is not replaced; give another --out")
    if folder.exists():
        os.replace(folder, staged.parent / "old")
    os.replace(staged, folder)


def gate_recordings(data: Path | None) -> list[Path]:
    """Soundscapes for the parity gate; none where no competition folder is given."""
    if data is None:
        return []
    found = soundscapes(data / "train_soundscapes")[:GATE_RECORDINGS]
    if not found:
        raise UserError(f"{data / 'train_soundscapes'}: no sound files for the parity gate")
    return found
