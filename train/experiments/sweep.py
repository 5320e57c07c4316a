"""Trains variants of a recipe over seeds, several at a time, and compares each with the first one.

A sweep is a TOML file:

    recipe = "mini"              # of every variant
    data = ["DIR"]
    seeds = [0, 1, 2]
    set = ["fit.epochs=5"]       # as for train/run.py

    [[variants]]                 # the one that the others are compared with
    name = "plain"
    [[variants]]
    name = "focal"
    set = ["fit.loss='focal'"]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from statistics import median
from typing import Annotated

from birdkit.errors import UserError
from birdkit.files import is_plain, write_whole
from train.config import recipe as recipes
from train.config.build import build
from train.config.settings.ranges import LARGEST_SEED, Range
from train.experiments import comparison
from train.rounds import plan

RUN = Path(__file__).resolve().parents[1] / "run.py"
TABLE_NAME, TIMES_NAME = "sweep.md", "times.json"


@dataclass(frozen=True)
class Variant:
    """An entry of [[variants]]: another recipe, or other settings."""

    name: str = ""
    recipe: str = ""  # the sweep's where it is empty
    set: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sweep:
    """Which recipes train on which data, with which seeds."""

    recipe: str = "mini"
    data: tuple[str, ...] = ()
    seeds: tuple[Annotated[int, Range(0, LARGEST_SEED)], ...] = (0, 1, 2)
    set: tuple[str, ...] = ()
    variants: tuple[Variant, ...] = ()


@dataclass(frozen=True)
class Training:
    """A run of train/run.py."""

    variant: str
    seed: int
    folder: Path
    arguments: tuple[str, ...]

    @property
    def log(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.log")

    def start(self, threads: int) -> subprocess.Popen[bytes]:
        """Begin it, or go on with it, on so many threads; what it says goes to its log."""
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        with self.log.open("wb") as log:
            command = [sys.executable, str(RUN), *self.arguments]
            return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)

    def last_line(self) -> str:
        """What its log ends with."""
        lines = self.log.read_text(errors="replace").split("\n") if self.log.is_file() else []
        return next((line for line in reversed(lines) if line.strip()), "it said nothing")


def read(path: Path) -> Sweep:
    """Read a sweep. Raises `UserError` for what it can't be, before anything trains."""
    try:
        sweep = build(Sweep, recipes.read_toml(path), str(path))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give the TOML file of a sweep") from error
    names = [variant.name for variant in sweep.variants]
    if len(names) < 2 or not sweep.seeds or not sweep.data:
        raise UserError(f"{path}: needs data, seeds and at least two [[variants]]")
    for name in names:
        if not is_plain(name) or names.count(name) > 1:
            raise UserError(f"{path}: variant '{name}': needs a name of its own, one for a folder")
    if len({*sweep.seeds}) < len(sweep.seeds):
        raise UserError(f"{path}: seeds {list(sweep.seeds)}: each may be there once")
    for variant in sweep.variants:
        try:
            recipes.load(variant.recipe or sweep.recipe, [*sweep.set, *variant.set])
        except UserError as error:
            raise UserError(f"{path}: variant '{variant.name}': {error}") from error
    return sweep


def trainings(sweep: Sweep, out: Path, more: Sequence[str]) -> list[Training]:
    """All of them, seed by seed, so that all variants can be compared early.

    Parameters
    ----------
    more : further arguments of train/run.py
    """
    return [
        _training(sweep, variant, seed, out, more) for seed in sweep.seeds for variant in sweep.variants
    ]


def folder_of(out: Path, variant: str, seed: int) -> Path:
    """The run's folder of a variant and a seed."""
    return out / f"{variant}-{seed}"


def _training(sweep: Sweep, variant: Variant, seed: int, out: Path, more: Sequence[str]) -> Training:
    folder = folder_of(out, variant.name, seed)
    arguments = ["--recipe", variant.recipe or sweep.recipe, "--out", str(folder)]
    for data in sweep.data:
        arguments += ["--data", data]
    for setting in [*sweep.set, *variant.set, f"fit.seed={seed}"]:
        arguments += ["--set", setting]
    return Training(variant.name, seed, folder, (*arguments, *more))


@dataclass
class Table:
    """The comparison of all that is finished so far.

    Parameters
    ----------
    set_name : the set that judges
    failed : names of trainings that have no row, since they failed
    """

    sweep: Sweep
    out: Path
    set_name: str
    failed: set[str] = field(default_factory=set)
    minutes: dict[str, float] = field(default_factory=dict)  # run → what it took, interruptions aside

    def __post_init__(self) -> None:
        path = self.out / TIMES_NAME
        with suppress(OSError, ValueError):  # times of a damaged file are no loss
            self.minutes |= json.loads(path.read_text())

    def took(self, training: Training, minutes: float) -> None:
        """Count what a training took."""
        self.minutes[training.folder.name] = minutes
        write_whole(self.out / TIMES_NAME, (json.dumps(self.minutes, indent=2) + "\n").encode())

    def markdown(self) -> str:
        """A row for each variant and output, of the seeds of which both runs are finished."""
        lines = [
            f"| variant | output | macro-AUC on {self.set_name} | gain, by seed | mean gain | verdict "
            "| min a run |",
            "|---|---|---|---|---|---|---|",
        ]
        return "\n".join([*lines, *self._rows()])

    def _rows(self) -> Iterator[str]:
        first, *others = [variant.name for variant in self.sweep.variants]
        for name in [first, *others]:
            seeds = [
                s for s in self.sweep.seeds if self._is_there(name, s) and self._is_there(first, s)
            ]
            if not seeds:
                yield f"| {name} | | | | | not finished | |"
                continue
            runs, firsts = ([folder_of(self.out, of, seed) for seed in seeds] for of in (name, first))
            gains = comparison.gains(list(map(comparison.pair, runs, repeat(self.set_name), firsts)))
            minutes = [self.minutes[run.name] for run in runs if run.name in self.minutes]
            cost = f"{median(minutes):.0f}" if minutes else ""
            # The last rows are the ensembles', or those of the only model.
            for gain in (gain for gain in gains if gain.model == gains[-1].model):
                yield f"| {name} | {gain.output} | {_cells(gain, is_first=name == first)} | {cost} |"

    def _is_there(self, variant: str, seed: int) -> bool:
        run = folder_of(self.out, variant, seed)
        return run.name not in self.failed and plan.is_finished(run)


def _cells(gain: comparison.Gain, *, is_first: bool) -> str:
    figures = comparison.spread(gain.after)
    if is_first:
        return f"{figures} | | | compared with"
    return f"{figures} | {gain.by_run} | {gain.mean} | {gain.verdict}".replace("-0", "−0")
