"""What a stage costs: seconds, core time, and the peak of memory, of this process or a child."""

from __future__ import annotations

import gc
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from birdkit.errors import UserError

RESET_PEAK = "5"  # what Linux takes for it in clear_refs
# A child's own peak in KiB as its last line: the system counts its parent's memory, too.
TELLS_PEAK = """
import atexit, runpy, sys
def tell():
    status = open("/proc/self/status").read().split("VmHWM:")[1]
    print(f"\\n{status.split()[0]}", flush=True)
atexit.register(tell)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@dataclass(frozen=True)
class Cost:
    """What a stage took. A busy neighbour makes `seconds` longer and hardly moves `cpu_s`."""

    seconds: float
    cpu_s: float  # of all threads
    peak_mib: float  # of the process, whatever it held before
    grown_mib: float  # by how much the peak was above what the process held before


def measured(work: Callable[[], object]) -> Cost:
    """The cost of a call in this process."""
    gc.collect()  # what another left behind and a call would free, would hide what the call takes
    with suppress(OSError):  # elsewhere than on Linux the peak is that of all stages so far
        Path("/proc/self/clear_refs").write_text(RESET_PEAK)
    before = _mib("VmRSS")
    start, cpu_start = time.perf_counter(), time.process_time()
    work()
    seconds, cpu_s = time.perf_counter() - start, time.process_time() - cpu_start
    peak_mib = _mib("VmHWM")
    return Cost(seconds, cpu_s, peak_mib, max(0.0, peak_mib - before))


def measured_command(command: Sequence[str | Path], root: Path) -> Cost:
    """The cost of one of the kit's commands in a process of its own.

    Raises `UserError` with its last line where it fails.
    """
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", TELLS_PEAK, *map(str, command)],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = process.stdout.read() if process.stdout else ""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    *lines, peak = [line for line in said.splitlines() if line.strip()] or [""]
    if process.returncode or not peak.isdigit():
        last = (lines or [peak or "no word"])[-1]
        raise UserError(f"{' '.join(map(str, command))}: failed with {last}")
    peak_mib = int(peak) / 1024
    return Cost(time.perf_counter() - start, used.ru_utime + used.ru_stime, peak_mib, peak_mib)


def _mib(name: str) -> float:
    """A figure of this process's memory, in MiB."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
