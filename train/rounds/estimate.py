"""Describes a run's plan in words: rounds, models, steps, time, and what is done already."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from birdkit.contract import Contract
from birdkit.durations import in_words
from birdkit.errors import UserError
from train.config import provenance
from train.config.job import Job
from train.data.dataset import Dataset
from train.fit.loop import total_steps
from train.fit.trainer import Trainer
from train.models.sed import Predictor
from train.rounds.plan import Member, Stage

STORE_NAME = "steps.json"
LABELS = "pseudo labels"
# Samples of a timed step on a CPU, and such steps. Beside two samples what each step costs anyhow is
# large, so one that is quick is timed on eight.
PROBE_SAMPLES, PROBE_STEPS = (2, 8), 3
QUICK_S = 0.5
# A forward pass costs about a third of a training step.
FORWARD_SHARE = 1 / 3
# A time is kept for later plans where other processes made it no more than so many times longer.
MOST_LOAD = 2.0

# Seconds, (2,): with the machine to itself, and beside what else runs there now.
Seconds = NDArray[np.float64]


class Clock:
    """Seconds of a training step on this device, timed on a few samples once; a store keeps them.

    `at_a_time` says how many trainings of so many steps each run at a time.
    """

    def __init__(
        self,
        dataset: Dataset,
        device: torch.device,
        cache: Path,
        at_a_time: Callable[[Sequence[int]], int] = lambda n_steps: 1,
    ) -> None:
        self.dataset, self.device, self.at_a_time = dataset, device, at_a_time
        self._store = cache / STORE_NAME
        self._kept: dict[str, list[float]] = provenance.read_store(self._store)
        self._step_s: dict[str, Seconds] = {}

    def step_s(self, job: Job, at_a_time: int = 1) -> Seconds:
        """Seconds of a step of one of so many trainings at a time."""
        contract = self.dataset.contract(job)
        n_threads = max(1, torch.get_num_threads() // at_a_time)
        made_by = {
            "machine": [*platform.uname(), torch.__version__, n_threads],
            "device": torch.cuda.get_device_name() if self.device.type == "cuda" else "cpu",
            "job": [job.model.encoder, asdict(job.frontend), job.fit.batch, job.fit.amp],
            **({"mixmax": True} if job.fit.mixmax else {}),
            "contract": [contract.chunk_s, len(contract.classes)],
        }
        key = provenance.key(made_by)
        if key not in self._step_s:
            step_s = np.array(self._kept.get(key) or self._timed(job, contract, n_threads))
            if step_s[1] <= MOST_LOAD * step_s[0]:
                self._kept[key] = step_s.tolist()
                with suppress(OSError):  # without it, the next plan times the step again
                    provenance.write_store(self._store, self._kept)
            self._step_s[key] = step_s
        return self._step_s[key]

    def training_s(self, job: Job, at_a_time: int = 1) -> Seconds:
        """Seconds of a whole training, which is one of so many at a time."""
        return self.steps(job) * self.step_s(job, at_a_time)

    def steps(self, job: Job) -> int:
        """Steps of a whole training."""
        return total_steps(job.fit, self.n_recordings(job))

    def n_recordings(self, job: Job) -> int:
        """Recordings that train."""
        return len(self.dataset.recordings_of(job.data)[0])

    def label_s(self, teachers: Sequence[Member], n_windows: int, n_passes: int) -> Seconds:
        """Seconds for the teachers to score so many windows."""
        window_s = [self.step_s(member.job) / member.job.fit.batch for member in teachers]
        return FORWARD_SHARE * np.sum(window_s, axis=0) * n_windows * n_passes

    def _timed(self, job: Job, contract: Contract, n_threads: int) -> Seconds:
        predictor = Predictor(job.frontend, job.model, contract)
        before = torch.get_num_threads()
        torch.set_num_threads(n_threads)
        try:
            return _probe(Trainer(predictor, job, PROBE_STEPS, self.device), contract)
        except torch.OutOfMemoryError:
            raise UserError(
                f"fit.batch {job.fit.batch} of {job.model.encoder} is too large for the memory of "
                f"{self.device}; lower it"
            ) from None
        finally:
            torch.set_num_threads(before)


def _probe(trainer: Trainer, contract: Contract) -> Seconds:
    """Seconds of a step. A CPU's time grows with the samples, so that it is timed on a few.

    A neighbour's load adds to the time on the wall, up to thirtyfold: what the threads waited for a
    core is taken off again.
    """
    batch = trainer.job.fit.batch
    if trainer.device.type != "cpu":
        return _timed_steps(trainer, contract, batch)
    few, more = (min(batch, n) for n in PROBE_SAMPLES)
    step_s = _timed_steps(trainer, contract, few)
    if step_s[0] > QUICK_S:
        return step_s * batch / few
    return _timed_steps(trainer, contract, more) * batch / more


def _timed_steps(trainer: Trainer, contract: Contract, n_samples: int) -> Seconds:
    """Seconds of a step on so many samples."""
    on_cpu = trainer.device.type == "cpu"
    generator = torch.Generator().manual_seed(0)
    waveforms = torch.rand(n_samples, contract.chunk_samples, generator=generator) - 0.5
    target = torch.zeros(n_samples, len(contract.classes))
    wall_s, alone_s = [], []
    for _ in range(PROBE_STEPS):
        start, before = time.perf_counter(), _ran_and_waited()
        trainer.step(waveforms, target, 1)
        wall_s.append(time.perf_counter() - start)
        ran, waited = _ran_and_waited() - before
        alone_s.append(wall_s[-1] * (ran / (ran + waited) if on_cpu and ran > 0 else 1.0))
    return np.array([min(alone_s), np.median(wall_s)])


def _ran_and_waited() -> Seconds:
    """Seconds that this process's threads have run, and have waited for a core; Linux counts both."""
    total = np.zeros(2)
    for path in Path("/proc/self/task").glob("*/schedstat"):
        with suppress(OSError):  # the thread has ended
            total += np.array(path.read_text().split()[:2], dtype=float) / 1e9
    return total


