"""Times a setup of the bench, whole and in parts.

All milliseconds are of wall time a minute of audio.
"""

from __future__ import annotations

import queue
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from birdkit import audio
from birdkit.contract import INPUT_NAME
from birdkit.engines import wheels
from birdkit.engines.engine import batches
from birdkit.engines.layout import Layout
from birdkit.errors import UserError
from birdkit.grid import WINDOWS_A_MINUTE, cut_inputs
from birdkit.log import LOG
from birdkit.scoring.calibration import Calibration, calibrate
from birdkit.scoring.ensemble import Ensemble, combine
from birdkit.scoring.parts import SoundFile
from birdkit.scoring.predict import predict
from export.benchmark.baselines import EagerEngine, Setup
from export.benchmark.process import Cost, score_alone, write_csv
from export.models.onnx import front_end_alone

openvino = wheels.obtain("openvino")


class TimedSetup:
    """A setup, opened in its fastest layout, whose calls are timed."""

    def __init__(self, setup: Setup, scratch: Path) -> None:
        self.setup = setup
        self.calibration: Calibration = calibrate(setup.open, setup.layouts())
        self.ensemble: Ensemble = self.calibration.loaded.ensemble
        self.streams = self.calibration.layout.streams
        self.shifts = (0.0, *setup.shifts)  # of its passes
        # Members, each with its own contract: what it hears at once.
        self.hears = tuple(
            (member, engine.contract.alone(member))
            for stem, engine in sorted(self.ensemble.engines.items())
            for member in engine.contract.members or (stem,)
        )
        self.front_ends = self._front_ends(scratch)

    def _front_ends(self, scratch: Path) -> list[Callable[[NDArray[np.float32]], Any]]:
        """The log-mel of each file alone: separate files compute it each for themselves."""
        setup, layout = self.setup, self.calibration.layout
        if setup.engine == "torch":
            (eager,) = self.ensemble.engines.values()
            assert isinstance(eager, EagerEngine)
            return [lambda chunks: [eager.mel(chunk) for chunk in chunks]]
        open_alone = onnxruntime_alone if setup.engine == "onnxruntime" else openvino_alone
        stems = self.ensemble.engines
        cut = (front_end_alone(setup.folder, stem, scratch) for stem in stems)
        contracts = (engine.contract for engine in stems.values())
        return [
            open_alone(path, replace(layout, batch=layout.inputs(contract)))
            for path, contract in zip(cut, contracts, strict=True)
        ]

    def total_ms(self, files: Sequence[SoundFile]) -> float:
        """Decode to probabilities of all passes, a file."""
        return sum(total_ms(self.ensemble, files, self.streams, shift) for shift in self.shifts)

    def engine_ms(self, waveforms: Sequence[NDArray[np.float32]]) -> float:
        def run(waveform: NDArray[np.float32]) -> None:
            for shift in self.shifts:
                self.ensemble.run(waveform, WINDOWS_A_MINUTE, shift)

        return self._all_streams(run, waveforms)

    def front_end_ms(self, waveforms: Sequence[NDArray[np.float32]]) -> float:
        total_ms = 0.0
        contracts = [engine.contract for engine in self.ensemble.engines.values()]
        for front_end, contract in zip(self.front_ends, contracts, strict=True):
            inputs = [
                np.concatenate([cut_inputs(w, WINDOWS_A_MINUTE, contract, s) for s in self.shifts])
                for w in waveforms
            ]
            total_ms += self._all_streams(front_end, inputs)
        return total_ms

    def _all_streams(self, call: Callable[[Any], Any], inputs: Sequence[Any]) -> float:
        start = time.perf_counter()
        with ThreadPoolExecutor(self.streams) as pool:
            list(pool.map(call, inputs))
        return 1000 * (time.perf_counter() - start) / len(inputs)


def total_ms(loaded: Ensemble, files: Sequence[SoundFile], streams: int, shift: float = 0.0) -> float:
    """Decode to probabilities in one pass, a file."""
    start = time.perf_counter()
    score = partial(loaded.score, shift=shift)
    done = predict(files, score, loaded.contract, streams=streams)
    if done.failures:
        raise UserError(f"{next(iter(done.failures.items()))}: give --data with readable files")
    combine(done.scores, loaded.spec)
    return 1000 * (time.perf_counter() - start) / len(files)


def openvino_alone(path: Path, layout: Layout) -> Callable[[NDArray[np.float32]], None]:
    """A graph of one input, by batches, as the engine would run it."""
    core = openvino.Core()
    model = core.read_model(path)
    model.reshape({INPUT_NAME: [layout.batch, *list(model.input(0).get_partial_shape())[1:]]})
    compiled = core.compile_model(model, "CPU", layout.openvino("f32"))
    idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for _ in range(layout.streams):
        idle.put(compiled.create_infer_request())

    def run(chunks: NDArray[np.float32]) -> None:
        request = idle.get()
        try:
            for batch in batches(chunks, layout.batch):
                given = np.pad(batch, ((0, layout.batch - len(batch)), (0, 0)))  # the shape is fixed
                request.infer({0: given}, share_inputs=True)
        finally:
            idle.put(request)

    return run


def onnxruntime_alone(path: Path, layout: Layout) -> Callable[[NDArray[np.float32]], None]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = layout.threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(chunks: NDArray[np.float32]) -> None:
        for batch in batches(chunks, layout.batch):
            session.run(None, {INPUT_NAME: batch})

    return run


def decode_ms(files: Sequence[SoundFile], rate: int) -> float:
    """One core's time to decode a file."""
    start = time.perf_counter()
    for file in files:
        audio.read(file.path, rate)
    return 1000 * (time.perf_counter() - start) / len(files)


def to_csv(timed: TimedSetup, files: Sequence[SoundFile], rounds: int) -> dict[str, float]:
    """Decode to CSV against the engine's own time for the same windows, in turns."""
    waveforms = [audio.read(file.path, timed.ensemble.contract.sample_rate) for file in files]
    whole, engine = [], []
    with tempfile.TemporaryDirectory() as scratch:
        named = list(_links(files, Path(scratch)))
        for _ in range(rounds):
            whole.append(1000 * write_csv(timed.ensemble, named, timed.streams) / len(files))
            engine.append(timed.engine_ms(waveforms))
    return {"ms": statistics.median(whole), "engine_ms": statistics.median(engine)}


def peak_mib(timed: TimedSetup, files: Sequence[SoundFile]) -> float:
    """Peak memory of a fresh process that scores the files, in MiB."""
    return _alone(timed, files).peak_mib


def _alone(timed: TimedSetup, files: Sequence[SoundFile]) -> Cost:
    setup, layout = timed.setup, timed.calibration.layout
    with tempfile.TemporaryDirectory() as scratch:
        named = list(_links(files, Path(scratch)))
        return score_alone(setup.folder, setup.engine, setup.precision, layout, named)


def scaling(
    timed: TimedSetup, files: Sequence[SoundFile], scales: Sequence[int]
) -> list[dict[str, float]]:
    """Decode to CSV for more and more files, each in a fresh process."""
    costs = []
    for count in scales:
        cost = _alone(timed, [files[index % len(files)] for index in range(count)])
        costs.append({"files": count, **asdict(cost)})
        LOG.info(f"{count} files: {cost}")
    return costs


def _links(files: Sequence[SoundFile], folder: Path) -> Iterator[SoundFile]:
    """The files under distinct names, so that a repeated file has its own rows in the table."""
    for index, file in enumerate(files):
        link = folder / f"{index}{file.path.suffix}"
        link.symlink_to(file.path.resolve())
        yield SoundFile(link, file.n_windows)
