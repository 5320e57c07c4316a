from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdkit.contract import METADATA_KEY, Contract, ContractError
from birdkit.errors import UserError

labels = st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=20, unique=True)
seconds = st.floats(0.1, 60.0)


@given(labels, st.integers(1, 96000), seconds, seconds)
def test_a_contract_survives_the_metadata_of_a_model_file(
    names: list[str], rate: int, one_s: float, other_s: float
) -> None:
    contract = Contract(rate, max(one_s, other_s), min(one_s, other_s), tuple(names))
    assert Contract.from_metadata(contract.to_metadata(), "m.onnx") == contract


@given(st.integers(1, 120), st.floats(0.1, 5.0), st.floats(0.01, 0.1))
def test_a_contract_over_stretches_survives_and_is_one_of_windows_to_the_submission(
    windows: int, window_s: float, frame_s: float
) -> None:
    plain = Contract(32000, window_s, window_s, ("a", "b"))
    contract = plain.over_stretches(windows * window_s, frame_s)
    assert Contract.from_metadata(contract.to_metadata(), "m.onnx") == contract
    assert contract.stretch_windows == windows
    assert contract.input_samples == windows * contract.window_samples
    assert contract.windowed == plain


def test_a_file_of_version_2_hears_windows(contract: Contract) -> None:
    facts = json.loads(contract.to_metadata()[METADATA_KEY]) | {"version": 2}
    del facts["stretch_s"], facts["frame_s"]
    assert Contract.from_metadata({METADATA_KEY: json.dumps(facts)}, "m.onnx") == contract


@pytest.mark.parametrize(
    "field", ["sample_rate", "chunk_s", "window_s", "classes", "outputs", "stretch_s"]
)
def test_a_missing_field_is_named(contract: Contract, field: str) -> None:
    facts = json.loads(contract.to_metadata()[METADATA_KEY])
    del facts[field]
    with pytest.raises(ContractError, match=f"m.onnx: contract lacks {field}"):
        Contract.from_metadata({METADATA_KEY: json.dumps(facts)}, "m.onnx")


def test_a_file_of_version_3_has_no_members_by_window(contract: Contract) -> None:
    facts = json.loads(contract.over_stretches(30.0, 0.5).to_metadata()[METADATA_KEY]) | {"version": 3}
    del facts["by_window"]
    read = Contract.from_metadata({METADATA_KEY: json.dumps(facts)}, "m.onnx")
    assert read == contract.over_stretches(30.0, 0.5)


def test_members_by_window_survive_and_need_stretches_of_chunks_like_windows(
    contract: Contract,
) -> None:
    both = replace(contract.over_stretches(30.0, 0.5), members=("a", "b"), by_window=("b",))
    assert Contract.from_metadata(both.to_metadata(), "m.onnx") == both
    assert both.windowed == replace(contract, members=("a", "b"))
    for wrong in (contract, replace(contract.over_stretches(30.0, 0.5), chunk_s=10.0)):
        with pytest.raises(ContractError, match="by_window"):
            replace(wrong, by_window=("b",))


def test_a_file_without_a_contract_or_of_another_version_is_refused(contract: Contract) -> None:
    with pytest.raises(ContractError, match=r"m.onnx: no 'birdkit.contract'"):
        Contract.from_metadata({}, "m.onnx")
    facts = json.loads(contract.to_metadata()[METADATA_KEY]) | {"version": 99}
    with pytest.raises(ContractError, match="version 99"):
        Contract.from_metadata({METADATA_KEY: json.dumps(facts)}, "m.onnx")


@pytest.mark.parametrize(
    "arguments",
    [
        (32000, 5.0, 10.0, ("a",)),  # answers for more than it hears
        (0, 5.0, 5.0, ("a",)),
        (32000, 5.0, 5.0, ("a", "a")),
        (32000, 5.0, 5.0, ()),
        (32000, 5.0, 5.0, ("a",), ("loudness",)),
        (32000, 5.0, 5.0, ("a",), ("framewise", "attention")),  # of windows
        (32000, 5.0, 5.0, ("a",), ("clipwise", "segmentwise"), (), 60.0, 0.5),  # of stretches
        (32000, 5.0, 5.0, ("a",), ("framewise", "attention"), (), 7.0, 0.5),
        (32000, 5.0, 5.0, ("a",), ("framewise", "attention"), (), -60.0, 0.5),
        (32000, 5.0, 5.0, ("a",), ("framewise", "attention"), (), math.nan, 0.5),
        (32000, 5.0, 5.0, ("a",), ("framewise", "attention"), (), math.inf, 0.5),
        (32000, 5.0, 5.0, ("a",), ("framewise", "attention"), (), 60.0, 0.0),
        (32000, 5.0, 5.0, ("a",), ("framewise", "attention"), (), 60.0, math.nan),
    ],
)
def test_a_contract_that_contradicts_itself_is_refused(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(UserError):
        Contract(*arguments)
