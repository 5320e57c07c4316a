"""What a plan says of the time that a run takes, and when."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from birdkit import audio
from birdkit.errors import UserError
from tests.conftest import tiny_job, tiny_recipe
from train import run as train_run
from train.config import recipe
from train.data import dataset
from train.fit.loop import total_steps
from train.fit.trainer import Trainer
from train.rounds import estimate, plan
from train.rounds.estimate import Clock

STEP_S = 0.02


@pytest.fixture
def found(competition: Path, tmp_path: Path) -> dataset.Dataset:
    return dataset.read([competition], tiny_recipe(), tmp_path)[0]


@pytest.fixture
def clock(found: dataset.Dataset, tmp_path: Path) -> Callable[[], Clock]:
    return lambda: Clock(found, torch.device("cpu"), tmp_path / "cache")


def steps_that(monkeypatch: pytest.MonkeyPatch, work: Callable[[], Any]) -> list[int]:
    """A trainer whose steps only do this; the number of samples of each that was taken."""
    sizes: list[int] = []

    def step(trainer: Trainer, waveforms: torch.Tensor, *_: Any) -> None:
        sizes.append(len(waveforms))
        work()

    monkeypatch.setattr(Trainer, "step", step)
    return sizes


def busy() -> None:
    end = time.process_time() + STEP_S
    while time.process_time() < end:
        pass


def test_a_machine_that_others_use_gives_a_range_and_it_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, clock: Callable[[], Clock]
) -> None:
    # By Linux's count two threads ran for a tenth of the time and waited for a core for the rest.
    counted = iter(np.array([[0, 0], [2, 18]] * 12) * STEP_S)
    monkeypatch.setattr(estimate, "_ran_and_waited", lambda: next(counted))
    sizes = steps_that(monkeypatch, lambda: time.sleep(10 * STEP_S))
    alone_s, beside_others_s = clock().step_s(tiny_job())
    assert sizes == [2, 2, 2, 8, 8, 8]
    assert alone_s == pytest.approx(2 * STEP_S, rel=0.3)  # 16 samples a step
    assert beside_others_s == pytest.approx(10 * alone_s, rel=0.3)
    clock().step_s(tiny_job())
    assert len(sizes) == 12


def test_a_step_that_is_slow_is_timed_on_two_samples(
    monkeypatch: pytest.MonkeyPatch, clock: Callable[[], Clock]
) -> None:
    monkeypatch.setattr(estimate, "QUICK_S", STEP_S / 4)
    sizes = steps_that(monkeypatch, busy)
    alone_s, _ = clock().step_s(tiny_job())
    assert sizes == [2, 2, 2]
    assert alone_s == pytest.approx(8 * STEP_S, rel=0.5)


def test_a_step_that_had_the_machine_to_itself_is_timed_once(
    monkeypatch: pytest.MonkeyPatch, clock: Callable[[], Clock]
) -> None:
    monkeypatch.setattr(estimate, "MOST_LOAD", 1e9)  # this machine may have neighbours
    sizes = steps_that(monkeypatch, busy)
    first = clock().step_s(tiny_job())
    np.testing.assert_array_equal(clock().step_s(tiny_job()), first)
    assert len(sizes) == 6
    clock().step_s(tiny_job("fit.batch=8"))
    assert len(sizes) == 12
    assert clock().training_s(tiny_job()) == pytest.approx(first * 20)


def test_linux_counts_what_the_threads_of_a_process_ran() -> None:
    before = estimate._ran_and_waited()
    busy()
    ran, waited = estimate._ran_and_waited() - before
    assert STEP_S / 2 < ran < 2 * STEP_S or not Path("/proc/self/schedstat").exists()
    assert waited >= 0


def test_a_batch_that_does_not_fit_is_named(
    monkeypatch: pytest.MonkeyPatch, clock: Callable[[], Clock]
) -> None:
    def out_of_memory() -> None:
        raise torch.OutOfMemoryError

    steps_that(monkeypatch, out_of_memory)
    with pytest.raises(UserError, match=r"fit\.batch 16 of test_resnet is too large"):
        clock().step_s(tiny_job())


def test_the_plan_comes_before_anything_is_timed(
    monkeypatch: pytest.MonkeyPatch, clock: Callable[[], Clock], tmp_path: Path
) -> None:
    stages = plan.stages(tiny_recipe("rounds=[{}, {}]"), tmp_path)
    (first,), (second,) = (stage.members for stage in stages)
    sizes = steps_that(monkeypatch, busy)
    lines, timed = [], []
    for line in estimate.describe(stages, clock(), {1: 36}, {first.final}):
        lines.append(line)
        timed.append(len(sizes))
    assert lines[1].endswith("20 steps of 16 (16 draws for each of 20 recordings), done already")
    assert lines[4].endswith("recordings), to do")
    assert lines[0] == "round 0: labelled data"
    assert lines[2].startswith("round 1: labelled data and 36 pseudo-labelled windows")
    assert lines[3] == "  pseudo labels        to do"
    assert [line.partition(": about")[0] for line in lines[5:]] == [
        "round 1, pseudo labels",
        "round 1, test_resnet",
        "left to do",
    ]
    assert timed[:5] == [0] * 5
    assert timed[5] == 6


@pytest.mark.parametrize(
    ("seconds", "text"),
    [((3, 3.2), "3 s"), ((50, 104), "50 s to 1 min 40 s"), ((3720, 100800), "1 h 2 min to 1 d 4 h")],
)
def test_a_range_has_both_ends_where_they_differ(seconds: tuple[float, float], text: str) -> None:
    assert estimate._range(np.array(seconds)) == text


def test_settings_are_refused_before_anything_is_decoded(
    competition: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audio, "read", None)
    where = ["--data", str(competition), "--out", str(tmp_path / "run"), "--cache", str(tmp_path)]
    with pytest.raises(UserError, match=r"data\.n_folds 99 is more than"):
        train_run.main([*where, "--set", "data.n_folds=99"])


def untimed(n_recordings: int) -> Any:
    """A clock that times no step, for so many recordings."""
    of_data: Any = SimpleNamespace(recordings_of=lambda data: ([None] * n_recordings, [], ""))
    timed: Any = Clock(of_data, of_data, Path())
    timed.step_s = lambda job, at_a_time=1: np.ones(2)
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
    lines = estimate.describe(stages, untimed(n_recordings), dict.fromkeys(range(9), 12), set())
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
