"""What an archive costs to score: cores, money, and which resource is the first to be short."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from birdkit.engines.layout import Layout

MARK = "costs"
MINUTES_AN_HOUR = 60
OURS = "(c) ours, OpenVINO"
SIZES = {1e3: 1.0, 1e6: 7.0, 1e8: 30.0}  # hours of sound → days that it may take
FILES_A_PARTITION = 5  # requests: two tables of marks and three of results
MOST_RECORDINGS_A_CALL = 10_000_000  # whose names a driver holds in some 4 GB


@dataclass(frozen=True)
class Work:
    """What a minute of sound takes on one core, as it was measured."""

    decode_s: float
    engine_s: float

    @classmethod
    def of(cls, bench: Mapping[str, Any]) -> Work:
        """From the figures of `bench.py`: our models in f32, decode to CSV."""
        row = next(r for r in bench["rows"] if r["name"] == OURS and r["precision"] == "f32")
        layout = Layout.parse(row["layout"])
        cores = layout.streams * layout.threads
        total_s = bench["to_csv"]["ms"] * cores / 1000
        decode_s = row["decode_ms"] * cores / 1000
        return cls(decode_s, total_s - decode_s)

    @property
    def core_s(self) -> float:
        return self.decode_s + self.engine_s


@dataclass(frozen=True)
class Place:
    """What is assumed of the machines and the store that nobody has run this on."""

    core_usd: float = 0.04  # an hour of a core, on demand
    mb_a_minute: float = 0.5  # Ogg; WAV at 48 kHz in mono has 5.8
    minutes_a_file: float = 1.0
    files_a_partition: int = 32
    node_cores: int = 16
    node_gbit: float = 10.0  # network of a machine
    store_gbit: float = 400.0  # that a store gives to all machines together
    gets_a_s: float = 5500.0  # that a store answers below one prefix
    puts_a_s: float = 3500.0
    get_usd: float = 0.4e-6
    put_usd: float = 5e-6
    driver_s: float = 0.005  # of the driver's one thread for a partition
    kb_a_minute: float = 1.0  # of tables

    @property
    def minutes_a_partition(self) -> float:
        return self.minutes_a_file * self.files_a_partition


@dataclass(frozen=True)
class Estimate:
    """An archive of so many hours, to be done in so many days."""

    hours: float
    days: float
    core_hours: float
    cores: int
    usd: float  # cores and requests
    read_tb: float
    written_tb: float
    calls: int
    loads: Mapping[str, float]  # resource → share of it in use, 1 and more: it is short

    @property
    def bottleneck(self) -> str:
        """The resource that is short: the cores, unless another one can't follow them."""
        others = {name: load for name, load in self.loads.items() if name not in ("decode", "engine")}
        name, load = max(others.items(), key=lambda item: item[1])
        return f"{name} ({load:.1f} times what there is)" if load >= 1 else "the engine's cores"


def estimate(hours: float, days: float, work: Work, place: Place) -> Estimate:
    """What an archive takes where the cores are all that is bought for it."""
    minutes = hours * MINUTES_AN_HOUR
    core_hours = minutes * work.core_s / 3600
    cores = max(1, math.ceil(core_hours / (24 * days)))
    a_second = minutes / (core_hours * 3600 / cores)  # minutes of sound that all cores do
    files_a_s = a_second / place.minutes_a_file
    partitions_a_s = a_second / place.minutes_a_partition
    n_files = minutes / place.minutes_a_file
    n_partitions = minutes / place.minutes_a_partition
    calls = max(1, math.ceil(n_files / MOST_RECORDINGS_A_CALL))
    gbit_a_s = a_second * place.mb_a_minute * 8 / 1000
    loads = {
        "decode": work.decode_s / work.core_s,
        "engine": work.engine_s / work.core_s,
        "network of a machine": gbit_a_s / cores * place.node_cores / place.node_gbit,
        "network of the store": gbit_a_s / place.store_gbit,
        "reads of the store": files_a_s / place.gets_a_s,
        "writes": FILES_A_PARTITION * partitions_a_s / place.puts_a_s,
        "driver": partitions_a_s * place.driver_s,
    }
    requests_usd = n_files * place.get_usd + FILES_A_PARTITION * n_partitions * place.put_usd
    return Estimate(
        hours, days, core_hours, cores, core_hours * place.core_usd + requests_usd,
        minutes * place.mb_a_minute / 1e6, minutes * place.kb_a_minute / 1e9, calls, loads,
    )  # fmt: skip


def moves(work: Work, place: Place) -> dict[str, float]:
    """Resource → the cores at which it is short, whatever the size of the archive; fewest first."""
    one = estimate(1e9, 1e9 * work.core_s * MINUTES_AN_HOUR / 3600 / 24 / 1e6, work, place)
    cores = {
        name: one.cores / load
        for name, load in one.loads.items()
        if name not in ("decode", "engine", "network of a machine")
    }
    return dict(sorted(cores.items(), key=lambda item: item[1]))
