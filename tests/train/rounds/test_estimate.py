"""The plan of a run in words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from train.config import recipe
from train.fit.loop import total_steps
from train.rounds import estimate, plan


def clock(n_recordings: int) -> Any:
    """A clock that times no step, for so many recordings."""
    of_data: Any = SimpleNamespace(recordings_of=lambda data: ([None] * n_recordings, [], ""))
    timed: Any = estimate.Clock(of_data, of_data)
    timed.step_s = lambda job: 1.0
    return timed


@pytest.mark.parametrize(
    ("name", "n_recordings", "steps"),
    [
        ("mini", 224, "400 steps of 32 (57 draws for each of 224 recordings)"),
        ("mini", 28_564, "4,465 steps of 32 (5 draws for each of 28,564 recordings)"),
        ("birdclef2026", 28_564, "13,395 steps of 32 (15 draws for each of 28,564 recordings)"),
        ("demo", 28_564, "150 steps of 32 (0.17 draws for each of 28,564 recordings)"),
    ],
)
def test_the_steps_follow_the_number_of_recordings_and_the_plan_says_so(
    name: str, n_recordings: int, steps: str
) -> None:
    stages = plan.stages(recipe.load(name), Path("run"))
    lines = estimate.describe(stages, clock(n_recordings), dict.fromkeys(range(9), 12), set())
    trainings = [line for line in lines if " steps of " in line]
    assert len(trainings) == sum(len(stage.members) for stage in stages)
    assert all(steps in line for line in trainings)


@pytest.mark.parametrize(("n", "steps"), [(0, 10), (1, 10), (160, 10), (161, 11), (320, 20)])
def test_few_recordings_have_a_least_number_of_steps(n: int, steps: int) -> None:
    fit = recipe.load("demo", ["fit.steps_per_epoch=0", "fit.batch=16", "fit.epochs=1"]).fit
    assert total_steps(replace(fit, min_steps_per_epoch=10), n) == steps
    assert total_steps(fit, n) == max(1, -(-n // 16))


def test_the_recipe_of_2026_trains_on_labelled_soundscapes() -> None:
    assert recipe.load("birdclef2026").data.labelled == "split"
