from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from birdkit.contract import Contract
from birdkit.engines import golden


@pytest.mark.parametrize(
    ("logits", "off", "right"),
    [
        ([-5910.0, -350.0], [0.25, 0.05], True),
        ([-5910.0, -350.0], [25.0, 0.0], False),
        ([-5.0, 2.0], [0.005, 0.005], True),
        ([-5.0, 2.0], [0.02, 0.0], False),
        ([-5.0, 2.0], [np.nan, 0.0], False),
    ],
)
def test_recorded_logits_of_thousands_may_be_missed_by_more(
    logits: list[float], off: Any, right: bool, tmp_path: Path
) -> None:
    recorded = {"segmentwise": [logits, [0.5, -1.0]], "clipwise": [[0.0, 0.0], [0.3, 0.2]]}
    (tmp_path / golden.NAME).write_text(json.dumps({"m": {"f32": recorded}}))
    answers = {name: np.array(values, dtype=np.float32) for name, values in recorded.items()}
    answers["segmentwise"][0] += off
    assert (
        golden.fault(tmp_path, "m", "f32", Contract(100, 5.0, 5.0, ("a", "b")), answers) == ""
    ) == right


@pytest.mark.parametrize(("precision", "allowed"), [("f32", 0.01), ("bf16", 0.5), ("int8", 1.0)])
def test_a_lower_precision_may_miss_by_what_its_gate_allows(
    precision: str, allowed: float, tmp_path: Path
) -> None:
    contract = Contract(100, 5.0, 5.0, ("a", "b"))
    recorded = {"segmentwise": [[-5.0, 2.0], [0.5, -1.0]], "clipwise": [[0.0, 0.0], [0.3, 0.2]]}
    (tmp_path / golden.NAME).write_text(json.dumps({"m": {precision: recorded}}))

    def fault(output: str, off: float) -> str:
        answers = {name: np.array(values, dtype=np.float32) for name, values in recorded.items()}
        answers[output][1, 1] += off
        return golden.fault(tmp_path, "m", precision, contract, answers)

    assert fault("segmentwise", 0.9 * allowed) == fault("clipwise", 0.09 * allowed) == ""
    assert "segmentwise" in fault("segmentwise", 1.1 * allowed)
    assert "clipwise" in fault("clipwise", 0.11 * allowed)
