"""Two runs beside each other: macro-AUC with the paired interval, or why they can't be paired."""

from __future__ import annotations

from dataclasses import dataclass

from birdkit.errors import UserError
from train.experiments.comparison import Gain, gains, pair
from train.pages.report import made_by
from train.pages.report.run_folder import Run
from train.pages.tables import Column, Table

VERDICTS = {"better": "first is better", "worse": "second is better", "can't tell": "can't tell"}


@dataclass(frozen=True)
class Compared:
    """The comparison of the last rounds, and the settings that differ."""

    table: Table
    unpaired: list[str]  # set → why it can't be paired
    settings: Table | None


def compare(first: Run, second: Run) -> Compared:
    """The first run's last round beside the second run's, on every set that both were scored on."""
    names = first.name, second.name
    rows: list[tuple[object, ...]] = []
    unpaired = []
    for set_name in _sets(first, second):
        try:
            found = gains([pair(first.folder, set_name, second.folder)])
        except UserError as error:
            unpaired.append(f"{set_name}: {error}")
            continue
        rows += [(set_name, of.output, of.model, *_figures(of)) for of in found]
    specs = (
        (names[0], ".4f"),
        (names[1], ".4f"),
        ("difference", "+.4f"),
        ("90 % from", "+.4f"),
        ("to", "+.4f"),
        ("detectable", ".4f"),
    )
    columns = [Column("set"), Column("output"), Column("model"), *(Column(*pair) for pair in specs)]
    note = (
        "Last rounds, first run minus second run; the 90 % interval is that of a paired bootstrap over "
        "soundscapes or recordings. A gain of the detectable size would be told four times in five."
    )
    table = Table("Macro-AUC side by side", [*columns, Column("verdict")], rows, note)
    recipes = first.recipe, second.recipe
    differing = made_by.differing(recipes[0], recipes[1], names) if recipes[0] and recipes[1] else None
    return Compared(table, unpaired, differing)


def _sets(first: Run, second: Run) -> list[str]:
    return list(dict.fromkeys([*first.models["set"], *second.models["set"]]))


def _figures(gain: Gain) -> tuple[object, ...]:
    """Of the first run, of the second, their difference, interval, detectable gain, verdict."""
    mean = gain.mean
    verdict = VERDICTS[mean.verdict]
    return gain.after[0], gain.before[0], mean.estimate, *mean.interval, mean.detectable, verdict
