"""Scores files within a deadline. A bad file costs its own rows only."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from birdkit.contract import Contract
from birdkit.scoring.parts import Part, SoundFile
from birdkit.scoring.streams import in_order

# (samples,), n_windows → (..., windows, classes): an ensemble of engines, or a torch model.
Score = Callable[[NDArray[np.float32], int], NDArray[np.float32]]
Scores = NDArray[np.float32] | None  # a file's scores; None where there are none


@dataclass
class Prediction:
    """Scores of each file, in the order asked for; None where there are none."""

    scores: list[Scores]
    failures: dict[str, str] = field(default_factory=dict)  # file name → why
    not_reached: list[str] = field(default_factory=list)  # left undone at the deadline
    elapsed_s: float = 0.0


class _TooLate(Exception):
    """The deadline came before this part's turn."""


def predict(
    files: Sequence[SoundFile],
    score: Score,
    contract: Contract,
    *,
    streams: int = 1,
    deadline: float = float("inf"),
    clock: Callable[[], float] = time.monotonic,
    into: Prediction | None = None,
    report: Callable[[int, int, float], None] = lambda done, total, elapsed_s: None,
) -> Prediction:
    """Score files in order, `streams` parts at a time, decoding ahead in a thread.

    A fault of a file becomes an entry of `failures`, and nothing is raised.

    Parameters
    ----------
    contract : the one with the longest chunk, for the rate and how much of a file to decode
    streams : threads that call `score`, as many as the engine's layout has
    deadline : s, on `clock`; no part is begun after it, and none is waited for that isn't decoded then
    into : filled during the work, so that an interrupted caller has the scores so far
    report : called after each file with files done, files in all, seconds so far
    """
    # Eight arguments: most have a default.
    # Long because half of the lines describe them.
    start = clock()
    result = into or Prediction([])
    result.scores[:] = [None] * len(files)

    def left_s() -> float:
        if (left := deadline - clock()) <= 0:
            raise _TooLate
        return min(left, threading.TIMEOUT_MAX)

    def decode(parts: Iterator[Part]) -> Part:
        left_s()
        return next(parts)

    def one(decoded: Future[Part]) -> NDArray[np.float32]:
        try:
            part = decoded.result(timeout=left_s())
        except TimeoutError:
            raise _TooLate from None
        left_s()
        return finite(score(part.samples, part.span.heard)[..., part.span.kept, :])

    with closing(in_order(files, contract, decode, one, streams)) as every_part:
        for index, parts in groupby(every_part, key=itemgetter(0)):
            name, scores, fault = files[index].name, [], None
            for _, part in parts:
                try:
                    scores.append(part.result())
                except Exception as error:  # the per-file guard: any fault costs this file only
                    fault = fault or error
            if isinstance(fault, _TooLate):
                result.not_reached.append(name)
            elif fault:
                result.failures[name] = str(fault) or type(fault).__name__
            else:
                result.scores[index] = scores[0] if len(scores) == 1 else np.concatenate(scores, -2)
            report(index + 1, len(files), clock() - start)
    result.elapsed_s = clock() - start
    return result


def finite(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """The scores. Raises `ValueError` where one is NaN or infinite.

    Of several members, (…, members, windows, classes), NaN is what one does not know; an ensemble
    checks its own members, and here some member has to answer in every window.
    """
    known = np.isfinite(scores)
    if np.isinf(scores).any() or not (known.any(axis=(-3, -1)) if scores.ndim > 2 else known).all():
        raise ValueError("the model answered with NaN or infinite scores")
    return scores
