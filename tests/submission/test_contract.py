from __future__ import annotations

import json
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


@pytest.mark.parametrize("field", ["sample_rate", "chunk_s", "window_s", "classes", "outputs"])
def test_a_missing_field_is_named(contract: Contract, field: str) -> None:
    facts = json.loads(contract.to_metadata()[METADATA_KEY])
    del facts[field]
    with pytest.raises(ContractError, match=f"m.onnx: contract lacks {field}"):
        Contract.from_metadata({METADATA_KEY: json.dumps(facts)}, "m.onnx")


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
    ],
)
def test_a_contract_that_contradicts_itself_is_refused(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(UserError):
        Contract(*arguments)
