"""A score threshold a class for a wished precision, fitted to windows that a person has marked.

The model is a logistic regression of right or wrong on the logit of the score, a class at a time (Wood
and Kahl 2024, Guidelines for appropriate use of BirdNET scores). What is modelled is P(right | score):
how often a detection of exactly this score is right. The threshold of a precision is the score where
that reaches it, so the detections above it, taken together, are right more often still. Choosing what
to mark by its score, as the review page does, leaves P(right | score) as it is.

The interval is a percentile bootstrap of 95 %. Windows of a recording are not independent, so whole
recordings are drawn where there are enough of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from train.scoring.auc import resampled_weights

DRAWS = 500
INTERVAL = (0.025, 0.975)
EDGE = 1e-6  # scores are moved this far from 0 and 1, where the logit is infinite
# Newton's steps of the fit, and the longest in intercept and slope: a separated resample needs many.
STEPS = 40
CLOSE = 1e-7  # steps as short as this end the fit
LONGEST_STEP = np.array([[3.0], [1.0]])
FEWEST_RECORDINGS = 10  # with fewer, marks are drawn one by one
# A class has marks enough with so many of each kind, and an interval no wider than this in logits: from
# 0.73 to 0.95, for example.
FEWEST_OF_A_KIND = 10
WIDEST = 2.0
MANY = 500  # marks; an estimate above says nothing more exact

COLUMNS = ["class", "threshold", "precision", "low", "high", "n_right", "n_wrong", "model"]

RULE = (
    f"enough marks are {FEWEST_OF_A_KIND} right and {FEWEST_OF_A_KIND} wrong ones, and an interval no "
    f"wider than {WIDEST:g} logits, such as 0.73 to 0.95; its width falls with the root of the marks"
)


@dataclass(frozen=True)
class Marks:
    """The marks of one class that say right or wrong.

    scores : (marks,) in 0..1
    right : (marks,)
    recordings : (marks,) labels of the recordings that the windows are of
    """

    scores: NDArray[np.float64]
    right: NDArray[np.bool_]
    recordings: NDArray[np.generic]

    @property
    def n_right(self) -> int:
        return int(self.right.sum())

    @property
    def n_wrong(self) -> int:
        return len(self.right) - self.n_right


@dataclass(frozen=True)
class Threshold:
    """The score where P(right | score) reaches a precision, with its 95 % interval.

    `high` is 1 where the interval has no upper end, `low` is 0 where it has no lower one.
    """

    precision: float
    score: float
    low: float
    high: float

    @property
    def width(self) -> float:
        """Width of the interval in logits; infinite where it has no end."""
        if self.low <= 0 or self.high >= 1:
            return math.inf
        return float(logit(np.array(self.high)) - logit(np.array(self.low)))


@dataclass(frozen=True)
class ClassFit:
    """The thresholds of a class, none where they can't be known, and the marks that it still needs."""

    name: str
    n_right: int
    n_wrong: int
    thresholds: tuple[Threshold, ...]  # one a precision, in the order asked for
    remark: str  # what to mark more of and why; empty where the marks are enough


