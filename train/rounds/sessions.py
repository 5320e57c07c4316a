"""The sessions in which a run was trained: when, on what, by which packages, and how each ended.

A run that goes on elsewhere, as from one of Kaggle's sessions to the next, may meet other packages.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from birdkit.files import write_whole
from birdkit.signals import Stopped

NAME = "sessions.json"
FINISHED, STOPPED, FAILED, RUNNING = "finished", "stopped", "failed", "running"
# The packages that a model's figures depend on.
PACKAGES = ("torch", "timm", "numpy", "scipy", "librosa", "soundfile", "soxr")


@contextmanager
def recorded(out: Path, device: torch.device) -> Iterator[None]:
    """Write down one session of the run in `out`; one that was killed stays "running"."""
    started = time.time()
    session = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "device": devices(device),
        "packages": packages(),
    }
    before = read(out)

    def write(ended: str) -> None:
        seconds = round(time.time() - started, 1)
        every = [*before, {**session, "seconds": seconds, "ended": ended}]
        write_whole(out / NAME, f"{json.dumps(every, indent=1)}\n".encode())

    write(RUNNING)
    try:
        yield
    except Stopped:
        write(STOPPED)
        raise
    except Exception:
        with suppress(OSError):  # a full disk may be what failed
            write(FAILED)
        raise
    write(FINISHED)


def read(out: Path) -> list[dict[str, Any]]:
    """The sessions of a run so far; none where the file is absent or damaged."""
    try:
        every = json.loads((out / NAME).read_bytes())
    except (OSError, ValueError):
        return []
    return [session for session in every if isinstance(session, dict)]


def packages() -> dict[str, str]:
    """The versions of Python and of the packages that are installed."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def devices(device: torch.device) -> list[str]:
    """The names of what trains."""
    if device.type != "cuda":
        return [device.type]
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
