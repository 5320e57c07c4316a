"""What a run will do: rounds, models, steps, time, and what is done already."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import torch

from birdkit.contract import Contract
from birdkit.errors import UserError
from train.config import recipe
from train.config.settings import Recipe, Round
from train.fit.trainer import Trainer, steps_per_epoch
from train.models import checkpoint
from train.models.sed import Predictor

PROBE_BATCHES = (2, 6)  # samples of the timed steps: one costs so much, and each sample so much more
# A forward pass costs about a third of a training step.
FORWARD_SHARE = 1 / 3


@dataclass(frozen=True)
class Member:
    """A model that a round trains."""

    name: str
    config: Recipe  # for this model alone
    folder: Path
    start: Path | None = None  # the checkpoint that it goes on from

    @property
    def final(self) -> Path:
        return self.folder / checkpoint.FINAL_NAME

    def steps(self, n_recordings: int) -> int:
        return self.config.fit.epochs * steps_per_epoch(self.config.fit, n_recordings)


@dataclass(frozen=True)
class Stage:
    """A round, its folder and its models."""

    index: int
    round: Round
    folder: Path
    members: tuple[Member, ...]


def stages(config: Recipe, out: Path) -> list[Stage]:
    found: list[Stage] = []
    for index, each in enumerate(recipe.every_round(config)):
        folder = out / checkpoint.ROUND_NAME.format(index)
        starts = {m.name: m.final for m in found[-1].members} if found and each.warm else {}
        members = tuple(
            Member(name, recipe.for_member(config, index, name), folder / name, starts.get(name))
            for name in each.models
        )
        found.append(Stage(index, each, folder, members))
    return found


def finished(folder: Path) -> Stage:
    """The last round of a finished run, or the round whose folder is given.

    Raises `UserError` where the run is not finished.
    """
    is_round = re.fullmatch(checkpoint.ROUND_NAME.format(r"\d+"), folder.name) is not None
    run = folder.parent if is_round else folder
    path = run / checkpoint.RECIPE_NAME
    if not path.is_file():
        raise UserError(
            f"{run}: no {checkpoint.RECIPE_NAME}, so no finished run; finish it with "
            "train/run.py, or give another RUN_DIR"
        )
    every = stages(recipe.from_dict(json.loads(path.read_text()), str(path)), run)
    if not is_round:
        return every[-1]
    found = [stage for stage in every if stage.folder.name == folder.name]
    if not found:
        raise UserError(f"{folder}: the run's recipe has {len(every)} rounds, the first of them 0")
    return found[0]


class Clock:
    """Seconds of a step of each encoder on this device, timed on a few samples."""

    def __init__(self, contract: Contract, device: torch.device) -> None:
        self.contract, self.device = contract, device
        self._step_s: dict[str, float] = {}

    def step_s(self, member: Member) -> float:
        encoder = member.config.models[0].encoder
        if encoder not in self._step_s:
            self._step_s[encoder] = self._probe(member.config)
        return self._step_s[encoder]

    def _probe(self, config: Recipe) -> float:
        predictor = Predictor(config.frontend, config.models[0], self.contract)
        trainer = Trainer(predictor, config, 2, self.device)
        few, more = PROBE_BATCHES
        few_s, more_s = self._best_s(trainer, few), self._best_s(trainer, more)
        each_s = max(more_s - few_s, 0.0) / (more - few)
        return few_s + each_s * (config.fit.batch - few)

    def _best_s(self, trainer: Trainer, n_samples: int) -> float:
        """Of a step of so many; the best of two, for whatever else runs here only adds to it."""
        generator = torch.Generator().manual_seed(0)
        sound = torch.rand(n_samples, self.contract.chunk_samples, generator=generator) - 0.5
        target = torch.zeros(n_samples, len(self.contract.classes))
        trainer.step(sound, target, 0)  # warms up
        times_s = []
        for _ in range(2):
            start = time.perf_counter()
            trainer.step(sound, target, 1)
            times_s.append(time.perf_counter() - start)
        return min(times_s)

    def told_s(self, teachers: Sequence[Member]) -> float:
        """Seconds for the teachers to answer a training batch."""
        return FORWARD_SHARE * sum(self.step_s(member) for member in teachers)

    def label_s(self, teachers: Sequence[Member], n_windows: int, n_passes: int) -> float:
        """Seconds for the teachers to score so many windows."""
        each_s = sum(self.step_s(member) / member.config.fit.batch for member in teachers)
        return FORWARD_SHARE * each_s * n_windows * n_passes


def describe(
    every: Sequence[Stage],
    clock: Clock,
    n_recordings: int,
    n_windows: int,
    done: Set[Path],
) -> list[str]:
    """The plan, a line a step.

    Parameters
    ----------
    n_recordings : that train
    n_windows : of the soundscapes that pseudo labels are made of
    done : checkpoints and pseudo labels that need not be made again
    """
    found, left_s = [], 0.0
    for stage in every:
        found.append(_headline(stage, n_windows))
        told_s = 0.0
        if stage.index:
            teachers = [m for m in every[stage.index - 1].members if m.name in stage.round.teacher]
            pseudo = stage.round.pseudo
            if pseudo.share:
                need_s = clock.label_s(teachers, n_windows, 1 + len(pseudo.shifts))
                is_done = stage.folder in done
                left_s += 0.0 if is_done else need_s
                found.append(f"  pseudo labels        {_status(is_done, need_s)}")
            if pseudo.distil:
                told_s = (1.0 - pseudo.after) * clock.told_s(teachers)
        for member in stage.members:
            steps = member.steps(n_recordings)
            need_s = steps * (clock.step_s(member) + told_s)
            is_done = member.final in done
            left_s += 0.0 if is_done else need_s
            model, fit = member.config.models[0], member.config.fit
            start = f" from round {stage.index - 1}'s" if member.start else ""
            found.append(
                f"  {member.name:<20} {model.encoder}{start}, {steps:,} steps of {fit.batch}, "
                f"{_status(is_done, need_s)}"
            )
    found.append(f"left to do: about {_duration(left_s)} on {clock.device}")
    return found


def _headline(stage: Stage, n_windows: int) -> str:
    if stage.index == 0:
        return "round 0: labelled data"
    pseudo = stage.round.pseudo
    into = " mixed into" if pseudo.mixing == "mixed" else ""
    windows = f" and {n_windows:,} pseudo-labelled windows ({pseudo.share:g} of samples{into})"
    fold = ", out of fold" if pseudo.out_of_fold else ""
    distil = f", {pseudo.distil:g} of each frame's target" if pseudo.distil else ""
    return (
        f"round {stage.index}: labelled data{windows if pseudo.share else ''}, "
        f"{pseudo.output} of {' + '.join(stage.round.teacher)}{fold}{distil}"
    )


def _status(is_done: bool, need_s: float) -> str:
    return "done already" if is_done else f"about {_duration(need_s)}"


def _duration(seconds: float) -> str:
    for limit_s, unit_s, unit in ((90.0, 1.0, "s"), (5400.0, 60.0, "min"), (float("inf"), 3600.0, "h")):
        if seconds < limit_s:
            return f"{seconds / unit_s:.0f} {unit}" if unit != "h" else f"{seconds / unit_s:.1f} h"
    raise AssertionError
