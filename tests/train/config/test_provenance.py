"""What made an artefact, and whether it is kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.config import provenance

plain = st.none() | st.booleans() | st.integers() | st.text()
tables = st.recursive(
    st.dictionaries(st.text(), plain | st.lists(plain)),
    lambda inner: st.dictionaries(st.text(), plain | inner),
)


@given(tables)
def test_what_was_made_by_the_same_is_kept_whenever_it_is_read_back(made_by: provenance.MadeBy) -> None:
    assert provenance.can_be_kept(made_by, json.loads(json.dumps(made_by)))
    assert provenance.differences(made_by, made_by) == []
    assert len(provenance.key(made_by)) == 64


def test_differences_are_named_by_their_place() -> None:
    one = {"job": {"fit": {"lr": 1.0, "batch": 2}}, "data": "x", "parents": {"a": "1"}}
    other = {"job": {"fit": {"lr": 2.0, "batch": 2}}, "data": "x", "parents": {"b": "1"}}
    assert provenance.differences(one, other) == ["job.fit.lr", "parents.a", "parents.b"]
    assert not provenance.can_be_kept(one, other)
    assert provenance.key(one) != provenance.key(other)


@pytest.mark.parametrize("made_by", [None, "text", 3, []])
def test_an_artefact_that_does_not_say_what_made_it_is_not_kept(made_by: object) -> None:
    assert not provenance.can_be_kept({}, made_by)


def test_a_file_that_is_written_anew_is_another(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("1")
    before = provenance.file_state(path)
    assert provenance.file_state(path) == before
    path.write_text("12")
    assert provenance.file_state(path) != before
