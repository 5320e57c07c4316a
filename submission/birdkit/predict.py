"""Files → scores, within a deadline. One bad file costs its own rows only."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from birdkit import audio
from birdkit.contract import Contract

# Enough to keep the engine busy; each is a minute of audio, 8 MB.
DECODED_AHEAD = 4


@dataclass(frozen=True)
class SoundFile:
    """A recording and how many windows of it are asked for."""

    path: Path
    n_windows: int


# (samples,), n_windows → (n_windows, …): an ensemble of engines, or a torch model.
Score = Callable[[NDArray[np.float32], int], NDArray[np.float32]]


@dataclass
class Prediction:
    """Scores of each file, in the order asked for; None where there are none."""

    scores: list[NDArray[np.float32] | None]
    failures: dict[str, str] = field(default_factory=dict)  # file name → why
    not_reached: list[str] = field(default_factory=list)  # left undone at the deadline
    elapsed_s: float = 0.0


def predict(
    files: Sequence[SoundFile],
    score: Score,
    contract: Contract,
    *,
    deadline: float = float("inf"),
    report: Callable[[int, int, float], None] = lambda done, total, elapsed_s: None,
) -> Prediction:
    """Score files in order, decoding ahead in a thread.

    Parameters
    ----------
    contract : of the model that hears longest, for the rate and how much of a file to decode
    deadline : on `time.monotonic`; no file is begun after it
    report : called after each file with files done, files in all, seconds so far
    """
    start = time.monotonic()
    result = Prediction(scores=[None] * len(files))
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="decode") as pool:
        for index, decoded in _decode_ahead(pool, files, contract):
            file = files[index]
            if time.monotonic() >= deadline:
                result.not_reached = [late.path.name for late in files[index:]]
                pool.shutdown(wait=False, cancel_futures=True)
                break
            try:
                result.scores[index] = _finite(score(decoded.result(), file.n_windows))
            except Exception as error:  # the per-file guard: any fault costs this file only
                result.failures[file.path.name] = str(error) or type(error).__name__
            report(index + 1, len(files), time.monotonic() - start)
    result.elapsed_s = time.monotonic() - start
    return result


def _decode_ahead(
    pool: ThreadPoolExecutor, files: Sequence[SoundFile], contract: Contract
) -> Iterator[tuple[int, Future[NDArray[np.float32]]]]:
    overhang_s = (contract.chunk_s - contract.window_s) / 2
    pending: deque[Future[NDArray[np.float32]]] = deque()
    submitted = 0
    for index in range(len(files)):
        while submitted < len(files) and len(pending) < DECODED_AHEAD:
            file = files[submitted]
            heard_s = file.n_windows * contract.window_s + overhang_s
            task = pool.submit(audio.read, file.path, contract.sample_rate, max_s=heard_s)
            pending.append(task)
            submitted += 1
        yield index, pending.popleft()


def _finite(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    if not np.isfinite(scores).all():
        raise ValueError("the model answered with NaN or infinite scores")
    return scores


def fill_missing(
    scores: Sequence[NDArray[np.float32] | None], n_windows: Sequence[int], n_classes: int
) -> list[NDArray[np.float32]]:
    """Give files without scores each class's median over the scored rows: neutral in a ranking."""
    scored = [rows for rows in scores if rows is not None]
    if scored:
        neutral = np.median(np.concatenate(scored), axis=0).astype(np.float32)
    else:
        neutral = np.zeros(n_classes, dtype=np.float32)
    return [
        np.tile(neutral, (count, 1)) if rows is None else rows
        for rows, count in zip(scores, n_windows, strict=True)
    ]
