from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from birdkit.errors import UserError
from train import metrics
from train.scoring import auc
from train.scoring.auc import Difference, macro_auc, macro_aucs, paired_bootstrap, resampled_weights
from train.scoring.truth import Truth


@given(st.integers(0, 10_000))
def test_the_macro_is_scikit_learns_over_classes_with_both_kinds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.random((30, 5)) < np.array([0.0, 1.0, 0.1, 0.5, 0.9])
    scores = rng.random((30, 5)).round(1)  # with ties
    usable = [c for c in range(5) if 0 < truth[:, c].sum() < 30]
    result = macro_auc(Truth.of(truth), scores)
    expected = roc_auc_score(truth[:, usable], scores[:, usable], average="macro")
    assert result.macro == pytest.approx(expected)
    assert result.n_scored == len(usable)


def test_undecided_cells_are_left_out() -> None:
    truth = np.array([[True], [False], [False]])
    scores = np.array([[0.5], [0.9], [0.1]])
    assert macro_auc(Truth.of(truth), scores).macro == 0.5
    second, first = np.array([[True], [False], [True]]), np.array([[False], [True], [True]])
    assert macro_auc(Truth(truth, second, np.arange(3)), scores).macro == 1.0
    # What is undecided may be the last of its kind: then the class has no ROC.
    assert macro_auc(Truth(truth, first, np.arange(3)), scores).n_scored == 0


def test_nothing_to_score_is_nan_and_nan_scores_are_refused() -> None:
    assert np.isnan(macro_auc(Truth.of(np.zeros((3, 2), bool)), np.zeros((3, 2))).macro)
    with pytest.raises(UserError, match="NaN"):
        macro_auc(Truth.of(np.eye(2, dtype=bool)), np.full((2, 2), np.nan))


def random_case(
    seed: int, n_rows: int, n_classes: int = 3, groups: NDArray[Any] | None = None
) -> tuple[Truth, NDArray[Any], NDArray[Any]]:
    """Truth with undecided cells, two tables of scores with ties; some classes can't be scored."""
    rng = np.random.default_rng(seed)
    shape = (n_rows, n_classes)
    truth = rng.random(shape) < rng.choice([0.0, 0.05, 0.5, 0.95, 1.0], n_classes)
    single, double = ((rng.integers(0, rng.integers(1, 12), shape) / 7).astype(kind) for kind in "fd")
    decided = rng.random(shape) >= rng.choice([0.0, 0.3])
    return Truth(truth, decided, np.arange(n_rows) if groups is None else groups), single, double


