"""Scores files within a deadline. A bad file costs its own rows only."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby, islice, repeat
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from birdkit import audio
from birdkit.contract import Contract
from birdkit.errors import one_line

T = TypeVar("T")

# Parts of recordings decoded ahead keep the streams busy. A minute of audio at 32 kHz takes 8 MB.
DECODED_AHEAD = 2
# A recording is decoded and scored in parts of that many windows, so that a day of it takes no more
# memory than two minutes do; two stretches of a minute fit it.
PART_WINDOWS = 24


@dataclass(frozen=True)
class SoundFile:
    """A recording and how many windows of it are asked for."""

    path: Path
    n_windows: int

    @property
    def name(self) -> str:
        """The file's name, on one line."""
        return one_line(self.path.name)


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


@dataclass(frozen=True)
class _Part:
    """A part of a recording: windows, and the samples of them and of the neighbours they hear."""

    samples: NDArray[np.float32]
    span: Span


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

    One stream scores a part from first to last, so that streams never wait for each other. A fault of
    a file becomes an entry of `failures`, and nothing is raised.

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

    def decode(parts: Iterator[_Part]) -> _Part:
        left_s()
        return next(parts)

    def one(decoded: Future[_Part]) -> NDArray[np.float32]:
        try:
            part = decoded.result(timeout=left_s())
        except TimeoutError:
            raise _TooLate from None
        left_s()
        return _finite(score(part.samples, part.span.heard)[..., part.span.kept, :])

    with closing(_in_order(files, contract, decode, one, streams)) as every_part:
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


def _in_order(
    files: Sequence[SoundFile],
    contract: Contract,
    decode: Callable[[Iterator[_Part]], _Part],
    score: Callable[[Future[_Part]], NDArray[np.float32]],
    streams: int,
) -> Generator[tuple[int, Future[NDArray[np.float32]]], None, None]:
    """The number of a file and the scores of a part of it, part by part, some of them begun ahead."""
    with _pools(streams) as (decoder, scorers):
        begun = (
            (index, decoded := decoder.submit(decode, parts), scorers.submit(score, decoded))
            for index, file in enumerate(files)
            for parts in repeat(_parts(file, contract), len(spans(file, contract)))
        )
        ahead = deque(islice(begun, streams + DECODED_AHEAD))
        try:
            while ahead:
                yield ahead[0][0], ahead[0][2]
                ahead.popleft()
                ahead.extend(islice(begun, 1))
        finally:
            for _, decoded, _ in ahead:
                decoded.cancel()  # no scorer waits for it any more


class _Decoder:
    """A thread that decodes in order. Nothing waits for its end, since a read may block for ever."""

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = (
            queue.SimpleQueue()
        )
        threading.Thread(target=self._work, name="decode", daemon=True).start()

    def submit(self, function: Callable[[T], _Part], argument: T) -> Future[_Part]:
        future: Future[_Part] = Future()
        self._tasks.put((future, partial(function, argument)))
        return future

    def close(self) -> None:
        self._tasks.put(None)

    def _work(self) -> None:
        while task := self._tasks.get():
            future, decode = task
            # It stays cancellable while it is decoded.
            with suppress(InvalidStateError):
                if not future.cancelled():
                    try:
                        future.set_result(decode())
                    except Exception as error:
                        future.set_exception(error)


@contextmanager
def _pools(streams: int) -> Iterator[tuple[_Decoder, ThreadPoolExecutor]]:
    """A decoder and scorers. At the end scorers finish what they have begun and begin nothing more."""
    decoder = _Decoder()
    scorers = ThreadPoolExecutor(max_workers=streams, thread_name_prefix="score")
    try:
        yield decoder, scorers
    finally:
        decoder.close()
        scorers.shutdown(wait=True, cancel_futures=True)


def _overhang_s(contract: Contract) -> float:
    """Seconds of a chunk before its window, and after it."""
    return (contract.chunk_s - contract.window_s) / 2


@dataclass(frozen=True)
class Span:
    """Windows of a recording that are scored together, some before and after only for their sake."""

    first: int  # of the windows
    count: int
    before: int
    after: int

    @property
    def heard(self) -> int:
        """How many windows are scored."""
        return self.before + self.count + self.after

    @property
    def kept(self) -> slice:
        """Which of the scored ones are kept."""
        return slice(self.before, self.before + self.count)


def spans(file: SoundFile, contract: Contract) -> list[Span]:
    """The parts of a recording. With their neighbours all are as long as the first, or shorter."""
    most_before = math.ceil(_overhang_s(contract) / contract.window_s) + 1
    found, first = [], 0
    while first < file.n_windows:
        before, left = min(first, most_before), file.n_windows - first
        fits = max(PART_WINDOWS // 2, PART_WINDOWS - before)
        # One window after a part is heard: frames of it count for the part's last window.
        count, after = (left, 0) if left <= fits else (fits - 1, 1)
        found.append(Span(first, count, before, after))
        first += count
    return found


def _parts(file: SoundFile, contract: Contract) -> Iterator[_Part]:
    """The parts of a recording in order, as much of it decoded as the chunks of its windows need."""
    # Time-shifted windows begin earlier, and are one more than asked for.
    needed_s = (file.n_windows + 1) * contract.window_s + _overhang_s(contract)
    blocks = audio.blocks(file.path, contract.sample_rate, max_s=needed_s)
    held, begin = np.zeros(0, dtype=np.float32), 0  # samples from the window `begin` on
    for span in spans(file, contract):
        dropped = span.first - span.before - begin
        held, begin = held[dropped * contract.window_samples :], span.first - span.before
        needed = (span.heard + 1) * contract.window_samples + contract.chunk_samples
        pieces = [held]
        while (
            sum(piece.size for piece in pieces) < needed and (block := next(blocks, None)) is not None
        ):
            pieces.append(block)
        held = np.concatenate(pieces)
        yield _Part(held[:needed], span)


def _finite(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """The scores. Raises `ValueError` where one is NaN or infinite."""
    if not np.isfinite(scores).all():
        raise ValueError("the model answered with NaN or infinite scores")
    return scores
