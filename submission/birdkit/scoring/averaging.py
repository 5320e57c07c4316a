"""The weighted mean of an ensemble's members, each counting for the classes that it knows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from birdkit.activations import logit, sigmoid

LINEAR_AVERAGINGS = ("probability", "rank")  # a mean of each member's own table
AVERAGINGS = (*LINEAR_AVERAGINGS, "logit")


def average(
    scores: NDArray[np.float32], weights: Sequence[float], averaging: str
) -> NDArray[np.float32]:
    """(members, rows, classes) → (rows, classes): the weighted mean of probabilities, ranks or logits.

    A rank is a row's place in its class among all rows, in (0, 1], with ties averaged. With ranks,
    members need not be calibrated alike; with logits, whose mean becomes a probability again, a faint
    answer of one counts, too. NaN is a class that a member does not know: there the others'
    weights make up the mean. It stays NaN where no member knows.
    """
    if averaging == "rank":
        scores = np.stack([pd.DataFrame(member).rank(pct=True).to_numpy() for member in scores])
    if averaging == "logit":
        return sigmoid(average(logit(scores), weights, "probability"))
    shares = np.asarray(weights, dtype=np.float64) / sum(weights)
    mean = np.tensordot(shares, scores, axes=1)
    unknown = np.isnan(scores)
    if unknown.any():
        counted = np.tensordot(shares, ~unknown, axes=1)
        total = np.tensordot(shares, np.where(unknown, 0.0, scores), axes=1)
        mean = np.divide(total, counted, out=np.full_like(total, np.nan), where=counted > 0)
    return np.asarray(mean, dtype=np.float32)


def without_incomplete(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """(members, rows, classes) with no score of members that lack some rows, so that all rows compare.

    A member lacks the rows that came after it had failed. Where all lack some, all stay.
    """
    complete = np.all(np.any(~np.isnan(scores), axis=2), axis=1)
    if complete.all() or not complete.any():
        return scores
    return np.where(complete[:, None, None], scores, np.float32(np.nan))


def constant_where_unknown(mean: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean with 0 for classes that no member knows: a table has a number in every cell."""
    return np.nan_to_num(mean, nan=0.0)