@given(st.integers(0, 10_000), st.integers(1, 40))
def test_weights_of_one_give_scikit_learns_macro_and_of_n_that_of_n_copies_of_a_row(
    seed: int, n_rows: int
) -> None:
    truth, *tables = random_case(seed, n_rows)
    weights = np.random.default_rng(seed).integers(0, 4, (n_rows, 3))
    weights[:, 0] = 1
    for scores in tables:
        quick = macro_aucs(truth, scores, weights.astype(float))
        for times, macro in zip(weights.T, quick, strict=True):
            copies = np.repeat(np.arange(n_rows), times)
            # Both add a few hundred float64: 1e-12 is far above their rounding.
            expected = macro_auc(truth.rows(copies), scores[copies]).macro
            assert macro == pytest.approx(expected, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("cells_at_once", [1, 100, 2**18])
def test_a_bootstrap_scores_both_tables_on_the_same_resamples_of_whole_groups(
    cells_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auc, "CELLS_AT_ONCE", cells_at_once)
    groups = np.repeat(list("dacbe"), 6)
    truth, baseline, candidate = random_case(4, 30, groups=groups)
    difference = paired_bootstrap(truth, baseline, candidate, draws=50, seed=3)

    def on(times: int | NDArray[np.int64]) -> float:
        rows = np.repeat(np.arange(30), times)
        aucs = [macro_auc(truth.rows(rows), t[rows]).macro for t in (baseline, candidate)]
        return aucs[1] - aucs[0]

    weights = resampled_weights(groups, 50, np.random.default_rng(3)).astype(int)
    assert (weights.sum(axis=0) == 30).all()
    assert (weights.reshape(5, 6, 50) == weights[::6][:, None]).all()  # a group is drawn as one
    assert difference.estimate == pytest.approx(on(1), abs=1e-12)
    assert difference.draws == pytest.approx([on(times) for times in weights.T], abs=1e-12)
    assert np.unique(difference.draws).size > 10


def test_rows_of_one_group_are_no_more_evidence_than_one_row() -> None:
    truth, baseline, candidate = random_case(1, 20)
    once = paired_bootstrap(truth, baseline, candidate, draws=40)
    copies = np.repeat(np.arange(20), 9)
    often = paired_bootstrap(truth.rows(copies), baseline[copies], candidate[copies], draws=40)
    assert often.draws == pytest.approx(once.draws, abs=1e-12, nan_ok=True)


def test_a_table_does_not_differ_from_itself_and_swapping_two_turns_the_sign() -> None:
    truth, baseline, candidate = random_case(2, 25, groups=np.arange(25) // 5)
    assert not paired_bootstrap(truth, baseline, baseline, draws=20).draws.any()
    there = paired_bootstrap(truth, baseline, candidate, draws=20)
    back = paired_bootstrap(truth, candidate, baseline, draws=20)
    assert there.estimate == -back.estimate != 0
    assert np.array_equal(there.draws, -back.draws)


def test_a_difference_reads_as_estimate_and_the_middle_90_percent_of_its_draws() -> None:
    difference = Difference(0.0031, np.linspace(-0.002, 0.008, 101))
    assert str(difference) == "+0.0031 [90 % −0.0015 … +0.0075]"
    assert difference.bound(0.5) == pytest.approx(0.003)
    # A resample with nothing to score has no say.
    assert Difference(0.0, np.array([np.nan, 1.0, 3.0])).bound(0.5) == 2.0
    assert np.isnan(Difference(np.nan, np.full(3, np.nan)).bound(0.1))


@pytest.mark.parametrize(
    ("lowest", "highest", "verdict"),
    [
        (0.001, 0.02, "better"),
        (-0.02, -0.001, "worse"),
        (-0.01, 0.01, "can't tell"),
        (0.0, 0.0, "can't tell"),
    ],
)
def test_a_verdict_is_what_the_interval_leaves_no_doubt_of(
    lowest: float, highest: float, verdict: str
) -> None:
    assert Difference(0.5, np.linspace(lowest, highest, 101)).verdict == verdict
    assert Difference(np.nan, np.full(3, np.nan)).verdict == "can't tell"


def test_a_gain_of_the_detectable_size_is_told_four_times_in_five() -> None:
    rng = np.random.default_rng(4)
    spread = 0.02
    detectable = Difference(0.0, spread * rng.standard_normal(100_000)).detectable
    told = [
        Difference(found, found + spread * rng.standard_normal(400)).verdict == "better"
        for found in detectable + spread * rng.standard_normal(2000)
    ]
    assert np.mean(told) == pytest.approx(0.8, abs=0.03)
    assert np.isnan(Difference(np.nan, np.full(3, np.nan)).detectable)


def test_a_bootstrap_of_nothing_to_score_is_nan_and_scores_must_be_finite() -> None:
    empty = np.zeros((0, 2))
    assert np.isnan(paired_bootstrap(Truth.of(empty > 0), empty, empty, draws=3).draws).all()
    truth, scores = Truth.of(np.eye(2, dtype=bool), groups=np.array(["a", "b"])), np.eye(2)
    # Of one window drawn twice there is no ROC; both windows give 1 - 0.
    difference = paired_bootstrap(truth, 1 - scores, scores)
    assert difference.estimate == 1.0
    assert set(difference.draws[~np.isnan(difference.draws)]) == {1.0}
    assert 0.4 < np.isnan(difference.draws).mean() < 0.6
    for tables in ([scores * np.nan, scores], [scores, scores + np.inf]):
        with pytest.raises(UserError, match="NaN"):
            paired_bootstrap(truth, *tables)


@pytest.fixture
def validation(tmp_path: Path) -> Path:
    truth = pd.DataFrame({"row_id": ["s_5", "s_10", "s_15"], "a": [1, 0, 0], "22": [0, 1, 1]})
    truth.to_csv(tmp_path / "truth.csv", index=False)
    mask = truth.assign(a=[0, 1, 0])
    mask["22"] = 0
    mask.to_csv(tmp_path / "mask.csv", index=False)
    return tmp_path


def test_a_submission_is_matched_by_row_and_column_name(
    validation: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.DataFrame(
        {"row_id": ["s_15", "s_5", "s_10"], "22": [0.9, 0.1, 0.8], "a": [0.1, 0.5, 0.9]}
    )
    table.to_csv(validation / "sub.csv", index=False)
    arguments = [str(validation / "sub.csv"), "--validation", str(validation)]
    assert metrics.main(arguments) == 0
    assert "1.0000 over 2 classes" in capsys.readouterr().out


def test_a_score_below_the_bar_is_exit_status_1_and_a_lost_row_is_named(validation: Path) -> None:
    table = pd.DataFrame({"row_id": ["s_5", "s_10", "s_15"], "a": [0.1, 0.5, 0.9], "22": [1, 0, 0]})
    table.to_csv(validation / "sub.csv", index=False)
    arguments = [str(validation / "sub.csv"), "--validation", str(validation), "--at-least", "0.9"]
    assert metrics.main(arguments) == 1
    table[:2].to_csv(validation / "sub.csv", index=False)
    with pytest.raises(UserError, match=r"lacks 1 rows of .*truth\.csv \(s_15\)"):
        metrics.main(arguments)