def logit(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Log-odds of scores, those of 0 and 1 moved to `EDGE` from them."""
    inside = np.clip(np.asarray(scores, dtype=np.float64), EDGE, 1 - EDGE)
    return np.asarray(np.log(inside) - np.log1p(-inside))


def fit(name: str, marks: Marks, precisions: Sequence[float], draws: int = DRAWS) -> ClassFit:
    """Fit the thresholds of a class; the first precision is the one that the remark is about."""
    n_right, n_wrong = marks.n_right, marks.n_wrong
    if not (n_right and n_wrong):
        return ClassFit(name, n_right, n_wrong, (), _one_kind(marks))
    wished = logit(np.array(precisions))
    (estimate,) = _reached(marks, np.ones((1, len(marks.right))), wished)
    if not np.isfinite(estimate).all():
        remark = "higher scores are not right more often; mark more, spread over the whole range"
        return ClassFit(name, n_right, n_wrong, (), remark)
    groups: NDArray[np.generic] = marks.recordings
    if len(np.unique(groups)) < FEWEST_RECORDINGS:
        groups = np.arange(len(groups))
    weights = resampled_weights(groups, draws, np.random.default_rng(0))
    resampled = _reached(marks, weights.T, wished)
    # The nearest draw, since no mean of two is defined where one is infinite.
    low, high = np.quantile(resampled, INTERVAL, axis=0, method="nearest")
    found = [
        Threshold(precision, *(_score(bound) for bound in bounds))
        for precision, *bounds in zip(precisions, estimate, low, high, strict=True)
    ]
    # Nothing is known of scores below all that were marked.
    lowest = float(marks.scores.min())
    kept = tuple(replace(t, score=max(t.score, lowest), high=max(t.high, lowest)) for t in found)
    return ClassFit(name, n_right, n_wrong, kept, _remark(marks, found[0]))


def _reached(
    marks: Marks, weights: NDArray[np.float64], wished: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Logits of the scores where the fit reaches the wished log-odds of being right.

    Infinite where it never does.

    Parameters
    ----------
    weights : (draws, marks)
    wished : (precisions,)

    Returns
    -------
    (draws, precisions)
    """
    intercepts, slopes = logistic(logit(marks.scores), marks.right, weights)[:, :, None]
    rising = slopes > 0
    return np.where(rising, (wished - intercepts) / np.where(rising, slopes, 1.0), np.inf)


def logistic(
    x: NDArray[np.float64], right: NDArray[np.bool_], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Logistic regressions on one feature with Jeffreys' prior, one a row of weights.

    Parameters
    ----------
    x, right : (marks,)
    weights : (draws, marks)

    Returns
    -------
    (2, draws): intercepts and slopes
    """
    middle = x.mean()  # centred, so that intercept and slope hardly depend on each other
    x = x - middle
    fitted = np.zeros((2, len(weights)))
    for _ in range(STEPS):
        p = 1 / (1 + np.exp(-np.clip(fitted[0][:, None] + fitted[1][:, None] * x, -30, 30)))
        information = weights * p * (1 - p)
        i0, i1, i2 = information.sum(axis=1), information @ x, information @ (x * x)
        determinant = np.maximum(i0 * i2 - i1**2, 1e-12)
        leverage = information * (i2[:, None] - 2 * x * i1[:, None] + x * x * i0[:, None])
        score = weights * (right - p) + leverage / determinant[:, None] * (0.5 - p)
        g0, g1 = score.sum(axis=1), score @ x
        step = np.stack([i2 * g0 - i1 * g1, i0 * g1 - i1 * g0]) / determinant
        fitted += step / np.maximum(1.0, np.abs(step) / LONGEST_STEP).max(axis=0)
        if np.abs(step).max() < CLOSE:
            break
    return np.stack([fitted[0] - fitted[1] * middle, fitted[1]])


def _score(bound: float) -> float:
    """The score of a logit; those beyond every score are 0 and 1."""
    if abs(bound) > logit(np.array(1.0)):
        return float(bound > 0)
    return 1 / (1 + math.exp(-bound))


def _one_kind(marks: Marks) -> str:
    if not len(marks.right):
        return f"no mark says right or wrong; mark {FEWEST_OF_A_KIND} of each"
    if marks.n_wrong == 0:
        return f"no wrong ones; mark lower scores until {FEWEST_OF_A_KIND} are wrong"
    return f"no right ones; mark higher scores until {FEWEST_OF_A_KIND} are right"


def _remark(marks: Marks, threshold: Threshold) -> str:
    """What the marks lack by `RULE`, and whether the threshold lies outside of the marked scores."""
    lacking = [
        f"{FEWEST_OF_A_KIND - count} more {kind}"
        for kind, count in (("right", marks.n_right), ("wrong", marks.n_wrong))
        if count < FEWEST_OF_A_KIND
    ]
    remarks = [f"mark {' and '.join(lacking)} ones"] if lacking else []
    n_marks = len(marks.right)
    if threshold.width == math.inf:
        remarks.append(f"interval without end: mark about {n_marks} more, best at high scores")
    elif threshold.width > WIDEST:
        n_more = math.ceil(n_marks * ((threshold.width / WIDEST) ** 2 - 1))
        how_many = f"about {n_more}" if n_more <= MANY else f"over {MANY}"
        remarks.append(f"interval too wide: mark {how_many} more, best around the threshold")
    if not marks.scores.min() <= threshold.score <= marks.scores.max():
        side = "above" if threshold.score > marks.scores.max() else "below"
        remarks.append(f"the fit's threshold lies {side} all marked scores")
    return "; ".join(remarks)


def table(fits: Sequence[ClassFit], precision: float, model: str) -> pd.DataFrame:
    """`thresholds.csv`: a row a class with its threshold of a precision, and the model that scored.

    `low` and `high` bound the threshold, not the precision. A class without one is left out where its
    marks are right often enough as they are, and else has an empty cell (NaN): it is never right
    often enough.
    """
    rows = []
    for of in fits:
        first = of.thresholds[0] if of.thresholds else Threshold(*[math.nan] * 4)
        if of.thresholds or of.n_right < precision * (of.n_right + of.n_wrong):
            found = (first.score, first.precision, first.low, first.high)
            rows.append((of.name, *found, of.n_right, of.n_wrong, model))
    return pd.DataFrame(rows, columns=COLUMNS)


def lines(fits: Sequence[ClassFit], precisions: Sequence[float]) -> list[str]:
    """A line a class, with the threshold of each precision, below a line of heads."""
    width = max([len("class"), *(len(of.name) for of in fits)])
    head = "  ".join(f"{f'P(right) {precision:g}':<19}" for precision in precisions)
    texts = [f"{'class':<{width}}  right  wrong  {head}  needs"]
    for of in fits:
        cells = [f"{t.score:.3f} [{t.low:.3f}, {t.high:.3f}]" for t in of.thresholds]
        cells = cells or ["none"] * len(precisions)
        row = "  ".join(f"{cell:<19}" for cell in cells)
        texts.append(
            f"{of.name:<{width}}  {of.n_right:>5}  {of.n_wrong:>5}  {row}  {of.remark or 'enough'}"
        )
    return texts
