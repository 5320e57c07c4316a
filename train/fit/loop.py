"""A model's training from its first step to its last: validated each epoch, resumable to the bit.

A killed run that is resumed ends with the same weights as one that was not killed.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from birdkit.durations import in_words
from birdkit.errors import UserError
from birdkit.log import LOG, timed
from train.config.provenance import differences
from train.config.settings import Fit
from train.data.batches import Batches
from train.data.progress import bar
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
    fit = trainer.job.fit
    progress = _resume(trainer, state_path, made_by)
    per_epoch = trainer.total_steps // fit.epochs
    watch(progress)
    loader = _loader(batches, range(progress.step, trainer.total_steps), trainer)
    saver = _Saver(trainer, progress, state_path, made_by, stop)
    started, first_step = time.monotonic(), progress.step
    # Epochs are counted and not steps: a run killed in its last validation has done all its steps.
    while len(progress.epochs) < fit.epochs:
        _train_to(per_epoch * (len(progress.epochs) + 1), trainer, loader, progress, saver)
        with timed("validated"):
            metrics = validate(trainer.averaged())
        mean_loss = sum(progress.losses[-per_epoch:]) / per_epoch
        progress.epochs.append({"loss": mean_loss, "metrics": metrics})
        saver.save()
        watch(progress)
        step_s = (time.monotonic() - started) / max(1, progress.step - first_step)
        left_s = step_s * (trainer.total_steps - progress.step)
        LOG.info(_epoch_line(progress, fit.epochs, left_s))
    return progress


def _train_to(
    end: int,
    trainer: Trainer,
    loader: Iterator[tuple[Tensor, ...]],
    progress: Progress,
    saver: _Saver,
) -> None:
    """The steps up to `end`, the last of an epoch."""
    title = f"epoch {len(progress.epochs) + 1}"
    with tqdm(total=end, initial=progress.step, **bar(title)) as steps:
        while progress.step < end:
            waveforms, targets, *embeddings = next(loader)
            loss = trainer.step(waveforms, targets, progress.step, *embeddings)
            if not math.isfinite(loss):
                raise UserError(f"the loss is {loss} at step {progress.step}; lower fit.lr")
            progress.losses.append(loss)
            progress.step += 1
            steps.set_postfix(loss=f"{loss:.4f}", refresh=False)
            steps.update()
            saver.step_done()


class _Saver:
    """Writes the state of a fit, at once or where the last write is long enough ago."""

    def __init__(
        self, trainer: Trainer, progress: Progress, path: Path, made_by: dict[str, Any], stop: Stop
    ) -> None:
        self._trainer, self._progress, self._path = trainer, progress, path
        self._made_by, self._stop = made_by, stop
        self._saved = time.monotonic()

    def step_done(self) -> None:
        """Save where the last write is long enough ago, or the run stops, which raises `Stopped`."""
        self._stop.step_done()
        every_s = self._trainer.job.fit.checkpoint_every_s
        if self._stop.due or time.monotonic() - self._saved >= every_s:
            self.save()
        self._stop.check()

    def save(self) -> None:
        origin = {"progress": asdict(self._progress), "made_by": self._made_by}
        with timed(f"{self._path.name} saved"):
            state = {"version": checkpoint.VERSION, **origin, **self._trainer.state()}
            checkpoint.write(self._path, state)
        self._saved = time.monotonic()


def _loader(batches: Batches, steps: range, trainer: Trainer) -> Iterator[tuple[Tensor, ...]]:
    workers = trainer.job.data.workers
    if workers < 0:
        beside_gpu = trainer.device.type == "cuda"
        workers = min(8, max(1, (os.cpu_count() or 2) - 1)) if beside_gpu else 0
    return iter(
        DataLoader(
            batches,
            batch_size=None,
            sampler=steps,
            num_workers=workers,
            # A fork after torch's thread pool has started can hang.
            multiprocessing_context="spawn" if workers else None,
            pin_memory=trainer.device.type == "cuda",
        )
    )


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


def _epoch_line(progress: Progress, n_epochs: int, left_s: float) -> str:
    last = progress.epochs[-1]
    figures = [
        f"{name} {'/'.join(f'{auc:.3f}' for auc in by_output.values())}"
        for name, by_output in last["metrics"].items()
    ]
    columns = "  ".join([f"loss {last['loss']:.4f}", *figures])
    return f"  epoch {len(progress.epochs):>3}/{n_epochs}  {columns}  {in_words(left_s)} left"
