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
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Annotated

from birdkit.engines.layout import usable_cores
from birdkit.errors import UserError
from birdkit.files import is_plain
from train.config import recipe as recipes
from train.config.build import build
from train.config.settings.ranges import LARGEST_SEED, Range
from train.models import checkpoint
from train.rounds import comparison

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
    def is_finished(self) -> bool:
        return (self.folder / checkpoint.RECIPE_NAME).is_file()

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
        sweep = build(Sweep, tomllib.loads(path.read_text()), str(path))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give the TOML file of a sweep") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {error}") from error
    names = [variant.name for variant in sweep.variants]
    if len(names) < 2 or not sweep.seeds or not sweep.data:
        raise UserError(f"{path}: needs data, seeds and at least two [[variants]]")
    for name in names:
        if not is_plain(name) or names.count(name) > 1:
            raise UserError(f"{path}: variant '{name}': needs a name of its own, one for a folder")
    for variant in sweep.variants:
        recipes.load(variant.recipe or sweep.recipe, [*sweep.set, *variant.set])
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


def _training(sweep: Sweep, variant: Variant, seed: int, out: Path, more: Sequence[str]) -> Training:
    folder = out / f"{variant.name}-{seed}"
    arguments = ["--recipe", variant.recipe or sweep.recipe, "--out", str(folder)]
    for data in sweep.data:
        arguments += ["--data", data]
    for setting in [*sweep.set, *variant.set, f"fit.seed={seed}"]:
        arguments += ["--set", setting]
    return Training(variant.name, seed, folder, (*arguments, *more))


def most_at_once(gib_a_training: float) -> int:
    """One for each core that there is memory for: many on a thread each train more than one on all."""
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return max(1, min(usable_cores(), int(available / gib_a_training)))


@dataclass
class Table:
    """The comparison of all that is finished so far.

    Parameters
    ----------
    set_name : the set that judges
    """

    sweep: Sweep
    out: Path
    set_name: str
    minutes: dict[str, float] = field(default_factory=dict)  # run → what it took, all starts together

    def __post_init__(self) -> None:
        path = self.out / TIMES_NAME
        self.minutes |= json.loads(path.read_text()) if path.is_file() else {}

    def took(self, training: Training, minutes: float) -> None:
        """Count what a training took."""
        name = training.folder.name
        self.minutes[name] = self.minutes.get(name, 0.0) + minutes
        (self.out / TIMES_NAME).write_text(json.dumps(self.minutes, indent=2) + "\n")

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
            runs = [(self.out / f"{name}-{seed}", self.out / f"{first}-{seed}") for seed in seeds]
            pairs = [comparison.pair(run, self.set_name, against) for run, against in runs]
            found = comparison.gains(pairs)
            minutes = [self.minutes[run.name] for run, _ in runs if run.name in self.minutes]
            cost = f"{median(minutes):.0f}" if minutes else ""
            # The last rows are the ensembles', or those of the only model.
            for gain in (gain for gain in found if gain.model == found[-1].model):
                yield f"| {name} | {gain.output} | {_cells(gain, is_first=name == first)} | {cost} |"

    def _is_there(self, name: str, seed: int) -> bool:
        return (self.out / f"{name}-{seed}" / checkpoint.RECIPE_NAME).is_file()


def _cells(gain: comparison.Gain, *, is_first: bool) -> str:
    figures = comparison.spread(gain.after)
    if is_first:
        return f"{figures} | | | compared with"
    return f"{figures} | {gain.by_run} | {gain.mean} | {gain.verdict}".replace("-0", "−0")
