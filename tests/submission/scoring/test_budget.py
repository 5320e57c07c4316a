"""The margins of a run's time, on figures that can be worked out by hand."""

from __future__ import annotations

import pytest

from birdkit.scoring import budget
from birdkit.scoring.budget import Budget


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
