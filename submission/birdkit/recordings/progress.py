"""A line now and then that says how far a batch is and how long it will take."""

from __future__ import annotations

import time
from collections.abc import Callable

from birdkit.durations import in_words
from birdkit.log import LOG

EVERY_S = 10.0


class Progress:
    """Counts bytes, because a file's size is known before it is opened.

    Parameters
    ----------
    n_recordings, n_bytes : how much there is to do
    """

    def __init__(
        self, n_recordings: int, n_bytes: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._total, self._bytes_left = n_recordings, float(n_bytes)
        self._done, self._bad, self._bytes, self._sound_s = 0, 0, 0.0, 0.0
        self._clock = clock
        self._start = self._last = clock()

    def skip(self, n_bytes: float) -> None:
        """So much was done by an earlier run, and takes no time."""
        self._bytes_left -= n_bytes

    def part(self, n_bytes: float, sound_s: float) -> None:
        """So much of a recording is done."""
        self._bytes += n_bytes
        self._bytes_left -= n_bytes
        self._sound_s += sound_s
        self._now_and_then()

    def recording(self, *, bad: bool = False) -> None:
        """A recording is done, or bad."""
        self._done += 1
        self._bad += bad
        self._now_and_then()

    def _now_and_then(self) -> None:
        if self._clock() - self._last >= EVERY_S:
            self._last = self._clock()
            LOG.info(f"  {self}")

    def __str__(self) -> str:
        elapsed_s = max(self._clock() - self._start, 1e-9)
        bad = f", {self._bad} bad" if self._bad else ""
        text = f"{self._done}/{self._total} recordings{bad}, {in_words(self._sound_s)} of sound"
        speed = f"{self._sound_s / elapsed_s:.0f} times real time"
        left_s = elapsed_s / self._bytes * max(0.0, self._bytes_left) if self._bytes else 0.0
        return f"{text}, {speed}, {in_words(left_s)} left" if self._bytes else text
