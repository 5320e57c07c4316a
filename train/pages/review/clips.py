"""Clips: the parts of recordings that a review shows, and which of many it takes.

A recording of up to a minute is one clip. A longer one is cut, on its grid, into clips of a minute or
less, so that hours of it are reviewed where the model heard something.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from birdkit.grid import WINDOWS_A_MINUTE
from birdkit.scoring.predict import Scores
from train.scoring.thresholds import logit

Order = Callable[[NDArray[np.floating], int], NDArray[np.intp]]


@dataclass(frozen=True)
class Clip:
    """Some consecutive windows of a recording, by its number among all."""

    recording: int
    first: int  # of the windows
    count: int


def all_clips(scores: Sequence[Scores]) -> list[Clip]:
    """The clips of all recordings that have scores (windows, classes), each recording's alike long."""
    clips = []
    for number, rows in enumerate(scores):
        if rows is None:
            continue
        parts = np.array_split(np.arange(len(rows)), -(-len(rows) // WINDOWS_A_MINUTE))
        clips += [Clip(number, int(part[0]), len(part)) for part in parts]
    return clips


def peaks(clips: Sequence[Clip], scores: Sequence[Scores]) -> NDArray[np.float32]:
    """(clips, classes): the highest score of each class in each clip."""
    highest = []
    for clip in clips:
        rows = scores[clip.recording]
        assert rows is not None, "a clip is of a recording with scores"
        highest.append(rows[clip.first : clip.first + clip.count].max(axis=0))
    return np.array(highest)


def highest_first(of_class: NDArray[np.floating], most: int) -> NDArray[np.intp]:
    """The numbers of the clips, (most,) or fewer, from the highest peak of a class down."""
    return np.argsort(-of_class, kind="stable")[:most]


def spread(of_class: NDArray[np.floating], most: int) -> NDArray[np.intp]:
    """The numbers of clips whose peaks lie evenly over the whole range of a class, in logits.

    However few are taken from the front, they span the range: the ends come first, then the middle.
    """
    peaks_in_logits = logit(of_class)
    levels = np.linspace(peaks_in_logits.max(), peaks_in_logits.min(), most)
    chosen: list[int] = []
    for level in levels[_ends_first(most)]:
        distances = np.abs(peaks_in_logits - level)
        distances[chosen] = np.inf
        if not np.isfinite(distances).any():
            break
        chosen.append(int(distances.argmin()))
    return np.array(chosen, dtype=np.intp)


def _ends_first(count: int) -> list[int]:
    """0 to count - 1, each as far as can be from those before it."""
    order: list[int] = []
    step = max(1, count - 1)
    while len(order) < count:
        order += [i for i in [*range(0, count, step), count - 1] if i not in order]
        step = max(1, step // 2)
    return list(dict.fromkeys(order))


def choose(of_clips: NDArray[np.floating], most: int, order: Order) -> list[int]:
    """Numbers of the clips to show: the next one of each class in turn, from the highest peak down.

    Parameters
    ----------
    of_clips : (clips, classes) peaks
    order : which clips of one class come first
    """
    orders = [order(of_class, most) for of_class in of_clips.T]
    classes = np.argsort(-of_clips.max(axis=0), kind="stable")
    chosen: dict[int, None] = {}
    for turn in range(most):
        for index in classes:
            if turn < len(orders[index]):
                chosen.setdefault(int(orders[index][turn]))
            if len(chosen) == most:
                return list(chosen)
    return list(chosen)
