"""Ranges of numbers: of the settings of a recipe, and of options on a command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

Number = TypeVar("Number", int, float)

KINDS = {int: "a whole number", float: "a number"}


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`, both included. NaN is in no range."""

    low: float
    high: float

    def __contains__(self, number: float) -> bool:
        return self.low <= number <= self.high

    def __str__(self) -> str:
        return f"from {self.low} to {self.high}"


def option(kind: type[Number], low: float, high: float) -> Callable[[str], Number]:
    """The `type` of an argparse option that takes a number in a range."""
    within = Range(low, high)

    def parse(text: str) -> Number:
        with suppress(ValueError):
            if (number := kind(text)) in within:
                return number
        raise argparse.ArgumentTypeError(f"expected {KINDS[kind]} {within}, got '{text}'")

    return parse
