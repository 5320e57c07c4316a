"""The processes that train a model together, as torchrun starts them: one a GPU, or several on CPUs.

The first one leads: it runs the rounds, reads, writes and says everything. The others compute training
steps of what it sends them, and wait meanwhile without a limit. All have the same weights at each step.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from birdkit import log
from birdkit.errors import UserError, first_line

# Long enough for any validation or labelling, through which the others wait. A process that has ended
# is noticed at once, by its closed connection or by torchrun.
LONGEST_WAIT = timedelta(days=30)
GO_ON = "run the same command again to go on after the last saved state"


@dataclass(frozen=True)
class Part:
    """A micro-batch: where its samples are in the batch, and which of them one process computes."""

    whole: range
    own: range
    share: float  # of the micro-batch in the batch

    @property
    def place(self) -> slice:
        """The place of the process's own samples within the micro-batch."""
        return slice(self.own.start - self.whole.start, self.own.stop - self.whole.start)


@dataclass(frozen=True)
class Processes:
    """One process among those that train together; by default it is alone."""

    rank: int = 0
    world: int = 1

    def __str__(self) -> str:
        return "" if self.world == 1 else f"{self.world} processes, each on "

    def parts(self, n_samples: int, n_micro_batches: int) -> list[Part]:
        """The micro-batches of a batch; for any number of processes each sample is some process's own.

        Raises `UserError` where a process would have nothing to do.
        """
        if n_samples < n_micro_batches * self.world:
            raise UserError(
                f"fit.batch {n_samples} has fewer samples than {n_micro_batches} micro-batches for "
                f"{self.world} processes; raise it, lower fit.accumulate or start fewer processes"
            )
        micro_batches = _split(range(n_samples), n_micro_batches)
        return [
            Part(whole, _split(whole, self.world)[self.rank], len(whole) / n_samples)
            for whole in micro_batches
        ]

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place of the tensor, and the same bits everywhere."""
        if self.world > 1:
            with _talking(self):
                dist.all_reduce(tensor)
        return tensor

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Sum the gradients over all processes, in one message."""
        if self.world == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        total = self.sum(torch.cat([gradient.flatten() for gradient in gradients]))
        sizes = [gradient.numel() for gradient in gradients]
        for gradient, part in zip(gradients, total.split(sizes), strict=True):
            gradient.copy_(part.view_as(gradient))

    def send(self, content: Any) -> None:
        """Send an object from the first process to all others, which `receive` it."""
        self._share(content)

    def receive(self) -> Any:
        return self._share(None)

    def agreed(self, answer: bool) -> bool:
        """The first process's answer, in all of them."""
        return bool(self._share(answer))

    def wait(self) -> None:
        """Wait until all processes are here."""
        self._share(None)

    def _share(self, content: Any) -> Any:
        if self.world == 1:
            return content
        box = [content]
        with _talking(self):
            dist.broadcast_object_list(box, device=torch.device("cpu"))
        return box[0]


def _split(samples: range, n_parts: int) -> list[range]:
    """Parts of equal size, or one more or less."""
    ends = [len(samples) * part // n_parts for part in range(n_parts + 1)]
    return [samples[start:end] for start, end in pairwise(ends)]


@contextmanager
def _talking(processes: Processes) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        who = f"process {processes.rank} of 0 to {processes.world - 1}"
        why = first_line(error).partition(". ")[0]
        raise UserError(f"{who}: another one has ended ({why}); {GO_ON}") from error


def local_rank() -> int:
    """This process's number on its host."""
    return int(os.environ.get("LOCAL_RANK", 0))


@contextmanager
def joined() -> Iterator[Processes]:
    """The processes that torchrun has started, this one among them; without torchrun it is alone.

    The first to fail says so, for the others end as a consequence.
    """
    world = int(os.environ.get("WORLD_SIZE", 1))
    if world == 1:
        yield Processes()
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    rank = int(os.environ["RANK"])
    processes = Processes(rank, world)
    with _talking(processes):
        store, _, _ = next(rendezvous("env://", timeout=LONGEST_WAIT))
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=LONGEST_WAIT)
    signal.signal(signal.SIGTERM, _stopped)
    if rank:
        log.show("warning")
    try:
        yield processes
        if not rank:
            processes.send(None)
        dist.destroy_process_group()
    except (UserError, KeyboardInterrupt) as error:
        if not _is_first_to_fail(store.add):
            sys.exit(2 if isinstance(error, UserError) else 130)
        raise
    except BaseException:
        _is_first_to_fail(store.add)
        raise


def _stopped(number: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun may say it twice
    raise UserError(f"stopped: another process has ended, or torchrun was told to end; {GO_ON}")


def _is_first_to_fail(count: Callable[[str, int], int]) -> bool:
    try:
        return count("birdclef-kit/failed", 1) == 1
    except RuntimeError:  # the store has ended before us
        return True
