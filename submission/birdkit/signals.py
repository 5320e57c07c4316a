"""SIGINT and SIGTERM as an exception that comes when a command can leave something whole."""

from __future__ import annotations

import contextlib
import signal
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """The process has to end. It is no `Exception`, so that no guard of a file catches it."""


class Termination:
    """A signal to end raises `Stopped`, once. While it is held back, it is only noted."""

    def __init__(self) -> None:
        self._received = False
        self._held = True
        self._before: dict[signal.Signals, Any] = {}

    def install(self) -> None:
        """Take over both signals, held back. Only the main thread can; in another it does nothing."""
        with contextlib.suppress(ValueError):
            self._before = {number: signal.signal(number, self._receive) for number in SIGNALS}

    def __enter__(self) -> Termination:
        if not self._before:
            self.install()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._received, self._held, self._before = False, True, {}

    def release(self) -> None:
        """From now on a signal raises; one that was noted raises at once."""
        self._held = False
        if self._received:
            raise Stopped

    def hold(self) -> None:
        """From now on a signal is only noted."""
        self._held = True

    def _receive(self, number: int, frame: Any) -> None:
        first, self._received = not self._received, True
        if first and not self._held:
            raise Stopped
