"""Measures every setup of a comparison: speed in parts, memory, and agreement with torch."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from birdkit import audio
from birdkit.contract import Contract
from birdkit.engines.layout import usable_cores
from birdkit.engines.precision import lacking
from birdkit.grid import WINDOWS_A_MINUTE
from birdkit.log import LOG
from birdkit.scoring.parts import SoundFile
from export.benchmark import machine
from export.benchmark.agreement import Agreement, network_gflop
from export.benchmark.comparison import STRETCHES, Comparison
from export.benchmark.timing import TimedSetup, decode_ms, peak_mib, scaling, to_csv
from train.data.progress import bar

# Total, engine and front end of a setup, in ms a minute of audio, one value a round.
Times = dict[str, list[float]]


@dataclass(frozen=True)
class Row:
    """One setup's figures; ms are of wall time a minute of audio, medians over the rounds."""

    name: str
    precision: str
    gated: bool  # whether parity or the precision gate has passed it
    layout: str
    ms: float  # decode to probabilities
    ms_rounds: list[float]
    decode_ms: float
    front_end_ms: float
    networks_ms: float
    rest_ms: float  # what is left of `ms`, and the noise of all others
    peak_mib: float
    share_of_peak: float | None  # networks, of the machine's matrix product in this precision
    max_dp: float
    rank_correlation: float


def measure(
    comparison: Comparison,
    files: Sequence[SoundFile],
    rounds: int,
    scales: Sequence[int],
    scratch: Path,
) -> dict[str, Any]:
    """Every figure of the bench, as plain values; and those of as many files as `scales` says."""
    setups = []
    for setup in comparison.setups:
        setups.append(TimedSetup(setup, scratch))
        LOG.info(f"{setup.name} {setup.precision}: {setups[-1].calibration}")
    times = time_in_turns(setups, files, rounds)
    ours = next(timed for timed in setups if timed.setup.name == STRETCHES)
    measured = {
        "machine": machine.describe(),
        "members": {name: final.job.model.encoder for name, final in comparison.finals.items()},
        "files": len(files),
        "rounds": rounds,
        "gflop_per_minute": network_gflop(comparison.finals),
        "peak_gflops": {n: machine.peak_gflops(n) for n in ("f32", "bf16", "int8") if not lacking(n)},
        "to_csv": to_csv(ours, files, rounds),
    }
    measured["rows"] = rows(comparison, setups, times, files, measured)
    if scales:
        measured["scaling"] = scaling(ours, files, scales)
    return measured


def time_in_turns(setups: Sequence[TimedSetup], files: Sequence[SoundFile], rounds: int) -> list[Times]:
    """The times of each setup. They take turns, so that a busy neighbour slows all alike."""
    every: list[Times] = [{"total": [], "engine": [], "front_end": []} for _ in setups]
    rate = setups[0].ensemble.contract.sample_rate
    waveforms = [audio.read(file.path, rate) for file in files]
    for _ in tqdm(range(rounds), **bar("rounds")):
        for timed, times in zip(setups, every, strict=True):
            times["total"].append(timed.total_ms(files))
        for timed, times in zip(setups, every, strict=True):
            times["engine"].append(timed.engine_ms(waveforms))
            times["front_end"].append(timed.front_end_ms(waveforms))
    return every


def rows(
    comparison: Comparison,
    setups: Sequence[TimedSetup],
    times: Sequence[Times],
    files: Sequence[SoundFile],
    measured: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """A `Row` for each setup, as a dict. `measured` has the machine's peaks."""
    rate = setups[0].ensemble.contract.sample_rate
    decode = decode_ms(files, rate) / usable_cores()
    waveforms = [audio.read(file.path, rate) for file in files]
    kinds: dict[tuple[tuple[str, Contract], ...], tuple[Agreement, float]] = {}
    for timed in setups:
        if timed.hears not in kinds:
            finals = {name: replace(comparison.finals[name], contract=c) for name, c in timed.hears}
            kinds[timed.hears] = Agreement(finals, waveforms), network_gflop(finals)
    table = []
    for timed, rounds in zip(setups, tqdm(times, **bar("memory and parity")), strict=True):
        setup = timed.setup
        medians = {name: statistics.median(values) for name, values in rounds.items()}
        networks = medians["engine"] - medians["front_end"]
        peak = measured["peak_gflops"].get(setup.precision)
        agreement, gflop = kinds[timed.hears]
        windows = sum(timed.ensemble.windows_heard(WINDOWS_A_MINUTE, s) for s in timed.shifts)
        gflop *= windows / timed.ensemble.windows_heard(WINDOWS_A_MINUTE)
        own_decode = decode * len(timed.shifts)
        max_dp, correlation = agreement.of(timed.ensemble)
        row = Row(
            name=setup.name,
            precision=setup.precision,
            gated=setup.precision in ("f32", *comparison.gated),
            layout=str(timed.calibration.layout),
            ms=medians["total"],
            ms_rounds=rounds["total"],
            decode_ms=own_decode,
            front_end_ms=medians["front_end"],
            networks_ms=networks,
            rest_ms=medians["total"] - own_decode - medians["engine"],
            peak_mib=peak_mib(timed, files),
            share_of_peak=1000 * gflop / networks / peak if peak else None,
            max_dp=max_dp,
            rank_correlation=correlation,
        )
        table.append(asdict(row))
    return table
