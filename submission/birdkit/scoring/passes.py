"""Passes over all files, as many as the budget holds: what makes a submission complete at any moment.

A pass that covers all readable files joins the result, a partial one does not. Only if even the first
one is cut short does it count, and its unscored rows hold medians. Whatever stops the work, the result
is the mean of exactly the passes that it names.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from birdkit.contract import Contract
from birdkit.scoring.predict import Prediction, Scores, SoundFile, predict

# A pass is begun only where it could take this much longer than it should.
MARGIN = 1.10

# The pass, files done, files in all, seconds of this pass.
Report = Callable[[str, int, int, float], None]


class Scorer(Protocol):
    """An ensemble, or whatever answers as one."""

    @property
    def contract(self) -> Contract: ...

    def score(
        self, waveform: NDArray[np.float32], n_windows: int, shift: float = 0.0
    ) -> NDArray[np.float32]: ...


class Stopped(BaseException):
    """The process was told to end. No `Exception`, so that no guard of a file takes it for its own."""


@dataclass(frozen=True)
class Pass:
    """One look at all files: the grid moved by `shift` windows, 0 for the grid of the rows."""

    shift: float = 0.0

    def __str__(self) -> str:
        return f"shift {self.shift:g}" if self.shift else "plain"

    def cost(self, files: Sequence[SoundFile]) -> float:
        """Windows to score: a moved grid needs one more a file."""
        return float(sum(file.n_windows + bool(self.shift) for file in files))


@dataclass(frozen=True)
class Result:
    """Sums over completed passes: for each file (members, windows, classes), None where unreadable."""

    passes: tuple[Pass, ...]
    total: list[Scores]

    def mean(self) -> list[Scores]:
        n = np.float32(len(self.passes))
        return [None if each is None else each / n for each in self.total]

    def joined(self, done: Pass, scores: Sequence[Scores]) -> Result:
        both = zip(self.total, scores, strict=True)
        total = [None if a is None or b is None else a + b for a, b in both]
        return Result((*self.passes, done), total)


@dataclass
class Progress:
    """What has been done so far. Each attribute is replaced whole, so it is true at any moment."""

    first: Prediction  # the first pass, live; without scores before it
    result: Result | None = None
    seconds_a_window: float = 0.0  # of the last completed pass
    why_stopped: str = "it was told to end"

    @property
    def passes(self) -> list[str]:
        return [str(each) for each in self.result.passes] if self.result else []

    def scores(self) -> list[Scores]:
        """Each file's (members, windows, classes): the passes' mean, or as far as the first one got."""
        return self.result.mean() if self.result else list(self.first.scores)


def run_passes(
    files: Sequence[SoundFile],
    scorer: Scorer,
    passes: Sequence[Pass],
    progress: Progress,
    *,
    streams: int,
    deadline: float,
    clock: Callable[[], float] = time.monotonic,
    report: Report = lambda name, done, total, elapsed_s: None,
    on_joined: Callable[[], None] = lambda: None,
) -> None:
    """Run passes in the order given while they fit, keeping `progress` true at every moment.

    Parameters
    ----------
    deadline : on `clock`; no file is begun after it
    on_joined : called after each pass that joined the result
    """
    for each in passes:
        windows = each.cost(files)
        expected_s = MARGIN * progress.seconds_a_window * windows
        if progress.result and clock() + expected_s > deadline:
            left = max(0.0, deadline - clock())
            progress.why_stopped = (
                f"pass '{each}' would take {expected_s:.0f} s, and {left:.0f} s are left"
            )
            return
        start = clock()
        found = Prediction([None] * len(files))
        if progress.result is None:
            progress.first = found
        predict(
            files,
            partial(scorer.score, shift=each.shift),
            scorer.contract,
            streams=streams,
            deadline=deadline,
            clock=clock,
            report=partial(report, str(each)),
            into=found,
        )
        if found.not_reached:
            progress.why_stopped = f"the time was up in pass '{each}'"
            return
        lost = _lost(files, progress.result, found)
        if lost:
            progress.why_stopped = f"pass '{each}' could not score {lost}, which earlier ones could"
            return
        progress.seconds_a_window = (clock() - start) / windows
        progress.result = (
            progress.result.joined(each, found.scores)
            if progress.result
            else Result((each,), list(found.scores))
        )
        on_joined()
    progress.why_stopped = "all passes are done"


def _lost(files: Sequence[SoundFile], before: Result | None, now: Prediction) -> str:
    """A file that earlier passes scored and this one did not; empty where there is none."""
    if before is None:
        return ""
    pairs = zip(files, before.total, now.scores, strict=True)
    return next((f.path.name for f, a, b in pairs if a is not None and b is None), "")
