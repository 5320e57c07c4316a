"""Framewise answers of a recording → probabilities of its windows.

A window's segmentwise probability is the largest of its frames, its clipwise one their mean, weighted
by attention, as in training. "soft" also hears the windows that begin up to half a window earlier and
later, the nearer ones more: what time-shifted passes do, without running the model again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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

    def within(self, end_s: float) -> Frames:
        """Those in a recording that ends there; the nearest one where it is shorter than a frame."""
        inside = np.flatnonzero((self.middles_s >= 0) & (self.middles_s < end_s))
        if not inside.size:
            inside = np.array([np.abs(self.middles_s - end_s / 2).argmin()])
        return Frames(self.logits[inside], self.attention[inside], self.middles_s[inside])


def pool(
    frames: Frames, end_s: float, count: int, window_s: float, output: str, pooling: str
) -> NDArray[np.float32]:
    """Pool the frames of each of the first `count` windows.

    Parameters
    ----------
    end_s : end of the recording; frames beyond it answer for nothing
    output : segmentwise or clipwise
    pooling : one of `POOLINGS`

    Returns
    -------
    (count, classes) probabilities. A window that holds no frame of the recording has the nearest one's
    """
    frames = frames.within(end_s)
    of_frames = sigmoid(frames.logits)
    weights = np.exp(frames.attention) if output == "clipwise" else None
    pooled = np.empty((count, of_frames.shape[1]), dtype=np.float32)
    for index in range(count):
        total, share = np.zeros(of_frames.shape[1]), 0.0
        for moved, weight in POOLINGS[pooling]:
            start_s = (index + moved) * window_s
            span = slice(*np.searchsorted(frames.middles_s, (start_s, start_s + window_s)))
            if span.start < span.stop:
                own_weights = None if weights is None else weights[span]
                total += weight * _of_span(of_frames[span], own_weights)
                share += weight
        if not share:
            nearest = np.abs(frames.middles_s - (index + 0.5) * window_s).argmin()
            total, share = of_frames[nearest], 1.0
        pooled[index] = total / share
    return pooled


def _of_span(
    of_frames: NDArray[np.float32], weights: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """(frames, classes) → (classes,): the largest, or the mean by weight."""
    if weights is None:
        largest: NDArray[np.float32] = of_frames.max(axis=0)
        return largest
    mean: NDArray[np.float32] = (weights * of_frames).sum(axis=0) / weights.sum(axis=0)
    return mean


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities of logits of any shape.

    It never overflows, and very negative logits keep their order instead of becoming 0.
    """
    small = np.exp(-np.abs(logits))
    return np.asarray(np.where(logits >= 0, 1.0, small) / (1.0 + small), dtype=np.float32)