def describe(
    stages: Sequence[Stage], clock: Clock, n_windows: Mapping[int, int], done: Set[Path]
) -> Iterator[str]:
    """The plan, a line a step, and then what each step takes, as soon as its models are timed.

    Parameters
    ----------
    n_windows : index of a round → windows of the soundscapes that its teacher labels
    done : checkpoints, and folders of pseudo labels, that need not be made again
    """
    for stage in stages:
        yield _headline(stage, n_windows.get(stage.index, 0))
        if stage.draws_soundscapes:
            yield f"  {LABELS:<20} {_status(stage.folder in done)}"
        for member in stage.members:
            yield f"{_training(stage, member, clock)}, {_status(member.final in done)}"
    left_s = np.zeros(2)
    for name, need_s, at_a_time in _times(stages, clock, n_windows, done):
        left_s += need_s / at_a_time
        beside = f", {at_a_time} at a time" if at_a_time > 1 else ""
        yield f"{name}: about {_range(need_s)}{beside}"
    at_most = "at most " if any(stage.round.must_gain for stage in stages) and left_s.any() else ""
    yield f"left to do: {at_most}about {_range(left_s)} on {clock.device}"


def _times(
    stages: Sequence[Stage], clock: Clock, n_windows: Mapping[int, int], done: Set[Path]
) -> Iterator[tuple[str, Seconds, int]]:
    """What there is to do, how long it takes, and how many such are done at a time."""
    for stage in stages:
        if stage.draws_soundscapes and stage.folder not in done:
            teachers = stage.teachers(stages[stage.index - 1] if stage.index else None)
            n_passes = 1 + len(stage.round.pseudo.shifts)
            need_s = clock.label_s(teachers, n_windows[stage.index], n_passes)
            yield f"round {stage.index}, {LABELS}", need_s, 1
        to_train = [member for member in stage.members if member.final not in done]
        at_a_time = clock.at_a_time([clock.steps(member.job) for member in to_train])
        for member in to_train:
            need_s = clock.training_s(member.job, at_a_time)
            yield f"round {stage.index}, {member.name}", need_s, at_a_time


def _headline(stage: Stage, n_windows: int) -> str:
    if not stage.round.teacher:
        return "round 0: labelled data"
    pseudo = stage.round.pseudo
    windows = ""
    if stage.draws_soundscapes:
        into = " mixed into" if pseudo.mixing == "mixed" else ""
        windows = f" and {n_windows:,} pseudo-labelled windows ({pseudo.share:g} of samples{into})"
    fold = ", out of fold" if pseudo.out_of_fold else ""
    teachers = " + ".join(stage.round.teacher)
    kept = "; must gain, or the run ends before it" if stage.round.must_gain else ""
    return f"round {stage.index}: labelled data{windows}, {pseudo.output} of {teachers}{fold}{kept}"


def _training(stage: Stage, member: Member, clock: Clock) -> str:
    job = member.job
    start = f" from round {stage.index - 1}'s" if member.start else ""
    n_steps, n_recordings = clock.steps(job), clock.n_recordings(job)
    draws = f"{n_steps * job.fit.batch / n_recordings:.2g} draws for each"
    steps = f"{n_steps:,} steps of {job.fit.batch} ({draws} of {n_recordings:,} recordings)"
    if job.fit.distil_from:
        steps += f", {job.fit.distil_weight:g} of the loss on embeddings of {job.fit.distil_from}"
    return f"  {member.name:<20} {job.model.encoder}{start}, {steps}"


def _status(is_done: bool) -> str:
    return "done already" if is_done else "to do"


def _range(seconds: Seconds) -> str:
    """Both ends of a time, or the one figure that they share."""
    # To two digits, for an estimate has no more of them.
    low, high = (in_words(float(f"{end:.2g}")) for end in seconds)
    return low if low == high else f"{low} to {high}"
