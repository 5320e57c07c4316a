from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from birdkit import log
from export.gates import parity


@pytest.mark.parametrize("level", log.LEVELS)
@pytest.mark.parametrize("stretch_s", [0.0, 60.0])
def test_each_input_is_asked_once_and_in_order_whatever_is_shown(level: str, stretch_s: float) -> None:
    log.show(level)
    asked = []

    def engine(batch: Any) -> Any:
        asked.append(len(batch))
        return {"clipwise": batch.copy()}

    engine.contract = SimpleNamespace(stretch_s=stretch_s)  # type: ignore[attr-defined]
    inputs = np.arange(23, dtype=np.float32)[:, None]
    answers: Any = parity.answers(engine, inputs)  # type: ignore[arg-type]
    np.testing.assert_array_equal(answers["clipwise"], inputs)
    assert sum(asked) == 23
    assert len({*asked}) > 1  # batches of several sizes
