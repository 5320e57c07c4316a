"""Progress of long work, on a terminal and in a log."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from tqdm.contrib.concurrent import thread_map

from birdkit.engines.layout import usable_cores
from birdkit.log import shows_progress, speaker

EVERY_S = 30.0  # between two lines, where there is no terminal

Item = TypeVar("Item")
Result = TypeVar("Result")


def bar(title: str) -> dict[str, Any]:
    """Options of tqdm: a bar that goes away at its end.

    Without a terminal, and of a process that speaks beside others, it is a line now and then.
    """
    desc = f"{speaker()}{title}"
    options: dict[str, Any] = {"desc": desc, "leave": False, "disable": not shows_progress()}
    if speaker() or not sys.stderr.isatty():
        options |= {"file": _Lines(), "ncols": 0, "delay": EVERY_S}
        options |= {"mininterval": EVERY_S, "maxinterval": EVERY_S}
    return options


class _Lines:
    """Writes to stderr each of the texts with which a bar would overwrite the one before."""

    def write(self, text: str) -> None:
        if text.strip():
            print(text.strip(), file=sys.stderr, flush=True)

    def flush(self) -> None:
        """Each line is."""


def in_threads(work: Callable[[Item], Result], items: Sequence[Item], title: str) -> list[Result]:
    """The results in order, by as many threads as there are cores. Stops at the first fault."""
    results: list[Result] = thread_map(work, items, max_workers=usable_cores(), **bar(title))
    return results
