"""Logits → probabilities, and back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Beyond them a probability has no logit that float32 could tell from its neighbours'.
LOGIT_ENDS = (1e-30, 1 - 1e-6)


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities of logits of any shape.

    It never overflows, and very negative logits keep their order instead of becoming 0.
    """
    small = np.exp(-np.abs(logits))
    return np.asarray(np.where(logits >= 0, 1.0, small) / (1.0 + small), dtype=np.float32)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities whose sum over the last axis is 1."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), dtype=np.float32)


def logit(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """What `sigmoid` makes these probabilities of; finite for 0 and 1, too, and NaN for NaN."""
    p = np.clip(probabilities.astype(np.float64), *LOGIT_ENDS)
    return np.asarray(np.log(p) - np.log1p(-p), dtype=np.float32)
