"""The plan of a run follows its recipe, and what the data allows of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import tiny_recipe
from train.rounds import plan


@pytest.mark.parametrize("there", [True, False])
def test_the_stages_without_soundscapes_are_those_of_the_recipe_that_is_kept(
    there: bool, tmp_path: Path
) -> None:
    if there:
        (tmp_path / "train_soundscapes").mkdir()
    dataset: Any = SimpleNamespace(
        competition=SimpleNamespace(roots=(tmp_path,)), soundscapes=lambda validating: []
    )
    recipe = tiny_recipe("rounds=[{}, {}, {warm=true}]")
    every = plan.stages(recipe, tmp_path / "run")
    kept, stages, lines = plan.without_soundscapes(recipe, every, dataset)
    assert len(stages) == (3 if there else 1)
    assert stages == plan.stages(kept, tmp_path / "run")
    assert len(lines) == (0 if there else 1)
