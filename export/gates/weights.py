"""Fits the weights of an ensemble's members to truth, with a guard against overfitting.

Fitted weights ship only where held-out groups show that they beat equal ones. On a few soundscapes
they mostly don't, and equal weights are the safer guess.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

from birdkit.errors import UserError
from train.scoring.auc import Difference, macro_auc, macro_aucs, paired_bootstrap, require_finite
from train.scoring.truth import Truth

# Number of greedy steps; it bounds the smallest weight (3 % in a pair, less among more members).
N_PICKS = 30
MAX_FOLDS = 5
# The gain is accepted where all but this share of the resamples lie above zero.
DOUBT = 0.1

# (members, rows, classes) and a weight a member, their sum 1 → (rows, classes)
Combine = Callable[[NDArray[np.float32], Sequence[float]], NDArray[np.float32]]


@dataclass(frozen=True)
class Fitted:
    """Weights to ship, and the evidence. The three scores are macro-AUC over the decided cells."""

    weights: tuple[float, ...]  # one a member, sum 1; equal where the fitted ones are not accepted
    accepted: bool
    in_sample: float  # fitted weights, on the rows they were fitted to: flatters
    held_out: float  # fitted weights, each row by those of the folds without its group
    equal: float  # equal weights
    gain: Difference  # held out, minus equal

    def __str__(self) -> str:
        if len(self.weights) == 1:
            return f"one member, so nothing to weigh; macro-AUC {self.equal:.4f}"
        scores = (
            f"macro-AUC {self.held_out:.4f} held out, {self.equal:.4f} with equal weights: {self.gain}"
        )
        if self.accepted:
            return f"fitted weights {', '.join(f'{w:.3f}' for w in self.weights)} ({scores})"
        why = "may be chance" if self.gain.estimate > 0 else "are no gain"
        return f"equal weights, as fitted ones {why} ({scores})"


def fit(
    scores: NDArray[np.float32],
    truth: Truth,
    combine: Combine,
    *,
    draws: int = 1000,
    seed: int = 0,
) -> Fitted:
    """Weights that raise macro-AUC, or equal ones where the gain may be due to chance.

    Fitted weights are accepted where the cross-fitted table beats equal weights, and does so in
    90 % of the resamples of whole groups. Cross-fitting errs on the side of equal weights: they see
    fewer rows, and rows of different folds, weighed differently, are ranked against each other.

    Parameters
    ----------
    scores : (members, rows, classes) probabilities
    truth : rows of one soundscape are a group
    combine : what the submission averages with; it gets all rows, so ranks are those of all rows

    Raises `UserError` where a score is not finite, nothing can be scored, or several members have
    one group only.
    """
    require_finite(scores)
    uniform = _shares(np.ones(len(scores), dtype=np.int64))
    equal_table = combine(scores, uniform)
    equal = macro_auc(truth, equal_table).macro
    if np.isnan(equal):
        raise UserError("no class has both a positive and a negative window; weights need more truth")
    if len(scores) == 1:
        no_gain = Difference(0.0, np.zeros(draws))
        return Fitted(uniform, False, equal, equal, equal, no_gain)
    fitted = _select(scores, truth, combine, np.arange(len(truth)))
    in_sample = macro_auc(truth, combine(scores, fitted)).macro
    held_out = _cross_fitted(scores, truth, combine)
    gain = paired_bootstrap(truth, equal_table, held_out, draws=draws, seed=seed)
    accepted = gain.estimate > 0 and gain.bound(DOUBT) > 0
    held_out_auc = macro_auc(truth, held_out).macro
    return Fitted(fitted if accepted else uniform, accepted, in_sample, held_out_auc, equal, gain)


def _cross_fitted(
    scores: NDArray[np.float32],
    truth: Truth,
    combine: Combine,
) -> NDArray[np.float64]:
    """(rows, classes): each row combined with the weights fitted to the folds without its group."""
    codes, labels = pd.factorize(truth.groups, use_na_sentinel=False)
    if len(labels) < 2:
        raise UserError(
            "all rows are of one soundscape, and fitted weights are checked on others; "
            "give truth for two or more"
        )
    table = np.empty(truth.labels.shape)
    folds = GroupKFold(n_splits=min(MAX_FOLDS, len(labels)))
    for fitting, held_out in folds.split(truth.labels, groups=codes):
        weights = _select(scores, truth, combine, fitting)
        table[held_out] = combine(scores, weights)[held_out]
    return table


def _select(
    scores: NDArray[np.float32],
    truth: Truth,
    combine: Combine,
    rows: NDArray[np.intp],
) -> tuple[float, ...]:
    """Weights that fit some of the rows best: greedy selection of members, with replacement.

    Starts with each member once; of all prefixes the best counts, the shortest of equals. (Caruana
    et al. 2004, Ensemble selection from libraries of models.)
    """
    once, of_rows = np.ones((len(rows), 1)), truth.rows(rows)

    def quality(counts: NDArray[np.int64]) -> float:
        table = combine(scores, _shares(counts))
        return float(macro_aucs(of_rows, table[rows], once)[0])

    counts = best = np.ones(len(scores), dtype=np.int64)
    best_quality = quality(best)
    for _ in range(N_PICKS):
        options = counts + np.eye(len(scores), dtype=np.int64)
        qualities = [quality(option) for option in options]
        counts = options[np.argmax(qualities)]
        if max(qualities) > best_quality:
            best, best_quality = counts, max(qualities)
    return _shares(best)


def _shares(counts: NDArray[np.int64]) -> tuple[float, ...]:
    """Picks of each member as weights with the sum 1."""
    return tuple((counts / counts.sum()).tolist())
