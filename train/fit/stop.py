"""When a run stops itself, to go on later: after a time, or after a number of training steps."""

from __future__ import annotations

import argparse
import math
import re
import time
from dataclasses import dataclass

from birdkit.signals import Stopped

EXIT_STATUS = 3  # of a command that stopped itself
SECONDS = {"h": 3600.0, "min": 60.0, "s": 1.0}
AMOUNT = re.compile(r"(\d+(?:\.\d+)?) ?(h|min|s|steps)")


@dataclass
class Stop:
    """How long a run goes on. By default it has no end.

    It is looked at only where all that was done is saved: after a step, after a block of labelled
    soundscapes, and between two models.
    """

    at: float = math.inf  # s on the monotonic clock
    steps_left: float = math.inf

    @classmethod
    def after(cls, text: str) -> Stop:
        """From now on, `11.5h`, `90min`, `30s` or `200steps`: the `type` of an argparse option."""
        found = AMOUNT.fullmatch(text)
        if not found or not float(found[1]):
            raise argparse.ArgumentTypeError(f"expected 11.5h, 90min, 30s or 200steps, got '{text}'")
        amount, unit = float(found[1]), found[2]
        if unit == "steps":
            return cls(steps_left=amount)
        return cls(at=time.monotonic() + amount * SECONDS[unit])

    @property
    def due(self) -> bool:
        return self.steps_left <= 0 or time.monotonic() >= self.at

    def step_done(self) -> None:
        self.steps_left -= 1

    def check(self) -> None:
        """Raise `Stopped` where the run has to stop."""
        if self.due:
            raise Stopped
