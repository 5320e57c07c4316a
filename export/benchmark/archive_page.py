"""The cost model of archives as tables: sizes, bottlenecks, and simulated calls."""

from __future__ import annotations

from collections.abc import Iterable

from export.benchmark.archive import SIZES, Estimate, Place, Work, estimate, moves
from export.benchmark.simulation import simulate

PARTITIONS_A_WORKER = 20
WORKERS = (100, 1_000, 10_000)
DEATHS_AN_HOUR = (0.0, 0.05)


def markdown(work: Work, place: Place) -> str:
    """The three tables, and what they stand on."""
    estimates = [estimate(hours, days, work, place) for hours, days in SIZES.items()]
    return "\n\n".join(
        [
            f"A minute of sound takes {work.core_s:.2f} s of a core: {work.decode_s:.3f} s to decode "
            f"and {work.engine_s:.2f} s in the engine with all the rest.",
            _table(
                (
                    "hours of sound",
                    "days",
                    "core hours",
                    "cores",
                    "US$",
                    "read",
                    "written",
                    "calls",
                    "short first",
                ),
                (_size(one) for one in estimates),
            ),
            f"Assumed: {place.core_usd:g} US$ a core hour, {place.mb_a_minute:g} MB and "
            f"{place.kb_a_minute:g} kB of tables a minute, recordings of {place.minutes_a_file:g} min, "
            f"{place.files_a_partition} to a partition, {place.node_cores} cores and "
            f"{place.node_gbit:g} Gbit/s a machine, {place.store_gbit:g} Gbit/s, {place.gets_a_s:,.0f} "
            f"reads and {place.puts_a_s:,.0f} writes a second of the store, and "
            f"{place.driver_s * 1000:g} ms of the driver a partition.",
            _table(
                ("resource", "short from so many cores on"),
                ((name, f"{cores:,.0f}") for name, cores in moves(work, place).items()),
            ),
            _table(
                ("workers", "deaths of each an hour", "hours", "cores busy with what counts", "deaths"),
                _simulations(work, place),
            ),
        ]
    )


def _size(one: Estimate) -> Iterable[str]:
    yield f"{one.hours:,.0f}"
    yield f"{one.days:g}"
    yield f"{one.core_hours:,.0f}"
    yield f"{one.cores:,}"
    yield f"{one.usd:,.0f}"
    yield f"{one.read_tb:,.2f} TB"
    yield f"{one.written_tb:,.3f} TB"
    yield f"{one.calls:,}"
    yield one.bottleneck


def _simulations(work: Work, place: Place) -> Iterable[Iterable[str]]:
    for n_workers in WORKERS:
        for deaths_an_hour in DEATHS_AN_HOUR:
            n_partitions = PARTITIONS_A_WORKER * n_workers
            done = simulate(work, place, n_workers, n_partitions, deaths_an_hour)
            hours = f"{done.seconds / 3600:.2f}"
            yield f"{n_workers:,}", f"{deaths_an_hour:g}", hours, f"{done.busy:.0%}", f"{done.deaths:,}"


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Markdown; all but the first column are figures or short texts."""
    cells = list(header)
    lines = [f"| {' | '.join(cells)} |", f"|{'---|' * len(cells)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
