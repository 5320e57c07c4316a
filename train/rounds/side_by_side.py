"""Trains several models of a round at a time, each in a process of its own.

On a CPU two trainings on a core each are faster than one on both; of several GPUs each trains one. A
model ends with the weights that it has when it is trained alone, on as many threads.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import connection
from pathlib import Path
from typing import Any

import torch

from birdkit import log
from birdkit.errors import UserError
from birdkit.signals import Stopped
from train.fit.stop import EXIT_STATUS, Stop
from train.rounds.training import Training

GIB_A_TRAINING = 4.0
# A process of its own takes seconds to start: no gain for a training of fewer steps.
LEAST_STEPS = 100
INTERRUPTED = 130  # the exit status of what Ctrl-C ends

_SPAWN = multiprocessing.get_context("spawn")  # a fork after torch's thread pool has started can hang


def most_at_once(cores: int) -> int:
    """Trainings at a time on so many cores: one on each that there is memory for."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    available = next(int(kib) for name, kib, *_ in lines if name == "MemAvailable:") / 2**20
    return max(1, min(cores, int(available / GIB_A_TRAINING)))


def devices(device: torch.device, n_steps: Sequence[int], jobs: int = 0) -> list[torch.device]:
    """Where each of the trainings at a time runs; one of them: one after another.

    Parameters
    ----------
    n_steps : the steps of each model that is to be trained
    jobs : how many at a time, where that is given; else as many as gain by it
    """
    on_cuda = device.type == "cuda" and device.index is None
    gpus = torch.cuda.device_count() if on_cuda else 1
    if not jobs and min(n_steps, default=0) < LEAST_STEPS:
        return [device]
    most = gpus if device.type == "cuda" else most_at_once(torch.get_num_threads())
    count = max(1, min(jobs or most, len(n_steps)))
    if count == 1 or not on_cuda:
        return [device] * count
    return [torch.device("cuda", index % gpus) for index in range(count)]


def train(trainings: Sequence[Training], on: Sequence[torch.device], stop: Stop) -> None:
    """Train all of them, as many at a time as there are devices in `on`. `Stopped` is raised by `stop`.

    Raises
    ------
    UserError
        Where one of them fails. The others end with it, and go on when the run does.
    """
    threads = max(1, torch.get_num_threads() // len(on))
    waiting, idle = list(reversed(trainings)), list(on)
    running: dict[int, _Child] = {}
    has_stopped = False
    try:
        while running or (waiting and not has_stopped):
            while waiting and idle and not has_stopped:
                child = _Child(waiting.pop(), idle.pop(), threads, stop)
                running[child.process.sentinel] = child
            for sentinel in connection.wait(list(running)):
                child = running.pop(sentinel)  # type: ignore[arg-type]
                idle.append(child.device)
                has_stopped |= child.conclude()
    finally:
        for child in running.values():
            child.process.terminate()
        for child in running.values():
            child.process.join()
    if has_stopped:
        raise Stopped


class _Child:
    """A training at work in a process."""

    def __init__(self, training: Training, device: torch.device, threads: int, stop: Stop) -> None:
        self.name, self.device = training.member.name, device
        self._faults, faults = _SPAWN.Pipe(duplex=False)
        level = logging.getLevelName(log.LOG.level).lower()
        arguments = (training, device, threads, stop, level, faults)
        self.process = _SPAWN.Process(target=_work, args=arguments, daemon=False)
        self.process.start()
        faults.close()  # its end here: the child's own is open

    def conclude(self) -> bool:
        """Whether it stopped before its end. Raises `UserError` where it failed."""
        self.process.join()
        status = self.process.exitcode
        with suppress(EOFError):  # it had nothing to say
            raise UserError(self._faults.recv())
        if status == INTERRUPTED:
            raise KeyboardInterrupt
        if status not in (0, EXIT_STATUS):
            how = signal.Signals(-status).name if status and status < 0 else f"exit status {status}"
            raise UserError(f"{self.name}: its training ended by {how}; the same command goes on")
        return status == EXIT_STATUS


def _work(
    training: Training, device: torch.device, threads: int, stop: Stop, level: str, faults: Any
) -> None:
    """What a process does: train, and say why it could not."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    log.show(level, training.member.name)
    torch.set_num_threads(threads)
    try:
        training.run(device, stop)
    except UserError as error:
        faults.send(str(error))
    except Stopped:
        sys.exit(EXIT_STATUS)
    except KeyboardInterrupt:  # its parent says so, once
        sys.exit(INTERRUPTED)


def _end_with_parent() -> None:
    """Nobody waits for a training whose run was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
