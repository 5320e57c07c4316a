"""Describes a run's plan in words: rounds, models, steps, time, and what is done already."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

import torch

from birdkit.contract import Contract
from train.config.job import Job
from train.data.dataset import Dataset
from train.fit.loop import total_steps
from train.fit.trainer import Trainer
from train.models.sed import Predictor
from train.rounds.plan import Member, Stage

PROBE_BATCHES = (2, 6)  # batch sizes of the timed steps; they give the cost of a step and of a sample
# A forward pass costs about a third of a training step.
FORWARD_SHARE = 1 / 3


class Clock:
    """Seconds of a training step on this device, timed on a few samples."""

    def __init__(self, dataset: Dataset, device: torch.device) -> None:
        self.dataset, self.device = dataset, device
        self._step_s: dict[tuple[object, ...], float] = {}

    def step_s(self, job: Job) -> float:
        key = (job.model.encoder, job.frontend, job.data.chunk_s, job.fit.batch)
        if key not in self._step_s:
            self._step_s[key] = self._probe(job)
        return self._step_s[key]

    def training_s(self, job: Job) -> float:
        """Seconds of a whole training."""
        return self.steps(job) * self.step_s(job)

    def steps(self, job: Job) -> int:
        """Steps of a whole training."""
        return total_steps(job.fit, self.n_recordings(job))

    def n_recordings(self, job: Job) -> int:
        """Recordings that train."""
        return len(self.dataset.recordings_of(job.data)[0])

    def label_s(self, teachers: Sequence[Member], n_windows: int, n_passes: int) -> float:
        """Seconds for the teachers to score so many windows."""
        window_s = sum(self.step_s(member.job) / member.job.fit.batch for member in teachers)
        return FORWARD_SHARE * window_s * n_windows * n_passes

    def _probe(self, job: Job) -> float:
        contract = self.dataset.contract(job)
        trainer = Trainer(Predictor(job.frontend, job.model, contract), job, 2, self.device)
        few, more = PROBE_BATCHES
        few_s, more_s = _best_s(trainer, contract, few), _best_s(trainer, contract, more)
        sample_s = max(more_s - few_s, 0.0) / (more - few)
        return few_s + sample_s * (job.fit.batch - few)


def _best_s(trainer: Trainer, contract: Contract, n_samples: int) -> float:
    """Seconds of a step of so many samples: the best of two, since other work here only adds to it."""
    generator = torch.Generator().manual_seed(0)
    waveforms = torch.rand(n_samples, contract.chunk_samples, generator=generator) - 0.5
    target = torch.zeros(n_samples, len(contract.classes))
    trainer.step(waveforms, target, 0)  # warms up
    times_s = []
    for _ in range(2):
        start = time.perf_counter()
        trainer.step(waveforms, target, 1)
        times_s.append(time.perf_counter() - start)
    return min(times_s)


def describe(
    stages: Sequence[Stage], clock: Clock, n_windows: Mapping[int, int], done: Set[Path]
) -> list[str]:
    """The plan, a line a step.

    Parameters
    ----------
    n_windows : index of a round → windows of the soundscapes that its teacher labels
    done : checkpoints, and folders of pseudo labels, that need not be made again
    """
    lines, left_s = [], 0.0
    for stage in stages:
        lines.append(_headline(stage, n_windows.get(stage.index, 0)))
        if stage.draws_soundscapes:
            teachers = stage.teachers(stages[stage.index - 1])
            n_passes = 1 + len(stage.round.pseudo.shifts)
            need_s = clock.label_s(teachers, n_windows[stage.index], n_passes)
            is_done = stage.folder in done
            left_s += 0.0 if is_done else need_s
            lines.append(f"  pseudo labels        {_status(is_done, need_s)}")
        for member in stage.members:
            need_s = clock.training_s(member.job)
            is_done = member.final in done
            left_s += 0.0 if is_done else need_s
            lines.append(f"{_training(stage, member, clock)}, {_status(is_done, need_s)}")
    lines.append(f"left to do: about {_duration(left_s)} on {clock.device}")
    return lines


def _headline(stage: Stage, n_windows: int) -> str:
    if stage.index == 0:
        return "round 0: labelled data"
    pseudo = stage.round.pseudo
    windows = ""
    if stage.draws_soundscapes:
        into = " mixed into" if pseudo.mixing == "mixed" else ""
        windows = f" and {n_windows:,} pseudo-labelled windows ({pseudo.share:g} of samples{into})"
    fold = ", out of fold" if pseudo.out_of_fold else ""
    teachers = " + ".join(stage.round.teacher)
    return f"round {stage.index}: labelled data{windows}, {pseudo.output} of {teachers}{fold}"


def _training(stage: Stage, member: Member, clock: Clock) -> str:
    job = member.job
    start = f" from round {stage.index - 1}'s" if member.start else ""
    n_steps, n_recordings = clock.steps(job), clock.n_recordings(job)
    draws = f"{n_steps * job.fit.batch / n_recordings:.2g} draws for each"
    steps = f"{n_steps:,} steps of {job.fit.batch} ({draws} of {n_recordings:,} recordings)"
    return f"  {member.name:<20} {job.model.encoder}{start}, {steps}"


def _status(is_done: bool, need_s: float) -> str:
    return "done already" if is_done else f"about {_duration(need_s)}"


def _duration(seconds: float) -> str:
    for limit_s, unit_s, unit in ((90.0, 1.0, "s"), (5400.0, 60.0, "min"), (float("inf"), 3600.0, "h")):
        if seconds < limit_s:
            return f"{seconds / unit_s:.0f} {unit}" if unit != "h" else f"{seconds / unit_s:.1f} h"
    raise AssertionError
