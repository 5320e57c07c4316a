"""Scores parts of recordings in as many streams as the engine has, decoding ahead in a thread."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice, repeat
from typing import Any, TypeVar

from birdkit.contract import Contract
from birdkit.scoring.parts import Part, SoundFile, parts, spans

T = TypeVar("T")
Scored = TypeVar("Scored")

# Parts of recordings decoded ahead keep the streams busy. A minute of audio at 32 kHz takes 8 MB.
DECODED_AHEAD = 2


def in_order(
    files: Iterable[SoundFile],
    contract: Contract,
    decode: Callable[[Iterator[Part]], Part],
    score: Callable[[Future[Part]], Scored],
    streams: int,
) -> Generator[tuple[int, Future[Scored]], None, None]:
    """The number of a file and the scores of a part of it, part by part, some of them begun ahead.

    Files are taken one by one, when their turn comes. One stream scores a part from first to last, so
    that streams never wait for each other.

    Parameters
    ----------
    decode : gives the next part; it is called in one thread, in order
    score : called with the part to come, in as many threads as there are streams
    """
    with _pools(streams) as (decoder, scorers):
        begun = (
            (index, decoded := decoder.submit(decode, of_file), scorers.submit(score, decoded))
            for index, file in enumerate(files)
            for of_file in repeat(parts(file, contract), len(spans(file, contract)) - file.parts_done)
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

    def submit(self, function: Callable[[T], Part], argument: T) -> Future[Part]:
        future: Future[Part] = Future()
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
