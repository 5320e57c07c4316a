"""Scores files within a deadline. A bad file costs its own rows only."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from birdkit import audio
from birdkit.contract import Contract

# Recordings decoded ahead keep the streams busy. A minute of audio at 32 kHz takes 8 MB.
DECODED_AHEAD = 2


@dataclass(frozen=True)
class SoundFile:
    """A recording and how many windows of it are asked for."""

    path: Path
    n_windows: int


# (samples,), n_windows → any array: an ensemble of engines, or a torch model.
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
    """The deadline came before this file's turn."""


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
    """Score files in order, `streams` at a time, decoding ahead in a thread.

    One stream scores a file from first to last, so that streams never wait for each other. A fault of
    a file becomes an entry of `failures`, and nothing is raised.

    Parameters
    ----------
    contract : the one with the longest chunk, for the rate and how much of a file to decode
    streams : threads that call `score`, as many as the engine's layout has
    deadline : s, on `clock`; no file is begun after it
    into : filled during the work, so that an interrupted caller has the scores so far
    report : called after each file with files done, files in all, seconds so far
    """
    # Eight arguments: most have a default.
    # Long because half of the lines describe them.
    start = clock()
    result = into or Prediction([])
    result.scores[:] = [None] * len(files)

    def one(decoded: Future[NDArray[np.float32]], n_windows: int) -> NDArray[np.float32]:
        if clock() >= deadline:
            raise _TooLate
        return _finite(score(decoded.result(), n_windows))

    with _pools(streams) as (decoder, scorers):
        ahead: deque[Future[NDArray[np.float32]]] = deque()
        begun = 0
        for index, file in enumerate(files):
            while begun < len(files) and len(ahead) < streams + DECODED_AHEAD:
                decoded = decoder.submit(_decode, files[begun], contract)
                ahead.append(scorers.submit(one, decoded, files[begun].n_windows))
                begun += 1
            try:
                result.scores[index] = ahead.popleft().result()
            except _TooLate:
                result.not_reached.append(file.path.name)
            except Exception as error:  # the per-file guard: any fault costs this file only
                result.failures[file.path.name] = str(error) or type(error).__name__
            report(index + 1, len(files), clock() - start)
    result.elapsed_s = clock() - start
    return result


@contextmanager
def _pools(streams: int) -> Iterator[tuple[ThreadPoolExecutor, ThreadPoolExecutor]]:
    """A decoder and scorers. At the end they finish what they have begun and begin nothing more."""
    decoder = ThreadPoolExecutor(max_workers=1, thread_name_prefix="decode")
    scorers = ThreadPoolExecutor(max_workers=streams, thread_name_prefix="score")
    try:
        yield decoder, scorers
    finally:
        for pool in (scorers, decoder):
            pool.shutdown(wait=False, cancel_futures=True)
        for pool in (scorers, decoder):
            pool.shutdown(wait=True)


def _decode(file: SoundFile, contract: Contract) -> NDArray[np.float32]:
    """(samples,) in [-1, 1]: as much of a file as the chunks of its windows need."""
    overhang_s = (contract.chunk_s - contract.window_s) / 2
    # Time-shifted windows are one more than asked for.
    needed_s = (file.n_windows + 1) * contract.window_s + overhang_s
    return audio.read(file.path, contract.sample_rate, max_s=needed_s)


def _finite(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """The scores. Raises `ValueError` where one is NaN or infinite."""
    if not np.isfinite(scores).all():
        raise ValueError("the model answered with NaN or infinite scores")
    return scores
