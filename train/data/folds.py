"""Splits recordings and soundscapes into training, validation and out-of-fold parts."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from sklearn.model_selection import StratifiedGroupKFold

from birdkit.errors import UserError
from train.config.settings import Data
from train.data.competition import Recording
from train.data.soundscapes import LabelledSoundscape

# The end of a soundscape's name after the site: `[site]_[date]_[local time]`; 2021 had no time.
_DATE_AND_TIME = re.compile(r"_\d{8}(_\d{4,6})?$")


def split_recordings(
    recordings: Sequence[Recording], data: Data, seed: int
) -> tuple[list[Recording], list[Recording], str]:
    """Training and held-out recordings: StratifiedGroupKFold by author, and a line on what it did.

    A class whose every recording would be held out keeps them in training.
    """
    if data.fold < 0:
        return list(recordings), [], "all recordings train, none is held out"
    _require_enough(recordings, data)
    labels = [recording.primary for recording in recordings]
    authors = [recording.author for recording in recordings]
    folds = StratifiedGroupKFold(data.n_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # Classes with fewer recordings than folds are in some folds only.
        warnings.filterwarnings("ignore", "The least populated class")
        held = set(list(folds.split(labels, labels, authors))[data.fold][1].tolist())
    trained = {labels[i] for i in range(len(labels)) if i not in held}
    rescued = {i for i in held if labels[i] not in trained}
    train = [r for i, r in enumerate(recordings) if i not in held or i in rescued]
    held_out = [r for i, r in enumerate(recordings) if i in held and i not in rescued]
    by = "author" if len(set(authors)) < len(authors) else "recording, since no author has two"
    line = f"fold {data.fold} of {data.n_folds} by {by}: {len(train)} train, {len(held_out)} held out"
    if rescued:
        line += f" ({len(rescued)} kept in training: their classes have no others)"
    return train, held_out, line


def _require_enough(recordings: Sequence[Recording], data: Data) -> None:
    largest_class = max(Counter(recording.primary for recording in recordings).values())
    most = min(len({recording.author for recording in recordings}), largest_class)
    if most < data.n_folds:
        raise UserError(
            f"data.n_folds {data.n_folds} is more than these recordings allow ({most}: authors, or "
            "recordings of a class); lower it, or set data.fold=-1 to train on everything"
        )


def split_soundscapes(
    labelled: Sequence[LabelledSoundscape], data: Data
) -> tuple[Sequence[LabelledSoundscape], Sequence[LabelledSoundscape]]:
    """Labelled soundscapes that train, and those that validate, as `data.labelled` says.

    For "split", every n_folds-th site validates, from the fold-th on.
    """
    if data.labelled == "train":
        return labelled, ()
    if data.labelled == "validate" or not labelled:
        return (), labelled
    sites = sorted({site_of(soundscape.path) for soundscape in labelled})
    if len(sites) < 2:
        raise UserError(
            "data.labelled = 'split' needs labelled soundscapes of two sites or more; "
            "set it to 'validate' or 'train'"
        )
    n_parts = min(data.n_folds, len(sites))
    held = {site for i, site in enumerate(sites) if i % n_parts == max(0, data.fold) % n_parts}
    train = [soundscape for soundscape in labelled if site_of(soundscape.path) not in held]
    return train, [soundscape for soundscape in labelled if site_of(soundscape.path) in held]


def site_of(soundscape: Path) -> str:
    """The site: `H01_20240501_050000.ogg` → H01, and `BC2026_Train_<id>_<site>_…` → <site>."""
    return _DATE_AND_TIME.sub("", soundscape.stem).rpartition("_")[2]


def left_out_of_fold(soundscapes: Sequence[Path], name: str, among: Sequence[str]) -> list[str]:
    """Names of the soundscapes that a model does not train on, so that it can label them.

    They are divided evenly among the models; none is left out where `among` is empty.
    """
    if not among:
        return []
    return [path.name for path in soundscapes[among.index(name) :: len(among)]]
