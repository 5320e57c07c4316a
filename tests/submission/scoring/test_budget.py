"""The margins of a run's time, on figures that can be worked out by hand."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from birdkit.contract import Contract
from birdkit.kaggle import session
from birdkit.scoring import budget, passes
from birdkit.scoring.budget import Budget
from birdkit.scoring.parts import SoundFile
from birdkit.scoring.passes import Pass, Progress, run_passes
from birdkit.scoring.predict import Prediction


def test_a_run_stops_at_94_percent_of_its_limit_less_what_writing_takes() -> None:
    ninety = Budget.of_minutes(90.0, started=1000.0)
    assert ninety.stop_at == pytest.approx(1000.0 + 0.94 * 5400)
    assert ninety.deadline(first_write_s=0.5) == pytest.approx(ninety.stop_at - 3.5)


def test_work_fits_up_to_the_share_that_is_used() -> None:
    assert budget.fits(84.6, 90.0)
    assert not budget.fits(84.7, 90.0)


def test_a_pass_is_planned_with_a_margin() -> None:
    assert budget.engines_s(n_windows=120, windows_per_s=10.0) == pytest.approx(13.8)
    assert budget.next_pass_s(seconds_a_window=0.1, n_windows=120) == pytest.approx(13.2)


def test_the_notebooks_start_is_found_on_the_monotonic_clock() -> None:
    assert budget.monotonic(time.time() - 500) == pytest.approx(time.monotonic() - 500, abs=5)


def test_the_speed_after_several_passes_is_the_mean_of_all_of_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    files = [SoundFile(tmp_path / "a.ogg", 12), SoundFile(tmp_path / "b.ogg", 12)]
    now = [0.0]

    def predict(*_: Any, into: Prediction, **__: Any) -> Prediction:
        now[0] += 2.0 if now[0] == 0 else 26.0  # the plain pass, and then a slow one
        into.scores = [np.zeros((1, 12, 1), np.float32)] * 2
        return into

    monkeypatch.setattr(passes, "predict", predict)
    progress = Progress(Prediction([None, None]))
    scorer: Any = SimpleNamespace(
        score=print,
        contract=Contract(32000, 5.0, 5.0, ("a",)),
        windows_heard=lambda n_windows, shift=0.0: n_windows + bool(shift),
    )
    options: Any = {"streams": 1, "deadline": 1e9, "clock": lambda: now[0]}
    run_passes(files, scorer, [Pass(), Pass(0.5)], progress, **options)
    out = SimpleNamespace(progress=progress, report=SimpleNamespace(scored=2))
    run: Any = object.__new__(session.Run)
    run.out, run.failover = out, scorer
    assert run.seconds_per_file == pytest.approx(28 / (24 + 26) * 12)
