"""How fast a model trains, and what it waits for: real training beside the same step on one batch."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from train.config.settings import Model
from train.data.batches import Batches
from train.fit.loop import loader_of
from train.fit.precision import of_one_size
from train.fit.trainer import Trainer

WARM_UP = 3  # steps before the first one that is timed
LOADED = 2  # batches that time a core of the loader
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Throughput:
    """What `measure` found. Windows are samples: chunks, as long as the recipe's."""

    real: float  # windows/s of training
    resident: float  # windows/s of the same step on one batch that stays on the device
    plain: float  # windows/s of a timm model of the same encoder in a loop of a few lines
    first_step_s: float  # from nothing loaded to the end of the first step
    loader: float  # samples/s of one core
    peak_memory_gb: float  # of the device; on a CPU of the process

    @property
    def ratio(self) -> float:
        """Of real training to the step alone: 1 where the device never waits."""
        return self.real / self.resident


def measure(trainer: Trainer, batches: Batches, n_steps: int) -> Throughput:
    """Train so many steps three times. The trainer is of no use afterwards."""
    start = time.perf_counter()
    loader = loader_of(batches, 0, trainer)
    waveforms, targets, *more = (tensor.to(trainer.device) for tensor in next(loader))
    numbers = count()
    trainer.step(waveforms, targets, next(numbers), *more)
    _finish(trainer)
    first_step_s = time.perf_counter() - start

    def real() -> None:
        sounds, labels, *embeddings = next(loader)
        trainer.step(sounds, labels, next(numbers), *embeddings)

    def resident() -> None:
        trainer.step(waveforms, targets, next(numbers), *more)

    real_s, resident_s = _timed_in_turn([real, resident], trainer, n_steps)
    n_samples = len(waveforms)
    memory_gb = _peak_memory_gb(trainer.device)
    plain_s = _timed_in_turn([_plain_step(trainer, waveforms, targets)], trainer, n_steps)[0]
    return Throughput(
        n_samples / real_s,
        n_samples / resident_s,
        n_samples / plain_s,
        first_step_s,
        _loaded_a_second(batches),
        memory_gb,
    )


def _timed_in_turn(steps: list[Callable[[], None]], trainer: Trainer, n_steps: int) -> list[float]:
    """Seconds of each kind of step.

    On a CPU the kinds take turns, step by step, so that a neighbour's load meets all alike. Beside a
    GPU batches are loaded ahead, so that each kind takes all of its steps before the next one.
    """
    for step in steps:
        for _ in range(WARM_UP):
            step()
    on_cpu = trainer.device.type == "cpu"
    n_turns, in_a_row = (n_steps, 1) if on_cpu else (1, n_steps)
    total_s = [0.0] * len(steps)
    for _ in range(n_turns):
        for kind, step in enumerate(steps):
            _finish(trainer)
            start = time.perf_counter()
            for _ in range(in_a_row):
                step()
            _finish(trainer)
            total_s[kind] += time.perf_counter() - start
    return [seconds / n_steps for seconds in total_s]


def _finish(trainer: Trainer) -> None:
    if trainer.device.type == "cuda":
        torch.cuda.synchronize(trainer.device)


def _plain_step(trainer: Trainer, waveforms: Tensor, targets: Tensor) -> Callable[[], None]:
    """A step of timm's model as its classifier, on log-mels that stay on the device."""
    device, precision = trainer.device, trainer.precision
    with torch.no_grad():
        log_mel = trainer.predictor.front_end(waveforms).contiguous(memory_format=torch.channels_last)
    model = _plain_model(trainer.job.model, targets.shape[1]).to(device)
    model = model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), fused=True if device.type == "cuda" else None)
    known = targets.nan_to_num()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with of_one_size():
            with precision.autocast():
                loss = binary_cross_entropy_with_logits(model(log_mel).float(), known)
            loss.backward()
        optimizer.step()

    return step


def _plain_model(config: Model, n_classes: int) -> nn.Module:
    return timm.create_model(config.encoder, num_classes=n_classes, in_chans=1)


def _loaded_a_second(batches: Batches) -> float:
    """Samples that one process loads and augments in a second, other than those before."""
    start = time.perf_counter()
    loaded = [len(batches[step][0]) for step in range(1_000_000, 1_000_000 + LOADED)]
    return sum(loaded) / (time.perf_counter() - start)


def _peak_memory_gb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9  # Linux counts in KiB
