"""The mass of pseudo labels by class and round, and the alarms on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from train.pages import svg
from train.pages.report.run_folder import Labels, Round, Run
from train.pages.tables import Column, Table
from train.rounds.pseudo_labels import Summary

BARS = 15  # classes in the chart


@dataclass(frozen=True)
class LabelledRound:
    """A round's labels in words, its alarms, and what could not be labelled."""

    title: str
    text: str
    alarms: list[str]
    alarms_known: bool
    failures: list[str]
    chart: Markup


@dataclass(frozen=True)
class LabelMass:
    """All rounds with labels, and their mass by class."""

    rounds: list[LabelledRound]
    table: Table


def collect(run: Run) -> LabelMass | None:
    """None where no round has pseudo labels."""
    rounds = [_labelled(of, of.labels) for of in run.rounds if of.labels]
    summaries = {of.index: of.labels.summary for of in run.rounds if of.labels}
    return LabelMass(rounds, _by_class(summaries)) if rounds else None


def _labelled(of: Round, labels: Labels) -> LabelledRound:
    now = labels.summary
    text = (
        f"{now.output} of {now.n_windows:,} windows of {now.n_soundscapes:,} soundscapes, "
        f"{now.kept:.0%} of the windows drawn from; "
        f"{sum(now.mass.values()) / max(1, now.n_windows):.2f} species a window; "
        f"{sum(not mass for mass in now.mass.values())} of {len(now.mass)} classes have no mass"
    )
    return LabelledRound(
        title=f"Round {of.index}",
        text=text,
        alarms=labels.alarms,
        alarms_known=of.pseudo is not None,
        failures=[f"{name}: {why}" for name, why in labels.failures.items()],
        chart=_bars(now.mass, f"Label mass of round {of.index}"),
    )


def _by_class(summaries: Mapping[int, Summary]) -> Table:
    """A row a class, the largest mass of the last round first."""
    classes = dict.fromkeys(name for now in summaries.values() for name in now.mass)
    columns, rows = [Column("class")], list[tuple[str, list[float | None]]]()
    for index in summaries:
        columns += [
            Column(f"mass, round {index}", ".2f"),
            Column("share", ".2%"),
            Column("spread", ".3f"),
        ]
    for name in classes:
        cells: list[float | None] = []
        for now in summaries.values():
            mass, total = now.mass.get(name), sum(now.mass.values()) or 1.0
            cells += [mass, None if mass is None else mass / total, now.spread.get(name)]
        rows.append((name, cells))
    rows.sort(key=lambda row: -(row[-1][-3] or 0.0))
    return Table("Mass by class", columns, [(name, *cells) for name, cells in rows])


def _bars(mass: dict[str, float], label: str) -> Markup:
    """The classes of the largest mass, each a bar."""
    there = (item for item in mass.items() if item[1] > 0)
    largest = sorted(there, key=lambda item: -item[1])[:BARS]
    total = sum(mass.values()) or 1.0
    bars = [
        svg.Bar(name, value, f"{value:.1f} ({value / total:.0%})", f"{value / total:.1%} of all mass")
        for name, value in largest
    ]
    return svg.bars(label, bars)
