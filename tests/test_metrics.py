from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from birdkit.errors import UserError
from train import metrics
from train.metrics import macro_auc


@given(st.integers(0, 10_000))
def test_the_macro_is_scikit_learns_over_classes_with_both_kinds(seed):
    rng = np.random.default_rng(seed)
    truth = rng.random((30, 5)) < np.array([0.0, 1.0, 0.1, 0.5, 0.9])
    scores = rng.random((30, 5)).round(1)  # with ties
    usable = [c for c in range(5) if 0 < truth[:, c].sum() < 30]
    result = macro_auc(truth, scores)
    expected = roc_auc_score(truth[:, usable], scores[:, usable], average="macro")
    assert result.macro == pytest.approx(expected)
    assert result.n_scored == len(usable)


def test_undecided_cells_are_left_out():
    truth = np.array([[True], [False], [False]])
    scores = np.array([[0.5], [0.9], [0.1]])
    assert macro_auc(truth, scores).macro == 0.5
    assert macro_auc(truth, scores, np.array([[False], [True], [False]])).macro == 1.0
    # What is undecided may be the last of its kind: then the class has no ROC.
    assert macro_auc(truth, scores, np.array([[True], [False], [False]])).n_scored == 0


def test_nothing_to_score_is_nan_and_nan_scores_are_refused():
    assert np.isnan(macro_auc(np.zeros((3, 2), bool), np.zeros((3, 2))).macro)
    with pytest.raises(UserError, match="NaN"):
        macro_auc(np.eye(2, dtype=bool), np.full((2, 2), np.nan))


@pytest.fixture
def validation(tmp_path):
    truth = pd.DataFrame({"row_id": ["s_5", "s_10", "s_15"], "a": [1, 0, 0], "22": [0, 1, 1]})
    truth.to_csv(tmp_path / "truth.csv", index=False)
    mask = truth.assign(a=[0, 1, 0])
    mask["22"] = 0
    mask.to_csv(tmp_path / "mask.csv", index=False)
    return tmp_path


def test_a_submission_is_matched_by_row_and_column_name(validation, capsys):
    table = pd.DataFrame(
        {"row_id": ["s_15", "s_5", "s_10"], "22": [0.9, 0.1, 0.8], "a": [0.1, 0.5, 0.9]}
    )
    table.to_csv(validation / "sub.csv", index=False)
    arguments = [str(validation / "sub.csv"), "--validation", str(validation)]
    assert metrics.main(arguments) == 0
    assert "1.0000 over 2 classes" in capsys.readouterr().out


def test_a_score_below_the_bar_is_exit_status_1_and_a_lost_row_is_named(validation):
    table = pd.DataFrame({"row_id": ["s_5", "s_10", "s_15"], "a": [0.1, 0.5, 0.9], "22": [1, 0, 0]})
    table.to_csv(validation / "sub.csv", index=False)
    arguments = [str(validation / "sub.csv"), "--validation", str(validation), "--at-least", "0.9"]
    assert metrics.main(arguments) == 1
    table[:2].to_csv(validation / "sub.csv", index=False)
    with pytest.raises(UserError, match=r"lacks 1 rows of .*truth\.csv \(s_15\)"):
        metrics.main(arguments)
