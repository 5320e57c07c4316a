"""How an engine uses the cores: streams, threads and batch."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from birdkit.contract import Contract
from birdkit.errors import UserError
from birdkit.grid import WINDOWS_A_MINUTE

MOST_BATCH = 1000  # more windows at a time save nothing and take gigabytes


@dataclass(frozen=True)
class Layout:
    """How an engine uses the cores.

    `streams` calls run at a time, each on `threads` threads and on `batch` windows at once. As many
    threads must call as there are streams, or cores stay idle.
    """

    streams: int
    threads: int
    batch: int

    def __str__(self) -> str:
        return f"{self.streams}x{self.threads}x{self.batch}"

    def inputs(self, contract: Contract) -> int:
        """Chunks in a call, or stretches: as many as make `batch` windows, at least one."""
        return max(1, self.batch // max(1, contract.stretch_windows))

    def openvino(self, precision: str) -> dict[str, Any]:
        """The layout as settings of OpenVINO's CPU plugin, with the precision to compute in."""
        return {
            "INFERENCE_PRECISION_HINT": precision,
            "NUM_STREAMS": self.streams,
            "INFERENCE_NUM_THREADS": self.streams * self.threads,
        }

    @classmethod
    def parse(cls, text: str) -> Layout:
        """Read back what `str` gives. Raises `UserError` for anything else."""
        try:
            streams, threads, batch = (int(part) for part in text.split("x"))
        except ValueError:
            streams = threads = batch = 0
        if min(streams, threads, batch) < 1:
            raise UserError(f"layout '{text}' is not STREAMSxTHREADSxBATCH, such as 4x1x2")
        if streams * threads > MOST_THREADS or batch > MOST_BATCH:
            most = f"at most {MOST_THREADS} threads and a batch of {MOST_BATCH}"
            raise UserError(f"layout '{text}' is beyond this machine: {most}")
        return cls(streams, threads, batch)


def one_stream(cores: int) -> Layout:
    """All cores on one call of a minute's windows, for a caller that has one thread."""
    return Layout(1, cores, WINDOWS_A_MINUTE)


def usable_cores(cpu_max: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Number of cores this process may use, by its affinity and the container's quota if any."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    try:
        quota, period = cpu_max.read_text().split()
        cores = min(cores, max(1, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):
        pass  # no cgroup v2 here, or quota "max"
    return cores


MOST_THREADS = max(64, usable_cores())
