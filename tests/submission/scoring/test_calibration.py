"""The members that there is time for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from birdkit.contract import FRAME_OUTPUTS, Contract
from birdkit.engines.layout import Layout
from birdkit.scoring import calibration
from birdkit.scoring.ensemble import Spec
from birdkit.scoring.parts import SoundFile

WEIGHTS = {"first": 1.0, "second": 3.0, "third": 2.0}
# Windows a second by the number of members: 100 windows take three 115 s, two 57.5 s, one 11.5 s.
SPEEDS = {3: 1.0, 2: 2.0, 1: 10.0}
FILES = [SoundFile(Path(f"{i}"), 20) for i in range(5)]
CONTRACT = Contract(32000, 5.0, 5.0, ("a",))
LAYOUTS = [Layout(1, 1, 2), Layout(2, 1, 2)]


@pytest.mark.parametrize(
    ("left_s", "kept"),
    [
        (116.0, ["first", "second", "third"]),
        (114.0, ["first", "second"]),
        (58.0, ["first", "second"]),
        (57.0, ["first"]),
        (11.0, ["first"]),
    ],
)
def test_the_first_members_stay_as_many_as_there_is_time_for(
    left_s: float, kept: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_in(layout: Layout, members: Sequence[str] | None) -> Any:
        spec = Spec({name: WEIGHTS[name] for name in members or WEIGHTS})
        heard = SimpleNamespace(
            spec=spec, contract=CONTRACT, engines={}, windows_heard=lambda n, shift: n
        )
        return SimpleNamespace(ensemble=heard)

    def speed(ensemble: Any, streams: int) -> float:
        return SPEEDS[len(ensemble.spec.members)] / (1 if streams == 2 else 1.5)

    monkeypatch.setattr(calibration, "windows_per_s", speed)
    found = calibration.what_fits(open_in, LAYOUTS, FILES, 50.0 + left_s, clock=lambda: 50.0)
    assert list(found.loaded.ensemble.spec.members) == kept
    assert found.layout == Layout(2, 1, 2)
    assert found.windows_per_s == SPEEDS[len(kept)]


def test_a_layout_that_memory_cannot_hold_is_left_out_and_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def open_in(layout: Layout) -> Any:
        if layout.streams > 1:
            raise MemoryError
        return SimpleNamespace(ensemble=SimpleNamespace(engines={}))

    monkeypatch.setattr(calibration, "windows_per_s", lambda ensemble, streams: 3.0)
    found = calibration.calibrate(open_in, LAYOUTS)
    assert found.layout == Layout(1, 1, 2)
    assert found.measured == {"1x1x2": 3.0}
    assert found.failed == ["layout 2x1x2 failed: MemoryError"]
    with pytest.raises(MemoryError):
        calibration.calibrate(open_in, LAYOUTS[1:])


@pytest.mark.parametrize(
    ("stretch_s", "measured"),
    [
        ((0.0,), ["2x1x2", "2x1x4", "1x2x12"]),
        ((60.0,), ["2x1x2", "1x2x12"]),  # a minute is a call's whole batch, whatever the layout's
        ((60.0, 0.0), ["2x1x2", "2x1x4", "1x2x12"]),
        ((10.0,), ["2x1x2", "2x1x4", "1x2x12"]),
    ],
)
def test_layouts_that_ask_for_the_same_are_measured_once(
    stretch_s: tuple[float, ...], measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    contracts = [
        replace(CONTRACT, outputs=FRAME_OUTPUTS, stretch_s=s, frame_s=0.1) if s else CONTRACT
        for s in stretch_s
    ]
    engines = {str(i): SimpleNamespace(contract=contract) for i, contract in enumerate(contracts)}
    loaded: Any = SimpleNamespace(ensemble=SimpleNamespace(engines=engines))
    monkeypatch.setattr(calibration, "windows_per_s", lambda ensemble, streams: 3.0)
    found = calibration.calibrate(lambda layout: loaded, calibration.candidates(2))
    assert list(found.measured) == measured
