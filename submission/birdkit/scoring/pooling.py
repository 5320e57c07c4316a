"""Framewise answers of a recording → probabilities of its windows.

A window's segmentwise probability is the largest of its frames, its clipwise one their mean, weighted
by attention, as in training. "soft" also hears the windows that begin up to half a window earlier and
later, the nearer ones more: what time-shifted passes do, without running the model again.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

# How far a window is moved, in windows, and what its probability then weighs.
POOLINGS: dict[str, tuple[tuple[float, float], ...]] = {
    "plain": ((0.0, 1.0),),
    "soft": tuple((moved, 1.0 - abs(moved)) for moved in (-0.5, -0.25, 0.0, 0.25, 0.5)),
}


def pool(
    frames: Mapping[str, NDArray[np.float32]],
    middles_s: NDArray[np.float64],
    end_s: float,
    count: int,
    window_s: float,
    output: str,
    pooling: str,
) -> NDArray[np.float32]:
    """Pool the frames of each window.

    Parameters
    ----------
    frames : framewise logits and attention, (frames, classes) each
    middles_s : (frames,), ascending, from the start of the first window
    end_s : end of the recording; frames beyond it answer for nothing
    output : segmentwise or clipwise
    pooling : one of `POOLINGS`

    Returns
    -------
    (count, classes) probabilities. A window that holds no frame of the recording has the nearest one's
    """
    # Seven arguments: what a window is, where the frames lie, and how they are pooled.
    framewise = sigmoid(frames["framewise"])
    weights = np.exp(frames["attention"]) if output == "clipwise" else None
    inside = np.flatnonzero((middles_s >= 0) & (middles_s < end_s))
    if not inside.size:  # the recording is shorter than a frame
        inside = np.array([np.abs(middles_s - end_s / 2).argmin()])
    middles_s, offset = middles_s[inside], inside[0]
    pooled = np.empty((count, framewise.shape[1]), dtype=np.float32)
    for index in range(count):
        total = np.zeros(framewise.shape[1])
        share = 0.0
        for moved, weight in POOLINGS[pooling]:
            start_s = (index + moved) * window_s
            first, last = np.searchsorted(middles_s, (start_s, start_s + window_s))
            if first < last:
                span = slice(offset + first, offset + last)
                total += weight * _of_span(framewise[span], None if weights is None else weights[span])
                share += weight
        if not share:
            nearest = int(np.abs(middles_s - (index + 0.5) * window_s).argmin())
            total, share = framewise[offset + nearest], 1.0
        pooled[index] = total / share
    return pooled


def _of_span(
    framewise: NDArray[np.float32], weights: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """(frames, classes) → (classes,): the largest, or the mean by weight."""
    if weights is None:
        largest: NDArray[np.float32] = framewise.max(axis=0)
        return largest
    mean: NDArray[np.float32] = (weights * framewise).sum(axis=0) / weights.sum(axis=0)
    return mean


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities of logits of any shape.

    It never overflows, and very negative logits keep their order instead of becoming 0.
    """
    small = np.exp(-np.abs(logits))
    return np.asarray(np.where(logits >= 0, 1.0, small) / (1.0 + small), dtype=np.float32)
