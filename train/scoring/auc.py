"""The competition's metric, and how sure a difference in it is. Arrays in, figures out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from birdkit.errors import UserError
from train.scoring.truth import Truth

# The bootstrap holds a few arrays of this many float64 (2 MiB each, a cache's worth) at a time.
CELLS_AT_ONCE = 2**18
# Beyond each end of a 90 % interval; and standard normal quantiles, of that and of a power of 80 %.
TAIL = 0.05
Z_INTERVAL, Z_POWER = 1.645, 0.842


@dataclass(frozen=True)
class MacroAuc:
    """Macro ROC-AUC over the classes that can be scored."""

    macro: float  # NaN where no class could be scored
    n_scored: int
    per_class: dict[int, float]

    def __str__(self) -> str:
        return f"{self.macro:.4f} over {self.n_scored} classes"


@dataclass(frozen=True)
class Difference:
    """Macro-AUC of a candidate minus that of a baseline, with its bootstrap resamples."""

    estimate: float  # on all rows; NaN where no class could be scored
    draws: NDArray[np.float64]  # one value a resample, NaN where no class could be scored in it

    def bound(self, share: float) -> float:
        """Quantile of the resamples: the difference that `share` of them stay below."""
        known = self._known
        return float(np.quantile(known, share)) if known.size else float("nan")

    @property
    def _known(self) -> NDArray[np.float64]:
        return self.draws[~np.isnan(self.draws)]

    @property
    def interval(self) -> tuple[float, float]:
        """The two ends of the 90 % interval."""
        return self.bound(TAIL), self.bound(1 - TAIL)

    @property
    def verdict(self) -> str:
        """ "better" or "worse" where the 90 % interval lies on one side of 0, else "can't tell"."""
        low, high = self.interval
        return "better" if low > 0 else "worse" if high < 0 else "can't tell"

    @property
    def detectable(self) -> float:
        """The true gain that would be told as better four times in five, had it been there.

        It is the minimum detectable effect at 80 % power (Bloom 1995, Evaluation Review 19), from the
        spread of the resamples.
        """
        known = self._known
        return (Z_INTERVAL + Z_POWER) * float(np.std(known)) if known.size else float("nan")

    def __str__(self) -> str:
        low, high = self.interval
        text = f"{self.estimate:+.4f} [90 % {low:+.4f} … {high:+.4f}]"
        return text.replace("-", "−")


def macro_auc(truth: Truth, scores: NDArray[np.floating]) -> MacroAuc:
    """Kaggle's BirdCLEF metric: the mean ROC-AUC of the classes with a positive.

    A class with positives only has no ROC either, and scikit-learn gives NaN for it. It is left out,
    too; `n_scored` counts the others.

    Parameters
    ----------
    scores : (rows, classes)

    Raises
    ------
    UserError
        Where a score is not finite.
    """
    require_finite(scores)
    per_class = {}
    for index in range(truth.n_classes):
        decided = truth.decided[:, index]
        labels = truth.labels[decided, index]
        if labels.any() and not labels.all():
            per_class[index] = float(roc_auc_score(labels, scores[decided, index]))
    macro = float(np.mean(list(per_class.values()))) if per_class else float("nan")
    return MacroAuc(macro, len(per_class), per_class)


def require_finite(scores: NDArray[np.floating]) -> None:
    """Raise `UserError` unless every score is a finite number."""
    if not np.isfinite(scores).all():
        raise UserError("the scores hold NaN or infinite values; Kaggle would refuse them")


def paired_bootstrap(
    truth: Truth,
    baseline: NDArray[np.floating],
    candidate: NDArray[np.floating],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> Difference:
    """How far two tables of scores differ in macro-AUC, by the paired cluster bootstrap.

    Whole groups are drawn with replacement, the same ones for both tables: windows of a soundscape
    are not independent. A resample's macro is over the classes that have a positive and a negative
    in it. (Efron and Tibshirani 1993, An introduction to the bootstrap; percentile intervals.)

    Parameters
    ----------
    baseline, candidate : (rows, classes)

    Raises `UserError` where a score is not finite.
    """
    require_finite(baseline)
    require_finite(candidate)

    def difference(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        base, other = (macro_aucs(truth, scores, weights) for scores in (baseline, candidate))
        return other - base

    rng = np.random.default_rng(seed)
    at_once = max(1, CELLS_AT_ONCE // max(1, len(truth)))
    sizes = [min(at_once, draws - start) for start in range(0, draws, at_once)]
    resampled = [difference(resampled_weights(truth.groups, size, rng)) for size in sizes]
    (estimate,) = difference(np.ones((len(truth), 1)))
    return Difference(float(estimate), np.concatenate(resampled))


def resampled_weights(
    groups: NDArray[np.generic], draws: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """(rows, draws): how often each row is in each resample of whole groups.

    The draws depend on the groups' order of appearance and not on their labels.
    """
    codes, labels = pd.factorize(groups, use_na_sentinel=False)
    n_groups = max(1, len(labels))
    times = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=draws)
    return times.T.astype(np.float64)[codes]


def macro_aucs(
    truth: Truth, scores: NDArray[np.floating], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """`macro_auc` under many weightings of the rows at once. All scores must be finite.

    Parameters
    ----------
    scores : (rows, classes)
    weights : (rows, draws); a weight of 2 counts a row twice, one of 0 leaves it out

    Returns
    -------
    (draws,), NaN where no class has a positive and a negative of some weight
    """
    total, n_scored = np.zeros((2, weights.shape[1]))
    for index in range(truth.n_classes):
        positives, negatives = truth.positives(index), truth.negatives(index)
        if len(positives) and len(negatives):
            won, pairs = _pairs_won(scores[:, index], positives, negatives, weights)
            total += np.divide(won, pairs, out=np.zeros_like(won), where=pairs > 0)
            n_scored += pairs > 0
    return np.divide(total, n_scored, out=np.full_like(total, np.nan), where=n_scored > 0)


def _pairs_won(
    scores: NDArray[np.floating],
    positives: NDArray[np.intp],
    negatives: NDArray[np.intp],
    weights: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pairs of a positive and a negative that are in order (a tie is half of one), and all pairs.

    Their ratio is the ROC-AUC (Mann and Whitney 1947). Scores (rows,), positives and negatives are
    row numbers, weights (rows, draws); both answers (draws,), exact for integer weights.
    """
    negatives = negatives[np.argsort(scores[negatives])]
    below = np.zeros((len(negatives) + 1, weights.shape[1]))  # weight of the n lowest negatives
    np.cumsum(weights[negatives], axis=0, out=below[1:])
    low = np.searchsorted(scores[negatives], scores[positives], "left")
    high = np.searchsorted(scores[negatives], scores[positives], "right")
    of_positives = weights[positives]
    won = np.einsum("pd,pd->d", of_positives, below[low] + below[high]) / 2
    return won, of_positives.sum(axis=0) * below[-1]
