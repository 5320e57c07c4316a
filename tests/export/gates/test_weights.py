from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from birdkit.errors import UserError
from export.gates import weights
from export.gates.weights import Combine, Fitted
from train.scoring.auc import Difference, macro_auc
from train.scoring.truth import Truth

Scores = NDArray[np.float32]


def mean(scores: Scores, shares: Sequence[float]) -> Scores:
    return np.tensordot(np.asarray(shares, dtype=np.float32), scores, axes=1)


def mean_rank(scores: Scores, shares: Sequence[float]) -> Scores:
    ranks = scores.argsort(axis=1).argsort(axis=1) / scores.shape[1]
    return mean(ranks.astype(np.float32), shares)


def library(
    seed: int, noises: Sequence[float], n_groups: int = 12, windows: int = 8, classes: int = 8
) -> tuple[Scores, Truth]:
    """Scores of members, which are truth with noise of their own; everything is decided."""
    rng = np.random.default_rng(seed)
    truth = rng.random((n_groups * windows, classes)) < 0.2
    logits = np.stack([1.5 * truth + noise * rng.standard_normal(truth.shape) for noise in noises])
    groups = np.repeat(np.arange(n_groups), windows)
    scores = (1 / (1 + np.exp(-logits))).astype(np.float32)
    return scores, Truth.of(truth, groups=groups)


def same(one: Fitted, other: Fitted) -> bool:
    return (
        str(one) == str(other)
        and one.weights == other.weights
        and np.array_equal(one.gain.draws, other.gain.draws, equal_nan=True)
    )


@pytest.mark.parametrize("combine", [mean, mean_rank])
def test_a_useless_member_beside_a_good_one_gets_the_least_weight_there_is(combine: Combine) -> None:
    scores, truth = library(0, [0.7, 8.0])
    fitted = weights.fit(scores, truth, combine, draws=200)
    assert fitted.accepted
    # In the multiset once: at most 1 of 2 + N_PICKS, a little more where the best prefix is shorter.
    assert fitted.weights[1] < 0.1
    assert fitted.held_out > fitted.equal + 0.05
    assert fitted.gain.estimate == pytest.approx(fitted.held_out - fitted.equal, abs=1e-12)
    assert str(fitted).startswith("fitted weights 0.9")
    table = combine(scores, fitted.weights)
    assert fitted.in_sample == pytest.approx(macro_auc(truth, table).macro, abs=1e-12)


def test_members_of_equal_worth_keep_equal_weights_though_others_fit_the_few_rows_better() -> None:
    refused = 0
    for seed in range(20):
        scores, truth = library(seed, [1.0, 1.0, 1.0], n_groups=6, windows=4, classes=5)
        fitted = weights.fit(scores, truth, mean, draws=200)
        assert fitted.in_sample >= fitted.equal
        if not fitted.accepted:
            refused += 1
            assert fitted.weights == (1 / 3, 1 / 3, 1 / 3)
            assert str(fitted).startswith("equal weights, as fitted ones ")
    # The bound is a 90 % one, so two in twenty may slip through by chance.
    assert refused >= 18


def test_a_gain_that_may_be_chance_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, truth = library(0, [0.7, 8.0])
    # The interval reaches below zero at its lower end alone.
    monkeypatch.setattr(Difference, "bound", lambda self, share: -0.001 if share < 0.5 else 0.1)
    fitted = weights.fit(scores, truth, mean, draws=20)
    assert not fitted.accepted
    assert fitted.weights == (0.5, 0.5)
    assert "may be chance" in str(fitted)


def test_held_out_rows_have_no_say_in_the_weights_that_score_them() -> None:
    scores, truth = library(3, [1.0, 1.0, 2.0], n_groups=3)
    seen = []

    def spy(members: Any, shares: Any) -> Any:
        seen.append(tuple(shares))
        return mean(members, shares)

    held = truth.groups == 2
    tables = []
    for labels in (truth.labels, truth.labels ^ held[:, None]):
        table = weights._cross_fitted(scores, replace(truth, labels=labels), spy)
        tables.append(table[held])
    assert np.array_equal(*tables)
    assert len(set(seen)) > 3


def test_undecided_cells_have_no_say() -> None:
    scores, truth = library(1, [1.0, 3.0])
    decided = np.random.default_rng(0).random(truth.labels.shape) < 0.8
    truth = replace(truth, decided=decided)
    one = weights.fit(scores, truth, mean, draws=50)
    turned = replace(truth, labels=np.where(decided, truth.labels, ~truth.labels))
    other = weights.fit(scores, turned, mean, draws=50)
    assert same(one, other)


@settings(max_examples=10)
@given(st.integers(0, 10_000), st.integers(2, 4), st.integers(2, 7))
def test_weights_are_a_share_each_and_the_same_every_time(
    seed: int, n_members: int, n_groups: int
) -> None:
    noises = np.random.default_rng(seed).uniform(0.5, 4.0, n_members)
    scores, truth = library(seed, noises.tolist(), n_groups=n_groups, windows=4, classes=3)
    fitted = weights.fit(scores, truth, mean, draws=50)
    assert len(fitted.weights) == n_members
    assert min(fitted.weights) > 0
    assert sum(fitted.weights) == pytest.approx(1.0, abs=1e-12)
    assert same(fitted, weights.fit(scores, truth, mean, draws=50))


@pytest.mark.parametrize("rename", [lambda g: 1000 - g, lambda g: np.array([f"s{x}" for x in g])])
def test_what_the_groups_are_called_does_not_matter(rename: Any) -> None:
    scores, truth = library(2, [1.0, 2.0, 1.5])
    fitted = weights.fit(scores, truth, mean, draws=50)
    assert same(
        fitted, weights.fit(scores, replace(truth, groups=rename(truth.groups)), mean, draws=50)
    )


def test_one_member_has_nothing_to_weigh_even_with_one_group() -> None:
    scores, truth = library(0, [1.0], n_groups=1)
    fitted = weights.fit(scores, truth, mean)
    assert fitted.weights == (1.0,)
    assert not fitted.accepted
    assert fitted.equal == fitted.held_out == fitted.in_sample == macro_auc(truth, scores[0]).macro
    assert fitted.gain.estimate == 0
    assert str(fitted) == f"one member, so nothing to weigh; macro-AUC {fitted.equal:.4f}"


def test_a_fold_that_leaves_nothing_to_fit_to_gets_equal_weights() -> None:
    scores, truth = library(0, [1.0, 2.0], n_groups=2)
    groups = truth.groups
    truth.labels[groups == 0] = False
    held_out = weights._cross_fitted(scores, truth, mean)
    assert np.array_equal(held_out[groups == 1], mean(scores, (0.5, 0.5))[groups == 1])


def test_too_little_truth_and_nan_scores_are_refused_with_what_to_do() -> None:
    scores, truth = library(0, [1.0, 2.0])
    with pytest.raises(UserError, match="two or more"):
        weights.fit(scores, replace(truth, groups=np.zeros_like(truth.groups)), mean)
    with pytest.raises(UserError, match="more truth"):
        weights.fit(scores, replace(truth, labels=np.zeros_like(truth.labels)), mean)
    scores[1, 0, 0] = np.nan
    with pytest.raises(UserError, match="NaN"):
        weights.fit(scores, truth, mean)
