"""Thresholds come out as the marks were simulated, with intervals that hold the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from train.scoring import thresholds
from train.scoring.thresholds import Marks, fit, lines, logistic, logit, table


def sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-x)))


def simulated(seed: int, n: int, slope: float = 1.0, intercept: float = -0.5) -> Marks:
    """Marks, two a recording, whose P(right | score) is sigmoid(slope * logit(score) + intercept)."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-5, 4, n)
    return Marks(sigmoid(x), rng.random(n) < sigmoid(slope * x + intercept), np.arange(n) // 2)


def reached(precision: float, slope: float = 1.0, intercept: float = -0.5) -> float:
    """The score at which simulated marks are right with a probability."""
    return float(sigmoid(np.array((math.log(precision / (1 - precision)) - intercept) / slope)))


def test_the_threshold_of_many_marks_is_the_score_at_which_they_are_right_that_often() -> None:
    found = fit("a", simulated(0, 4000), (0.85, 0.9, 0.95, 0.99), draws=50)
    # The interval is 0.3 logits wide here, so the estimate is within 0.3 of the truth.
    for threshold in found.thresholds:
        truth = reached(threshold.precision)
        assert abs(logit(np.array(threshold.score)) - logit(np.array(truth))) < 0.3
        assert threshold.low < threshold.score < threshold.high
    assert found.remark == ""


@pytest.mark.parametrize("slope, intercept", [(1.0, -0.5), (2.0, 0.0)])
def test_nine_of_ten_intervals_of_a_hundred_marks_hold_the_truth(
    slope: float, intercept: float
) -> None:
    truth = reached(0.9, slope, intercept)
    held = []
    errors = []
    for seed in range(100):
        (threshold,) = fit("a", simulated(seed, 100, slope, intercept), (0.9,), draws=200).thresholds
        held.append(threshold.low <= truth <= threshold.high)
        errors.append(float(logit(np.array(threshold.score)) - logit(np.array(truth))))
    # Of 100 intervals that hold it in 90 to 95 %, less than 84 do so once in 40 times; seeds are fixed.
    assert np.mean(held) >= 0.84
    assert abs(np.median(errors)) < 0.15


def test_jeffreys_prior_is_half_a_mark_of_each_kind_at_each_of_two_scores() -> None:
    # Two parameters fit two values of x one by one, and there Firth's estimate is known.
    x = np.array([-1.0] * 4 + [1.0] * 4)
    right = np.array([True, False, False, False, True, True, True, True])
    intercept, slope = logistic(x, right, np.ones((1, 8)))[:, 0]
    fitted = sigmoid(intercept + slope * np.array([-1.0, 1.0]))
    np.testing.assert_allclose(fitted, [1.5 / 5, 4.5 / 5], atol=1e-6)


def test_marks_that_one_score_parts_give_a_threshold_in_the_gap() -> None:
    scores = np.concatenate([np.linspace(0.05, 0.3, 20), np.linspace(0.7, 0.95, 20)])
    found = fit("a", Marks(scores, scores > 0.5, np.arange(40)), (0.9,), draws=100)
    assert 0.5 < found.thresholds[0].score < 0.75


@pytest.mark.parametrize(
    "right, said",
    [([True] * 12, "no wrong ones"), ([False] * 12, "no right ones"), ([], "no mark says right")],
)
def test_marks_of_one_kind_give_no_threshold_and_say_what_to_mark(right: list[bool], said: str) -> None:
    scores = np.linspace(0.2, 0.9, len(right))
    found = fit("a", Marks(scores, np.array(right, dtype=bool), np.arange(len(right))), (0.9,))
    assert found.thresholds == ()
    assert said in found.remark
    # An empty threshold says that no score will do. Without a wrong mark nobody knows that.
    assert table([found], 0.9, "m")["threshold"].isna().tolist() == [True] * (False in right)
    assert said in lines([found], (0.9,))[1]


def test_scores_that_say_the_contrary_give_no_threshold() -> None:
    marks = simulated(1, 200)
    found = fit("a", Marks(1 - marks.scores, marks.right, marks.recordings), (0.9,), draws=20)
    assert found.thresholds == ()
    assert "not right more often" in found.remark


@pytest.mark.parametrize("share, rows", [(0.95, 0), (0.5, 1)])
def test_a_class_alike_right_at_every_score_is_shut_out_only_where_that_is_too_seldom(
    share: float, rows: int
) -> None:
    scores = np.tile(np.linspace(0.3, 0.9, 40), 2)
    right = np.arange(80) % 40 < 40 * share
    falling = Marks(1 - scores, right[np.argsort(scores, kind="stable")], np.arange(80))
    flat = Marks(np.full(80, 0.5), np.arange(80) < 80 * share, np.arange(80))
    for marks in (falling, flat):
        found = fit("a", marks, (0.9,), draws=20)
        if not found.thresholds:
            assert len(table([found], 0.9, "m")) == rows


def test_no_threshold_lies_below_all_marked_scores() -> None:
    scores = np.linspace(0.3, 0.9, 60)
    right = np.ones(60, dtype=bool)
    right[[0, 5]] = False
    (found,) = fit("a", Marks(scores, right, np.arange(60)), (0.6,), draws=50).thresholds
    assert found.score == pytest.approx(0.3)
    assert found.low <= found.score <= found.high


def test_few_marks_are_told_how_many_more_they_need() -> None:
    found = fit("a", simulated(3, 24), (0.9,), draws=100)
    assert "more" in found.remark
    # With as many as it says, the interval is about as narrow as asked.
    wide = fit("a", simulated(5, 60), (0.9,), draws=200)
    assert "interval too wide: mark about " in wide.remark
    n_more = int(wide.remark.split("about ")[1].split(" more")[0])
    widths = [
        fit("a", simulated(s, 60 + n_more), (0.9,), draws=200).thresholds[0].width for s in range(9)
    ]
    assert 0.6 * thresholds.WIDEST < np.median(widths) < 1.4 * thresholds.WIDEST


def test_scores_of_nought_and_one_are_marks_like_others() -> None:
    marks = simulated(4, 60)
    ends = Marks(np.round(marks.scores), marks.right, marks.recordings)
    assert all(
        0 <= t.low <= t.score <= t.high <= 1 for t in fit("a", ends, (0.9,), draws=50).thresholds
    )


def test_a_threshold_beyond_all_marked_scores_says_so() -> None:
    marks = simulated(6, 400)
    low = marks.scores < 0.5
    found = fit(
        "a", Marks(marks.scores[low], marks.right[low], marks.recordings[low]), (0.99,), draws=50
    )
    assert "above all marked scores" in found.remark


def test_windows_of_a_recording_are_drawn_together() -> None:
    """Marks that are copies of each other say no more than one, so the interval does not shrink."""
    once = simulated(7, 60)
    once = Marks(once.scores, once.right, np.arange(60))
    thrice = Marks(*(np.repeat(values, 3) for values in (once.scores, once.right, once.recordings)))
    (alone,) = fit("a", once, (0.9,)).thresholds
    (copied,) = fit("a", thrice, (0.9,)).thresholds
    assert copied.width > 0.7 * alone.width
