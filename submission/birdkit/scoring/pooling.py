"""Framewise answers of a recording → probabilities of its windows.

A window's segmentwise probability is the largest of its frames, its clipwise one their mean, weighted
by attention, as in training. "soft" also hears the windows that begin up to half a window earlier and
later, the nearer ones more: what time-shifted passes do, without running the model again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from birdkit.activations import sigmoid

# How far a window is moved, in windows, and what its probability then weighs.
POOLINGS: dict[str, tuple[tuple[float, float], ...]] = {
    "plain": ((0.0, 1.0),),
    "soft": tuple((moved, 1.0 - abs(moved)) for moved in (-0.5, -0.25, 0.0, 0.25, 0.5)),
}


@dataclass(frozen=True)
class Frames:
    """A recording's framewise answers, in order."""

    logits: NDArray[np.float32]  # (frames, classes)
    attention: NDArray[np.float32]  # (frames, classes), before its softmax
    middles_s: NDArray[np.float64]  # (frames,), ascending, from the start of the first window

    def span(self, start_s: float, end_s: float) -> slice:
        """The frames whose middles lie from start to end."""
        first, last = np.searchsorted(self.middles_s, (start_s, end_s))
        return slice(int(first), int(last))

    def nearest(self, moment_s: float) -> slice:
        """The one frame whose middle lies nearest."""
        index = int(np.abs(self.middles_s - moment_s).argmin())
        return slice(index, index + 1)


def pool(
    frames: Frames, end_s: float, count: int, window_s: float, output: str, pooling: str
) -> NDArray[np.float32]:
    """Pool the frames of each of the first `count` windows.

    Parameters
    ----------
    end_s : end of the recording; frames beyond it answer for no window that it reaches into
    output : segmentwise or clipwise
    pooling : one of `POOLINGS`

    Returns
    -------
    (count, classes) probabilities. A window beyond the recording has those of the silence there
    """
    of_frames = sigmoid(frames.logits)
    weights = np.exp(frames.attention) if output == "clipwise" else None
    pooled = np.empty((count, of_frames.shape[1]), dtype=np.float32)
    for index in range(count):
        total, shares = np.zeros(of_frames.shape[1]), 0.0
        for span, share in _heard(frames, end_s, index * window_s, window_s, pooling):
            own_weights = None if weights is None else weights[span]
            total += share * of_span(of_frames[span], own_weights)
            shares += share
        pooled[index] = total / shares
    return pooled


def _heard(
    frames: Frames, end_s: float, start_s: float, window_s: float, pooling: str
) -> list[tuple[slice, float]]:
    """The frames that a window is made of, with the shares that they count by."""
    spans = []
    for moved, share in POOLINGS[pooling]:
        begin_s = start_s + moved * window_s
        span = frames.span(max(0.0, begin_s), min(begin_s + window_s, end_s))
        if span.start < span.stop:
            spans.append((span, share))
    if start_s < end_s:  # where the recording reaches into it by less than a frame, the nearest one
        return spans or [(frames.nearest((start_s + min(end_s, start_s + window_s)) / 2), 1.0)]
    own = frames.span(start_s, start_s + window_s)
    return [(own if own.start < own.stop else frames.nearest(start_s + window_s / 2), 1.0)]


def of_span(of_frames: NDArray[np.float32], weights: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """(frames, classes) → (classes,): the largest, or the mean by weight."""
    if weights is None:
        largest: NDArray[np.float32] = of_frames.max(axis=0)
        return largest
    mean: NDArray[np.float32] = (weights * of_frames).sum(axis=0) / weights.sum(axis=0)
    return mean
