"""Post-processing of a file's probabilities before they are written. It is pure NumPy without state.

Its parameters are in `ensemble.json`. Validation scores post-processed tables too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from birdkit.errors import UserError


def smooth(scores: NDArray[np.float32], kernel: Sequence[float]) -> NDArray[np.float32]:
    """Smooth each window with its neighbours: a bird rarely calls in one window only.

    The 2025 winners used [.1, .2, .4, .2, .1]. At the ends the outermost window is repeated.

    Parameters
    ----------
    scores : (..., windows, classes)
    kernel : odd number of weights, normalised to sum 1; [1] changes nothing

    Returns
    -------
    (..., windows, classes) float32
    """
    weights = np.asarray(kernel, dtype=np.float32)
    if weights.ndim != 1 or weights.size % 2 == 0 or not weights.sum() > 0:
        raise UserError(f"smoothing kernel {list(kernel)} needs an odd number of weights, sum > 0")
    if weights.size == 1:
        return scores
    half = weights.size // 2
    edges = [(0, 0)] * (scores.ndim - 2) + [(half, half), (0, 0)]
    padded = np.pad(scores, edges, mode="edge")
    count = scores.shape[-2]
    shifted = (padded[..., k : k + count, :] * weight for k, weight in enumerate(weights))
    return np.asarray(sum(shifted) / weights.sum(), dtype=np.float32)
