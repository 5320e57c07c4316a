"""An ensemble that survives its engine: where a call fails, the next engine takes over."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from birdkit.contract import Contract
from birdkit.errors import UserError, first_line
from birdkit.scoring.ensemble import Loaded, Spec

# Opens the ensemble without the engines whose descriptions it is given.
Reopen = Callable[[Sequence[str]], Loaded]


class Failover:
    """Scores as its ensemble does and replaces an engine that fails; `notes` names those it lost.

    Parameters
    ----------
    loaded : the ensemble to begin with
    reopen : raises `UserError` where no engine is left
    """

    def __init__(self, loaded: Loaded, reopen: Reopen) -> None:
        self._loaded, self._reopen = loaded, reopen
        self._lost: list[str] = []
        self._lock = threading.Lock()
        self._notes: list[str] = []

    @property
    def contract(self) -> Contract:
        """The ensemble's contract; every engine of a model folder has the same."""
        return self._loaded.ensemble.contract

    @property
    def spec(self) -> Spec:
        """The ensemble's spec."""
        return self._loaded.ensemble.spec

    @property
    def notes(self) -> list[str]:
        """A line for each engine, and each member from outside, that was lost."""
        return [*self._notes, *_lost_members(self._loaded)]

    def score(
        self, waveform: NDArray[np.float32], n_windows: int, shift: float = 0.0
    ) -> NDArray[np.float32]:
        """Score as `Ensemble.score`. Where no engine is left, the last engine's error is raised."""
        loaded = self._loaded
        try:
            return loaded.ensemble.score(waveform, n_windows, shift)
        except Exception as error:  # the ladder: the next engine gets the same recording
            if not self._replaced(loaded, error):
                raise
        return self.score(waveform, n_windows, shift)

    def windows_heard(self, n_windows: int, shift: float = 0.0) -> int:
        """As `Ensemble.windows_heard`."""
        return self._loaded.ensemble.windows_heard(n_windows, shift)

    def _replaced(self, failed: Loaded, error: Exception) -> bool:
        """Whether another engine is there now; the first of several callers to fail opens it."""
        with self._lock:
            if self._loaded is not failed:
                return True
            lost = [*self._lost, *failed.engines]
            try:
                self._loaded = self._reopen(lost)
            except UserError:
                return False  # no engine is left, so the recording may be at fault
            self._lost = lost
            self._notes += _lost_members(failed)
            self._notes.append(f"{', '.join(failed.engines)} failed at work ({first_line(error)})")
            return True


def _lost_members(loaded: Loaded) -> list[str]:
    """A line for each member from outside that failed at work."""
    return [f"goes on without {name}: {why}" for name, why in loaded.ensemble.lost.items()]
