"""Kept scores are read again as they were, and files of earlier runs still load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from birdkit.errors import UserError
from train.scoring import summary
from train.scoring.summary import Header, Scored
from train.scoring.truth import Truth

HEADER = Header("validation", ("clipwise",), ("m", "ensemble"), ("a", "b"), {"m": "hash"})
TRUTH = Truth.of(np.eye(2, dtype=bool), np.array([[1, 1], [0, 1]], dtype=bool), np.array([0, 0]))
SCORES = np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2)


def test_saved_scores_load_as_they_were(tmp_path: Path) -> None:
    Scored(HEADER, SCORES, TRUTH).save(tmp_path / "scores.npz")
    loaded = Scored.load(tmp_path / "scores.npz")
    assert loaded.header == HEADER
    assert loaded.truth.same_as(TRUTH)
    assert loaded.scores.tolist() == SCORES.tolist()


def test_groups_that_are_names_of_files_are_kept_as_numbers(tmp_path: Path) -> None:
    named = Truth.of(TRUTH.labels, groups=np.array(["b", "a"], dtype=object))
    Scored(HEADER, SCORES, named).save(tmp_path / "scores.npz")
    assert Scored.load(tmp_path / "scores.npz").truth.groups.tolist() == [0, 1]


def test_the_keys_of_the_file_stay_so_that_files_of_earlier_runs_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "scores.npz"
    fields: dict[str, object] = {"name": "validation", "outputs": ["clipwise"], "classes": ["a", "b"]}
    fields |= {"models": ["m", "ensemble"], "made_by": {"m": "hash"}}
    arrays: dict[str, Any] = {"truth": TRUTH.labels, "decided": TRUTH.decided, "groups": TRUTH.groups}
    np.savez_compressed(path, facts=json.dumps(fields), scores=SCORES, **arrays)
    earlier = Scored.load(path)
    assert earlier.header == HEADER
    assert earlier.truth.same_as(TRUTH)
    earlier.save(path)
    with np.load(path) as kept:
        assert set(kept) == {"facts", "scores", *arrays}
        assert json.loads(str(kept["facts"])) == fields


def test_without_any_set_the_tables_have_their_header_and_the_log_says_why(tmp_path: Path) -> None:
    tables = summary.of_round(0, [], [])
    summary.write([tables], tmp_path)
    assert (tmp_path / "summary.csv").read_text() == "round,model,set,output,macro_auc,n_scored\n"
    per_class = "round,model,set,output,class,n_positive,auc\n"
    assert (tmp_path / "per_class.csv").read_text() == per_class
    (line,) = summary.lines(tables.models)
    assert "data.fold" in line


def test_a_round_is_compared_with_the_one_before_only_on_the_same_truth() -> None:
    scored = Scored(HEADER, SCORES, TRUTH)
    other = Scored(HEADER, SCORES, Truth.of(~TRUTH.labels, TRUTH.decided, TRUTH.groups))
    assert "gain" in summary.of_round(1, [scored], [scored]).models
    assert "gain" not in summary.of_round(1, [scored], [other]).models


def test_a_damaged_file_is_named_and_none_wherever_its_content_would_differ(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = summary.scores_path(tmp_path, "validation")
    assert summary._saved(path) is None
    Scored(HEADER, SCORES, TRUTH).save(path)
    good = path.read_bytes()
    for at in range(0, len(good), 13):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1 :])
        loaded = summary._saved(path)
        if loaded is None:
            assert capsys.readouterr().err.startswith(f"{path}: damaged (")
        else:  # in what nobody reads, such as the time of writing
            assert loaded.header == HEADER
            assert loaded.truth.same_as(TRUTH)
            assert loaded.scores.tolist() == SCORES.tolist()
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(UserError, match=r"train/run\.py makes it again"):
        Scored.load(path)
