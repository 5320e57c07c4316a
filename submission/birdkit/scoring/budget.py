"""The time budget of a run: its limit, and all margins that are subtracted from it.

A timeout on Kaggle leaves no score at all, so a run stops by itself before its limit, and nothing is
begun that could end after the deadline. All times are in seconds on the monotonic clock.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

# The share of the limit that is used; the notebook's own start and end take some of the rest.
USED_SHARE = 0.94
# Decoding and the table take this much over the engines' own time.
AROUND_THE_ENGINES = 1.15
# A pass is begun only where it could take this much longer than the one before.
PASS_MARGIN = 1.10
# Time reserved for the last table: a constant, and multiples of what the first took. That one has the
# same number in every row, and scores take twice as long.
WRITING_S = 2.0
WRITING_MARGIN = 3


@dataclass(frozen=True)
class Budget:
    """When a run began and when it has to end, in s on the monotonic clock."""

    started: float
    stop_at: float

    @classmethod
    def of_minutes(cls, limit_min: float, started: float) -> Budget:
        """The budget of a limit that counts from `started`."""
        return cls(started, started + USED_SHARE * 60 * limit_min)

    def deadline(self, first_write_s: float) -> float:
        """When the scoring has to end, so that there is time to write the table.

        Parameters
        ----------
        first_write_s : s that writing the first table took
        """
        return self.stop_at - (WRITING_S + WRITING_MARGIN * first_write_s)

    def elapsed_s(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.started


def monotonic(unix_time: float) -> float:
    """A Unix time, which the notebook knows, on this process's monotonic clock."""
    return time.monotonic() - (time.time() - unix_time)


def fits(needed_min: float, limit_min: float) -> bool:
    """Whether work of so many minutes ends within the share of the limit that is used."""
    return needed_min <= USED_SHARE * limit_min


def engines_s(n_windows: int, windows_per_s: float) -> float:
    """Seconds that a pass over `n_windows` takes, from the engines' own measured speed."""
    return AROUND_THE_ENGINES * n_windows / windows_per_s


def next_pass_s(seconds_a_window: float, n_windows: float) -> float:
    """Seconds that a pass may take, from the speed of the one before."""
    return PASS_MARGIN * seconds_a_window * n_windows
