"""Which layout of streams, threads and batch is fastest here: a short measurement, not a table.

A machine's best layout depends on its caches, its neighbours and on the models, so it is measured with
them, once a session. The figure of the best one is also what a budget is planned with.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from birdkit.engines.engine import Layout
from birdkit.scoring.ensemble import Ensemble, Loaded

# A recording of this many windows is what the measured calls are given; a minute, as Kaggle's are.
WINDOWS = 12
# Rounds of one recording a stream; the fastest counts, since neighbours only ever slow one down.
ROUNDS = 3
# Decoding and the table, over the engine's own time.
AROUND_THE_ENGINE = 1.15


@dataclass(frozen=True)
class Calibration:
    """The ensemble in its fastest layout, and what was measured: windows a second of each."""

    loaded: Loaded
    layout: Layout
    windows_per_s: float
    measured: dict[str, float]

    def __str__(self) -> str:
        listed = ", ".join(f"{name} {speed:.1f}" for name, speed in self.measured.items())
        return f"layout {self.layout} (streams x threads x batch); windows a second: {listed}"


def candidates(cores: int) -> list[Layout]:
    """Layouts that keep all cores busy: one call on all of them, or one call on each."""
    found = [Layout(cores, 1, 2), Layout(cores, 1, 4), Layout(1, cores, WINDOWS)]
    if cores >= 4:
        found.insert(2, Layout(cores // 2, 2, 4))
    return found if cores > 1 else [Layout(1, 1, 2), Layout(1, 1, WINDOWS)]


def calibrate(open_in: Callable[[Layout], Loaded], layouts: Iterable[Layout]) -> Calibration:
    """Open the ensemble in each layout and keep the fastest.

    Raises
    ------
    UserError
        Where the models don't open; nothing about them depends on the layout.
    """
    best: tuple[float, Layout, Loaded] | None = None
    measured = {}
    for layout in layouts:
        loaded = open_in(layout)
        speed = windows_per_s(loaded.ensemble, layout.streams)
        measured[str(layout)] = speed
        if best is None or speed > best[0]:
            best = (speed, layout, loaded)
    assert best is not None, "calibrate needs at least one layout"
    return Calibration(best[2], best[1], best[0], measured)


def what_fits(
    open_in: Callable[[Layout, Sequence[str] | None], Loaded],
    layouts: Sequence[Layout],
    n_windows: int,
    deadline: float,
    clock: Callable[[], float] = time.monotonic,
) -> Calibration:
    """The fastest layout, with as many members as can score `n_windows` once before the deadline.

    The heaviest members stay. Where not even one can, it is there all the same, for as long as it goes.
    """
    fastest = calibrate(lambda layout: open_in(layout, None), layouts)
    weights = fastest.loaded.ensemble.spec.members
    by_weight = sorted(weights, key=lambda name: -weights[name])
    for count in range(len(by_weight), 0, -1):
        if count < len(by_weight):
            fastest = calibrate(partial(_open_some, open_in, by_weight[:count]), [fastest.layout])
        if clock() + AROUND_THE_ENGINE * n_windows / fastest.windows_per_s <= deadline:
            break
    return fastest


def _open_some(
    open_in: Callable[[Layout, Sequence[str] | None], Loaded], members: Sequence[str], layout: Layout
) -> Loaded:
    return open_in(layout, members)


def windows_per_s(ensemble: Ensemble, streams: int) -> float:
    """Windows a second with every stream busy, on noise: the networks' cost is the same for all."""
    contract = ensemble.contract
    rng = np.random.default_rng(0)
    waveform = 0.1 * rng.standard_normal(WINDOWS * contract.window_samples).astype(np.float32)
    with ThreadPoolExecutor(max_workers=streams) as pool:
        times = [_round(pool, ensemble, waveform, streams) for _ in range(1 + ROUNDS)]
    return WINDOWS * streams / min(times[1:])  # the first one warms up


def _round(pool: ThreadPoolExecutor, ensemble: Ensemble, waveform: np.ndarray, streams: int) -> float:
    start = time.perf_counter()
    calls: Sequence = [pool.submit(ensemble.run, waveform, WINDOWS) for _ in range(streams)]
    for call in calls:
        call.result()
    return time.perf_counter() - start
