"""Measures which layout of streams, threads and batch is fastest on this machine.

A machine's best layout depends on its caches, its other load and the models, so it is measured with
them, once a session. The budget is planned with the speed of the best one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from birdkit.engines.layout import Layout, one_stream
from birdkit.errors import first_line
from birdkit.grid import WINDOWS_A_MINUTE
from birdkit.scoring import budget
from birdkit.scoring.ensemble import Ensemble, Loaded
from birdkit.scoring.parts import SoundFile
from birdkit.scoring.passes import windows_of_pass

# Timed rounds of one recording a stream. The fastest counts, since other load can only slow it down.
ROUNDS = 3


@dataclass(frozen=True)
class Calibration:
    """The ensemble in its fastest layout; `measured` maps each measured layout to its windows a second.

    `failed` has a line for each layout that could not be measured, as where memory holds fewer streams.
    """

    loaded: Loaded
    layout: Layout
    windows_per_s: float
    measured: dict[str, float]
    failed: Sequence[str] = ()

    def __str__(self) -> str:
        listed = ", ".join(f"{name} {speed:.1f}" for name, speed in self.measured.items())
        speeds = f"layout {self.layout} (streams x threads x batch); windows a second: {listed}"
        return "; ".join([speeds, *self.failed])


def candidates(cores: int) -> list[Layout]:
    """Layouts that keep all cores busy: one call on all of them, or one call on each."""
    layouts = [Layout(cores, 1, 2), Layout(cores, 1, 4), one_stream(cores)]
    if cores >= 4:
        layouts.insert(2, Layout(cores // 2, 2, 4))
    return layouts if cores > 1 else [Layout(1, 1, 2), one_stream(1)]


def calibrate(open_in: Callable[[Layout], Loaded], layouts: Iterable[Layout]) -> Calibration:
    """Open the ensemble in each layout and keep the fastest.

    A layout that fails is left out, for another may need less memory. So is one that asks the engines
    for the same as another: where a stretch has more windows than either batch, a call is a stretch.
    Where all of them fail, the first one's error is raised: a `UserError` where models don't open.
    """
    best: tuple[float, Layout, Loaded] | None = None
    measured: dict[str, float] = {}
    failed: list[str] = []
    first_error: Exception | None = None
    asked: set[tuple[int, ...]] = set()
    for layout in layouts:
        if best is not None and _asks(layout, best[2].ensemble) in asked:
            continue
        try:
            loaded = open_in(layout)
            speed = windows_per_s(loaded.ensemble, layout.streams)
        except Exception as error:  # engines report a lack of memory in ways of their own
            failed.append(f"layout {layout} failed: {first_line(error)}")
            # Without its traceback, which would keep the engines that memory had no room for.
            first_error = first_error or error.with_traceback(None)
            continue
        measured[str(layout)] = speed
        asked.add(_asks(layout, loaded.ensemble))
        if best is None or speed > best[0]:
            best = (speed, layout, loaded)
    if best is None:
        assert first_error is not None, "calibrate needs at least one layout"
        raise first_error
    return Calibration(best[2], best[1], best[0], measured, failed)


def _asks(layout: Layout, ensemble: Ensemble) -> tuple[int, ...]:
    """Streams, threads, and the inputs in a call of each member."""
    inputs = [layout.inputs(engine.contract) for engine in ensemble.engines.values()]
    return layout.streams, layout.threads, *inputs


def what_fits(
    open_in: Callable[[Layout, Sequence[str] | None], Loaded],
    layouts: Sequence[Layout],
    files: Sequence[SoundFile],
    deadline: float,
    clock: Callable[[], float] = time.monotonic,
) -> Calibration:
    """The fastest layout, with as many members as can score the files once before the deadline.

    The first members of the spec stay. Where not even one member fits, it is kept all the same,
    and scores as many files as it can.

    Parameters
    ----------
    open_in : opens the ensemble in a layout, with all members where None
    deadline : s, on `clock`
    """
    fastest = calibrate(lambda layout: open_in(layout, None), layouts)
    members = list(fastest.loaded.ensemble.spec.members)
    for count in range(len(members), 0, -1):
        if count < len(members):
            fastest = calibrate(partial(_open_some, open_in, members[:count]), [fastest.layout])
        heard = windows_of_pass(files, fastest.loaded.ensemble)
        if clock() + budget.engines_s(heard, fastest.windows_per_s) <= deadline:
            break
    return fastest


def _open_some(
    open_in: Callable[[Layout, Sequence[str] | None], Loaded], members: Sequence[str], layout: Layout
) -> Loaded:
    return open_in(layout, members)


def windows_per_s(ensemble: Ensemble, streams: int) -> float:
    """Windows heard a second with every stream busy, on noise: the sound does not change the cost."""
    contract = ensemble.contract
    rng = np.random.default_rng(0)
    waveform = 0.1 * rng.standard_normal(WINDOWS_A_MINUTE * contract.window_samples).astype(np.float32)
    with ThreadPoolExecutor(max_workers=streams) as pool:
        times = [_round(pool, ensemble, waveform, streams) for _ in range(1 + ROUNDS)]
    heard = ensemble.windows_heard(WINDOWS_A_MINUTE)
    return heard * streams / min(times[1:])  # the first one warms up


def _round(
    pool: ThreadPoolExecutor, ensemble: Ensemble, waveform: NDArray[np.float32], streams: int
) -> float:
    """Seconds that one recording a stream takes."""
    start = time.perf_counter()
    calls = [pool.submit(ensemble.run, waveform, WINDOWS_A_MINUTE) for _ in range(streams)]
    for call in calls:
        call.result()
    return time.perf_counter() - start
