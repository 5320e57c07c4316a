"""Means of members that don't know every class, against a slow reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from birdkit.scoring.averaging import AVERAGINGS, average, without_incomplete
from birdkit.scoring.ensemble import Spec, combine

NAN = np.nan


def slow_mean(scores: NDArray[Any], weights: list[float]) -> NDArray[Any]:
    mean = np.full(scores.shape[1:], NAN)
    for row in range(scores.shape[1]):
        for column in range(scores.shape[2]):
            pairs = [(w, s[row, column]) for w, s in zip(weights, scores, strict=True)]
            known = [(w, s) for w, s in pairs if not np.isnan(s)]
            if total := sum(w for w, _ in known):
                mean[row, column] = sum(w * s for w, s in known) / total
    return mean


def members() -> NDArray[np.float32]:
    scores = np.random.default_rng(0).uniform(0.05, 0.95, (3, 7, 4)).astype(np.float32)
    scores[2, :, 1] = NAN
    scores[1:, :, 2] = NAN
    scores[:, :, 3] = NAN
    return scores


def test_a_member_counts_for_the_classes_that_it_knows() -> None:
    scores, weights = members(), [1.0, 2.0, 5.0]
    mean = average(scores, weights, "probability")
    np.testing.assert_allclose(mean, slow_mean(scores, weights), atol=1e-6)
    np.testing.assert_allclose(mean[:, 2], scores[0, :, 2], atol=1e-6)
    assert np.isnan(mean[:, 3]).all()


def test_a_rank_is_among_the_rows_and_a_logit_becomes_a_probability_again() -> None:
    scores, weights = members(), [1.0, 2.0, 5.0]
    ranks = np.where(np.isnan(scores), NAN, scores.argsort(axis=1).argsort(axis=1) + 1) / 7
    by_rank = average(scores, weights, "rank")
    np.testing.assert_allclose(by_rank, slow_mean(ranks, weights), atol=1e-6)
    logits = slow_mean(np.log(scores / (1 - scores)), weights)
    by_logit = average(scores, weights, "logit")
    np.testing.assert_allclose(by_logit, 1 / (1 + np.exp(-logits)), atol=1e-5)


@pytest.mark.parametrize("averaging", AVERAGINGS)
def test_a_member_that_knows_nothing_changes_nothing(averaging: str) -> None:
    scores = np.random.default_rng(1).uniform(0.1, 0.9, (2, 5, 3)).astype(np.float32)
    with_third = np.concatenate([scores, np.full((1, 5, 3), NAN, np.float32)])
    both = average(scores, [1.0, 3.0], averaging)
    np.testing.assert_allclose(average(with_third, [1.0, 3.0, 9.0], averaging), both, atol=1e-6)


def test_a_member_that_failed_on_the_way_counts_for_no_file() -> None:
    scores = members()
    files = [scores[:2, :4], scores[:2, 4:].copy()]
    files[1][1] = NAN  # it failed at the second file
    spec = Spec({"kit": 1.0, "bird": 1.0}, soft=("bird",))
    first, second = combine(files, spec)
    assert first is not None
    assert second is not None
    np.testing.assert_allclose(first[:, :3], scores[0, :4, :3], atol=1e-6)
    np.testing.assert_allclose(second[:, :3], scores[0, 4:, :3], atol=1e-6)
    assert (first[:, 3] == 0).all()  # no member knows it, so its column is constant
    np.testing.assert_array_equal(without_incomplete(scores), scores)
