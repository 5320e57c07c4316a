"""Truth is one value: labels, decided cells and groups that fit together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from birdkit.errors import UserError
from train.scoring.truth import Truth, read_truth

LABELS = np.array([[1, 0], [0, 1], [1, 1]], dtype=bool)


def test_unless_given_every_cell_is_decided_and_each_row_is_a_file_of_its_own() -> None:
    truth = Truth.of(LABELS)
    assert truth.decided.all()
    assert truth.groups.tolist() == [0, 1, 2]
    assert Truth.of(LABELS, groups=np.array([0, 0, 1])).groups.tolist() == [0, 0, 1]
    assert len(Truth.of(LABELS[:0])) == 0


def test_selected_rows_keep_their_labels_decided_cells_and_groups() -> None:
    truth = Truth.of(LABELS, LABELS, np.array([0, 1, 1])).rows(np.array([2, 0]))
    assert truth.labels.tolist() == truth.decided.tolist() == [[True, True], [True, False]]
    assert truth.groups.tolist() == [1, 0]


def test_only_decided_positives_are_counted() -> None:
    decided = np.array([[1, 1], [1, 1], [0, 1]], dtype=bool)
    assert Truth.of(LABELS, decided).n_positive.tolist() == [1, 2]


def test_truths_are_the_same_where_they_decide_the_same_cells_alike() -> None:
    truth = Truth.of(LABELS)
    assert truth.same_as(Truth.of(LABELS.copy()))
    assert not truth.same_as(Truth.of(LABELS[:2]))
    assert not truth.same_as(Truth.of(LABELS == 0))
    assert not truth.same_as(Truth.of(LABELS, LABELS))


def test_shapes_that_do_not_fit_are_refused() -> None:
    for decided, groups in ((LABELS[:2], np.arange(3)), (LABELS, np.arange(2))):
        with pytest.raises(ValueError, match=r"\(3, 2\)"):
            Truth(LABELS, decided, groups)
    with pytest.raises(ValueError, match="shapes"):
        Truth.of(LABELS[0], LABELS[0])


def test_the_masks_ones_are_undecided_and_without_a_mask_all_is_decided(tmp_path: Path) -> None:
    (tmp_path / "truth.csv").write_text("row_id,a,b\ns_5,1,0\ns_10,0,1\n")
    truth = read_truth(tmp_path).truth
    assert truth.labels.tolist() == [[True, False], [False, True]]
    assert truth.decided.all()
    assert truth.groups.tolist() == ["s", "s"]
    (tmp_path / "mask.csv").write_text("row_id,b,a\ns_10,0,0\ns_5,1,0\n")
    table = read_truth(tmp_path)
    assert table.truth.decided.tolist() == [[True, False], [True, True]]
    assert table.select(["s_10", "s_5"], ["b"]).decided.tolist() == [[True], [False]]
    (tmp_path / "mask.csv").write_text("row_id,a,b\ns_5,1,0\n")
    with pytest.raises(UserError, match=r"mask\.csv: lacks rows or columns"):
        read_truth(tmp_path)
