"""Runs as many passes over all files as fit the budget, so that a table is complete at any moment.

A pass that covers all readable files joins the result, and a partial one does not. Only the first pass
counts even if it is cut short; its unscored rows then hold medians. Whatever stops the work, the
result is the mean of exactly the passes that it names.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from birdkit.contract import Contract
from birdkit.scoring import budget
from birdkit.scoring.parts import SoundFile, spans
from birdkit.scoring.predict import Prediction, Scores, predict

# The pass, files done, files in all, seconds of this pass.
Report = Callable[[str, int, int, float], None]


class Scorer(Protocol):
    """An ensemble, or anything with the same methods."""

    @property
    def contract(self) -> Contract: ...

    def score(
        self, waveform: NDArray[np.float32], n_windows: int, shift: float = 0.0
    ) -> NDArray[np.float32]: ...

    def windows_heard(self, n_windows: int, shift: float = 0.0) -> int: ...


@dataclass(frozen=True)
class Pass:
    """One scoring of all files, in which what the models hear begins `shift` earlier (TTA).

    In windows, or in stretches for a model that hears those.
    """

    shift: float = 0.0

    def __str__(self) -> str:
        return f"shift {self.shift:g}" if self.shift else "plain"

    def cost(self, files: Sequence[SoundFile], scorer: Scorer) -> float:
        """Number of windows whose sound is computed on; a time-shifted pass hears more of a file."""
        return float(windows_of_pass(files, scorer, self.shift))


def windows_of_pass(files: Iterable[SoundFile], scorer: Scorer, shift: float = 0.0) -> int:
    """Windows whose sound a pass computes on, part by part of each file."""
    every = (span for file in files for span in spans(file, scorer.contract))
    return sum(scorer.windows_heard(span.heard, shift) for span in every)


@dataclass(frozen=True)
class Result:
    """The sum over completed passes: (members, windows, classes) a file, None where unreadable."""

    passes: tuple[Pass, ...]
    total: list[Scores]

    def mean(self) -> list[Scores]:
        """The mean over the passes: (members, windows, classes) a file."""
        n = np.float32(len(self.passes))
        return [None if total is None else total / n for total in self.total]

    def joined(self, done: Pass, scores: Sequence[Scores]) -> Result:
        """The result with one more pass; `scores` has one entry a file."""
        both = zip(self.total, scores, strict=True)
        total = [None if a is None or b is None else a + b for a, b in both]
        return Result((*self.passes, done), total)


@dataclass
class Progress:
    """The passes so far. Every attribute is replaced in one step, so it is consistent at any moment."""

    first: Prediction  # the first pass, live; without scores before it
    result: Result | None = None
    seconds_a_window: float = 0.0  # in the last completed pass
    elapsed_s: float = 0.0  # of all completed passes, and the windows that they scored
    windows: float = 0.0
    why_stopped: str = "it was told to end"

    @property
    def passes(self) -> list[str]:
        """The names of the completed passes."""
        return [str(one) for one in self.result.passes] if self.result else []

    def scores(self) -> list[Scores]:
        """(members, windows, classes) a file: the passes' mean, or what the first one has so far."""
        return self.result.mean() if self.result else list(self.first.scores)

    def join(self, done: Pass, prediction: Prediction) -> None:
        """Add a completed pass to the result."""
        self.result = (
            self.result.joined(done, prediction.scores)
            if self.result
            else Result((done,), list(prediction.scores))
        )


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
    # Nine arguments: it has no state, clock or output of its own.
    # Long because they are described and passed on.
    for this_pass in passes:
        windows = this_pass.cost(files, scorer)
        expected_s = budget.next_pass_s(progress.seconds_a_window, windows)
        if progress.result and clock() + expected_s > deadline:
            left_s = max(0.0, deadline - clock())
            progress.why_stopped = (
                f"pass '{this_pass}' would take {expected_s:.0f} s, and {left_s:.0f} s are left"
            )
            return
        start = clock()
        prediction = Prediction([None] * len(files))
        if progress.result is None:
            progress.first = prediction
        predict(
            files,
            partial(scorer.score, shift=this_pass.shift),
            scorer.contract,
            streams=streams,
            deadline=deadline,
            clock=clock,
            report=partial(report, str(this_pass)),
            into=prediction,
        )
        if why := _why_left_out(this_pass, files, progress.result, prediction):
            progress.why_stopped = why
            return
        elapsed_s = clock() - start
        progress.seconds_a_window = elapsed_s / windows
        progress.elapsed_s += elapsed_s
        progress.windows += windows
        progress.join(this_pass, prediction)
        on_joined()
    progress.why_stopped = "all passes are done"


def _why_left_out(
    this_pass: Pass, files: Sequence[SoundFile], before: Result | None, prediction: Prediction
) -> str:
    """Why a pass that was run must not join the result; empty where it may."""
    if prediction.not_reached:
        return f"the time was up in pass '{this_pass}'"
    if lost := _lost(files, before, prediction):
        return f"pass '{this_pass}' could not score {lost}, which earlier ones could"
    return ""


def _lost(files: Sequence[SoundFile], before: Result | None, now: Prediction) -> str:
    """A file that earlier passes scored and this one did not; empty where there is none."""
    if before is None:
        return ""
    pairs = zip(files, before.total, now.scores, strict=True)
    return next((f.name for f, a, b in pairs if a is not None and b is None), "")
