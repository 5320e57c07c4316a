"""What commands say while they work: one logger, which `--quiet` and `--log-level` set.

Lines go to standard output, warnings and errors to standard error. What a command was asked for, such
as a table of figures, is printed and no line of the log.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

LEVELS, DEFAULT = ("debug", "info", "warning", "error"), "info"
PLAIN = "%(message)s"
WITH_PLACE = "%(asctime)s.%(msecs)03d %(module)s: %(message)s"

LOG = logging.getLogger("birdclef-kit")


class _Terminal(logging.Handler):
    """Writes to the streams of the moment, which notebooks and tests replace."""

    speaker = ""

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        print(self.format(record), file=stream, flush=True)


def show(level: str, speaker: str = "") -> None:
    """Show lines from a level of `LEVELS` on; those of "debug" with their time and their file.

    `speaker` names a process that speaks beside others: each of its lines begins with that.
    """
    LOG.setLevel(level.upper())
    _TERMINAL.speaker = f"{speaker}: " if speaker else ""
    lines = WITH_PLACE if level == "debug" else PLAIN
    _TERMINAL.setFormatter(logging.Formatter(f"{_TERMINAL.speaker}{lines}", "%H:%M:%S"))


def speaker() -> str:
    """What the lines of this process begin with; empty where it speaks alone."""
    return _TERMINAL.speaker


def shows_progress() -> bool:
    """Whether bars and lines of progress are wanted."""
    return LOG.isEnabledFor(logging.INFO)


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Say at level "debug" how long something took, where it ended without a fault."""
    start = time.monotonic()
    yield
    LOG.debug(f"{what}: {time.monotonic() - start:.2f} s", stacklevel=3)


_TERMINAL = _Terminal()
LOG.addHandler(_TERMINAL)
LOG.propagate = False  # a notebook's own logging would say each line again
show(DEFAULT)
