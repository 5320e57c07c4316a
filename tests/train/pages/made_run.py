"""Folders of runs that no training made: what a run stores, with known figures, in milliseconds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd

from tests.conftest import TINY
from train.config import recipe as recipes
from train.models import checkpoint
from train.rounds import class_table
from train.rounds.pseudo_labels import Summary
from train.scoring import summary
from train.scoring.summary import ENSEMBLE, Header, Scored
from train.scoring.truth import Truth

OUTPUTS = ("clipwise", "segmentwise")
MODELS = ("test_resnet", "test_resnet-2")
SETS = ("soundscapes", "validation")
N_FILES, N_WINDOWS = 8, 6


def make_run(
    folder: Path,
    classes: Sequence[str],
    seed: int = 0,
    *,
    truth_seed: int = 0,
    sets: Sequence[str] = SETS,
) -> Path:
    """A finished run of two rounds of two models, scored on one set or two.

    Where there is more than one class, the last one never calls.
    """
    recipe = recipes.load("demo", [*TINY, "name=made"])
    table = json.loads(recipes.to_json(recipe))
    table["models"] = [table["models"][0]] * 2
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    tables, last = [], list[Scored]()
    for index in range(2):
        round_dir = folder / checkpoint.ROUND_NAME.format(index)
        for name in MODELS:
            _write_history(round_dir / name, rng)
        truths = (_truth(len(classes), truth_seed + number) for number in range(2))
        scored = [
            _scored(name, truth, classes, index, rng) for name, truth in zip(sets, truths, strict=False)
        ]
        for of_set in scored:
            of_set.save(summary.scores_path(round_dir, of_set.header.name))
        with mock.patch.object(summary, "DRAWS", 2):
            tables.append(summary.of_round(index, scored, last))
        last = scored
    summary.write(tables, folder)
    _labels(classes).save(folder / "round1")
    (folder / checkpoint.RECIPE_NAME).write_text(json.dumps(table))
    return folder


def write_classes(folder: Path, classes: Sequence[str], names: Sequence[str]) -> None:
    """`classes.csv`: the n-th class has n recordings."""
    columns = {"class": classes, "n_recordings": range(len(classes)), "n_windows": 0}
    columns |= {"common_name": names, "scientific_name": "", "class_name": "Aves"}
    pd.DataFrame(columns).to_csv(folder / class_table.NAME, index=False)


def _write_history(folder: Path, rng: np.random.Generator) -> None:
    folder.mkdir(parents=True)
    aucs = [dict(zip(OUTPUTS, rng.uniform(0.5, 1, 2).tolist(), strict=True)) for _ in range(2)]
    epochs = [{"loss": 0.5, "metrics": {"soundscapes": auc}} for auc in aucs]
    losses = rng.uniform(0.1, 0.9, 20).tolist()
    (folder / "history.json").write_text(json.dumps({"step": 20, "losses": losses, "epochs": epochs}))


def _truth(n_classes: int, seed: int) -> Truth:
    labels = np.random.default_rng(seed).random((N_FILES * N_WINDOWS, n_classes)) < 0.3
    labels[:, -1] &= n_classes == 1
    return Truth.of(labels, groups=np.repeat([f"file {i}" for i in range(N_FILES)], N_WINDOWS))


def _scored(
    name: str, truth: Truth, classes: Sequence[str], index: int, rng: np.random.Generator
) -> Scored:
    """Scores that are better in the second round."""
    noise = rng.random((len(OUTPUTS), 2, *truth.labels.shape), dtype=np.float32)
    scores = (noise + (0.1 + 0.3 * index) * truth.labels) / 1.5
    scores = np.concatenate([scores, scores.mean(axis=1, keepdims=True)], axis=1)
    header = Header(name, OUTPUTS, (*MODELS, ENSEMBLE), tuple(classes), {})
    return Scored(header, scores.astype(np.float32), truth)


def _labels(classes: Sequence[str]) -> Summary:
    """The first class has all the mass, and the teacher does not know the last one."""
    mass = {name: 12.0 * (number == 0) for number, name in enumerate(classes)}
    spread = {name: 0.5 * (name != classes[-1]) for name in classes}
    return Summary("segmentwise", 48, 8, 1.0, mass, spread)
