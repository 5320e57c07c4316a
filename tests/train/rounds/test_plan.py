"""The plan of a run follows its recipe, and what the data allows of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from birdkit.errors import UserError
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


def test_a_teacher_that_has_learnt_embeddings_alone_labels_nothing(tmp_path: Path) -> None:
    alone = "{fit={distil_weight=1.0}}"
    with pytest.raises(UserError, match="round 1: its teacher test_resnet learns embeddings alone"):
        plan.stages(tiny_recipe("teachers=[{}]", f"rounds=[{alone}, {{warm=true}}]"), tmp_path)
    for after in ("{warm=true, pseudo={share=0.0}}", '{warm=true, teacher=["birdnet"]}'):
        recipe = tiny_recipe("teachers=[{}]", f"rounds=[{alone}, {after}]")
        assert len(plan.stages(recipe, tmp_path)) == 2


def test_only_the_teachers_that_are_named_are_opened(tmp_path: Path) -> None:
    teachers = 'teachers=[{}, {name="other"}, {name="third"}]'
    rounds = '[{teacher=["other"]}, {fit={distil_weight=0.1, distil_from="third"}}, {}]'
    recipe = tiny_recipe(teachers, f"rounds={rounds}")
    assert list(plan.wanted_teachers(recipe, plan.stages(recipe, tmp_path))) == ["other", "third"]
    unused = tiny_recipe(teachers, 'rounds=[{teacher=["other"], pseudo={share=0.0}}]')
    assert plan.wanted_teachers(unused, plan.stages(unused, tmp_path)) == {}


def test_a_first_round_that_is_taught_needs_soundscapes(tmp_path: Path) -> None:
    dataset: Any = SimpleNamespace(
        competition=SimpleNamespace(roots=(tmp_path,)), soundscapes=lambda validating: []
    )
    recipe = tiny_recipe("teachers=[{}]", 'rounds=[{teacher=["birdnet"]}]')
    with pytest.raises(UserError, match="round 0: there are no unlabelled soundscapes"):
        plan.without_soundscapes(recipe, plan.stages(recipe, tmp_path), dataset)
