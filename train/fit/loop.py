"""A model's training from its first step to its last: validated each epoch, resumable to the bit.

A killed run that is resumed ends with the same weights as one that was not killed. Several processes
share each batch; only the first validates and saves.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from birdkit.contract import Contract
from birdkit.durations import in_words
from birdkit.errors import UserError
from birdkit.log import LOG, timed
from birdkit.signals import Stopped
from train.config.job import Job
from train.config.provenance import differences
from train.config.settings import Fit
from train.data.batches import Batches, Sources
from train.data.progress import bar
from train.fit.precision import choose_device
from train.fit.processes import Processes
from train.fit.stop import Stop
from train.fit.trainer import Trainer
from train.models import checkpoint
from train.models.sed import Predictor

# Output of validation: set of data → output → macro-AUC.
Metrics = dict[str, dict[str, float]]


@dataclass
class Progress:
    """The progress of a fit: `losses` has one entry a step, `epochs` one table of figures an epoch."""

    step: int = 0
    losses: list[float] = field(default_factory=list)
    epochs: list[dict[str, Any]] = field(default_factory=list)


def total_steps(fit: Fit, n_recordings: int) -> int:
    """Steps of a training on so many recordings."""
    once = max(1, fit.min_steps_per_epoch, math.ceil(n_recordings / fit.batch))
    return fit.epochs * (fit.steps_per_epoch or once)


def run_fit(
    trainer: Trainer,
    batches: Batches,
    validate: Callable[[Predictor], Metrics],
    state_path: Path,
    made_by: dict[str, Any],
    watch: Callable[[Progress], None],
    stop: Stop,
) -> Progress:
    """Train to the end, from the saved state where there is one.

    Parameters
    ----------
    validate : called after each epoch with the averaged model
    watch : called at the start and after each epoch, with all that is done by then
    stop : how long the run goes on

    Raises
    ------
    UserError
        Where the loss stops being a number.
    Stopped
        Where the run has to stop, its state saved.
    """
    # Seven arguments: what trains, its data, its place, and two that the caller watches and ends it by.
    batches.own = trainer.own
    progress = _resume(trainer, state_path, made_by)
    _lead(trainer, batches, progress)
    watch(progress)
    loader = loader_of(batches, progress.step, trainer)
    saver = _Saver(trainer, progress, state_path, made_by, stop)
    started = time.monotonic(), progress.step
    n_epochs = trainer.job.fit.epochs
    # Epochs are counted and not steps: a run killed in its last validation has done all its steps.
    while len(progress.epochs) < n_epochs:
        _train_an_epoch(trainer, loader, progress, saver)
        with timed("validated"):
            metrics = validate(trainer.averaged())
        loss = sum(progress.losses[-trainer.steps_an_epoch :])
        progress.epochs.append({"loss": loss / trainer.steps_an_epoch, "metrics": metrics})
        saver.save()
        watch(progress)
        LOG.info(_epoch_line(progress, n_epochs, _left_s(trainer, progress, *started)))
        trainer.processes.wait()
    return progress


@dataclass(frozen=True)
class _Fit:
    """What another process needs to train with the first one. Weights travel as bytes, read as such."""

    job: Job
    sources: Sources
    contract: Contract
    total_steps: int
    step: int
    n_epochs: int  # that are done
    state: bytes


def _lead(trainer: Trainer, batches: Batches, progress: Progress) -> None:
    """Have the other processes train, too, from the same weights."""
    if trainer.processes.world == 1:
        return
    state = BytesIO()
    torch.save(trainer.state(), state)
    done = progress.step, len(progress.epochs)
    n_steps, sources = trainer.total_steps, batches.sources
    fit = _Fit(trainer.job, sources, batches.contract, n_steps, *done, state.getvalue())
    trainer.processes.send(fit)


def follow(processes: Processes) -> int:
    """Train what the first process trains, until it has nothing more; an exit status."""
    device = choose_device(processes.receive())
    while (fit := processes.receive()) is not None:
        predictor = Predictor(fit.job.frontend, fit.job.model, fit.contract)
        trainer = Trainer(predictor, fit.job, fit.total_steps, device, fit.sources, processes)
        trainer.load_state(torch.load(BytesIO(fit.state), map_location="cpu", weights_only=True))
        loader = loader_of(Batches(fit.sources, fit.contract, fit.job, trainer.own), fit.step, trainer)
        progress = Progress(fit.step, [0.0] * fit.step, [{}] * fit.n_epochs)
        with suppress(Stopped):  # with the first one, which then has nothing more
            _follow_one(trainer, loader, progress)
    return 0


def _follow_one(trainer: Trainer, loader: Iterator[tuple[Tensor, ...]], progress: Progress) -> None:
    while len(progress.epochs) < trainer.job.fit.epochs:
        _train_an_epoch(trainer, loader, progress, _Follower())
        progress.epochs.append({})
        trainer.processes.wait()  # while the first one validates


class _Follower:
    """What a process that follows does between its steps: nothing."""

    def step_done(self) -> None: ...

    def save(self) -> None: ...

    @property
    def must_stop(self) -> bool:
        return False

    @property
    def is_due(self) -> bool:
        return False


def _train_an_epoch(
    trainer: Trainer, loader: Iterator[tuple[Tensor, ...]], progress: Progress, saver: _Follower
) -> None:
    """The steps up to the next validation. `Stopped` is raised in all processes at once."""
    n_epochs = len(progress.epochs) + 1
    end = trainer.steps_an_epoch * n_epochs
    losses: list[Tensor] = []
    with tqdm(total=end, initial=progress.step, **bar(f"epoch {n_epochs}")) as steps:
        while progress.step < end:
            waveforms, targets, *embeddings = next(loader)
            losses.append(trainer.step(waveforms, targets, progress.step, *embeddings))
            progress.step += 1
            steps.update()
            saver.step_done()
            is_due = saver.is_due
            reads = len(losses) == trainer.steps_a_reading or progress.step == end
            stops = reads and trainer.processes.agreed(saver.must_stop)
            if is_due or reads:
                _read(losses, progress)
                steps.set_postfix(loss=f"{progress.losses[-1]:.4f}", refresh=False)
            if is_due or stops:
                saver.save()
            if stops:
                raise Stopped


def _read(losses: list[Tensor], progress: Progress) -> None:
    """Move the losses of the last steps into the progress: on a GPU this waits for them."""
    for loss in torch.stack(losses).tolist():
        if not math.isfinite(loss):
            raise UserError(f"the loss is {loss} at step {len(progress.losses)}; lower fit.lr")
        progress.losses.append(loss)
    losses.clear()


class _Saver(_Follower):
    """Writes the state of a fit, at once or where the last write is long enough ago."""

    def __init__(
        self, trainer: Trainer, progress: Progress, path: Path, made_by: dict[str, Any], stop: Stop
    ) -> None:
        self._trainer, self._progress, self._path = trainer, progress, path
        self._made_by, self._stop = made_by, stop
        self._saved = time.monotonic()

    def step_done(self) -> None:
        self._stop.step_done()

    @property
    def must_stop(self) -> bool:
        return self._stop.due

    @property
    def is_due(self) -> bool:
        """Whether the last write is long enough ago."""
        return time.monotonic() - self._saved >= self._trainer.job.fit.checkpoint_every_s

    def save(self) -> None:
        origin = {"progress": asdict(self._progress), "made_by": self._made_by}
        with timed(f"{self._path.name} saved"):
            state = {"version": checkpoint.VERSION, **origin, **self._trainer.state()}
            checkpoint.write(self._path, state)
        self._saved = time.monotonic()


def loader_of(batches: Batches, first: int, trainer: Trainer) -> Iterator[tuple[Tensor, ...]]:
    """The batches from a step on; beside a GPU each is copied there while the step before computes."""
    on_cuda = trainer.device.type == "cuda"
    workers = trainer.job.data.workers
    if workers < 0:
        n_cores = (os.cpu_count() or 2) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        workers = min(8, max(1, n_cores - 1)) if on_cuda else 0
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=range(first, trainer.total_steps),
        num_workers=workers,
        # A fork after torch's thread pool has started can hang.
        multiprocessing_context="spawn" if workers else None,
        pin_memory=on_cuda,
    )
    return _copied_ahead(iter(loader), trainer.device) if on_cuda else iter(loader)


def _copied_ahead(
    batches: Iterator[tuple[Tensor, ...]], device: torch.device
) -> Iterator[tuple[Tensor, ...]]:
    """Pinned batches on the GPU, each copied in a stream of its own before it is asked for."""
    stream = torch.cuda.Stream(device)

    def copied() -> list[Tensor] | None:
        batch = next(batches, None)
        if batch is None:
            return None
        with torch.cuda.stream(stream):
            return [tensor.to(device, non_blocking=True) for tensor in batch]

    ahead = copied()
    while ahead is not None:
        torch.cuda.current_stream(device).wait_stream(stream)
        for tensor in ahead:  # or its memory could be given away while the step reads it
            tensor.record_stream(torch.cuda.current_stream(device))
        batch = tuple(ahead)
        ahead = copied()
        yield batch


def _resume(trainer: Trainer, path: Path, made_by: dict[str, Any]) -> Progress:
    if not path.is_file():
        return Progress()
    state = checkpoint.read(path)
    changed = differences(made_by, state["made_by"])
    if changed:
        LOG.warning(f"{path}: made with another {' and '.join(changed)}; starting again from step 0")
        return Progress()
    trainer.load_state(state)
    progress = Progress(**state["progress"])
    LOG.info(f"going on after step {progress.step} of {trainer.total_steps}")
    return progress


def _left_s(trainer: Trainer, progress: Progress, started: float, first_step: int) -> float:
    """Seconds to the last step, by the mean of the steps since then."""
    step_s = (time.monotonic() - started) / max(1, progress.step - first_step)
    return step_s * (trainer.total_steps - progress.step)


def _epoch_line(progress: Progress, n_epochs: int, left_s: float) -> str:
    last = progress.epochs[-1]
    figures = [
        f"{name} {'/'.join(f'{auc:.3f}' for auc in by_output.values())}"
        for name, by_output in last["metrics"].items()
    ]
    columns = "  ".join([f"loss {last['loss']:.4f}", *figures])
    return f"  epoch {len(progress.epochs):>3}/{n_epochs}  {columns}  {in_words(left_s)} left"
