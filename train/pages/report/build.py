"""Puts the report together: what is shown of one run or two, for every set and output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup
from tqdm import tqdm

from train.data.progress import bar
from train.pages import page
from train.pages.report import (
    calibration,
    class_figures,
    compared,
    exported,
    label_mass,
    made_by,
    recipe_picture,
    training_curves,
)
from train.pages.report.run_folder import Run, View
from train.pages.tables import Column, Table
from train.scoring.summary import ENSEMBLE

TEMPLATE = "report.html.j2"
# The set that is shown first is the first of these that there is: what chose nothing comes first.
SETS = ("validation", "soundscapes", "held_out")


@dataclass(frozen=True)
class OfView:
    """What is shown of a run on one set in one output."""

    figures: list[tuple[str, str]]  # value, what it is
    picture: Markup
    last_round: int  # that was scored; -1 where none was
    scatter: Markup
    lowest: Table
    confused: Table | None
    calibration: calibration.Calibration | None


@dataclass(frozen=True)
class OfRun:
    """What is shown of a run."""

    run: Run
    views: dict[View, OfView]
    curves: training_curves.Curves
    mass: label_mass.LabelMass | None
    exported: exported.Exported
    checkpoints: Table
    settings: Table | None


def write(out: Path, runs: Sequence[Run], model_dir: Path | None) -> None:
    """Write the page. Raises `UserError` for a model folder that is none, and `OSError`."""
    views = views_of(runs)
    parts = [_of_run(run, views, model_dir) for run in runs]
    page.write(
        out,
        TEMPLATE,
        title=" beside ".join(run.name for run in runs),
        views=views,
        runs=parts,
        compared=compared.compare(*runs) if len(runs) == 2 else None,
        scores=[_score_table(run) for run in runs],
        data=class_figures.class_data(runs, views),
    )


def views_of(runs: Sequence[Run]) -> list[View]:
    """The sets and outputs that some run was scored on, the one that is shown first as the first."""
    of_runs = [_scored_on(run) for run in runs]

    def rank(view: View) -> tuple[int, int, str, bool]:
        lacking = sum(view not in known for known in of_runs)
        place = SETS.index(view[0]) if view[0] in SETS else len(SETS)
        return lacking, place, view[0], view[1] != "segmentwise"

    return sorted(set[View]().union(*of_runs), key=rank)


def _scored_on(run: Run) -> set[View]:
    """Of the models that are final, and of those in training after an epoch."""
    views = set[View](run.models[["set", "output"]].itertuples(index=False, name=None))
    epochs = (model.progress.get("epochs", []) for of in run.rounds for model in of.models)
    metrics = (epoch.get("metrics", {}) for of_model in epochs for epoch in of_model[-1:])
    return views | {(name, output) for of in metrics for name, by in of.items() for output in by}


def _of_run(run: Run, views: list[View], model_dir: Path | None) -> OfRun:
    return OfRun(
        run,
        {view: _of_view(run, view) for view in tqdm(views, **bar(f"figures of {run.name}"))},
        training_curves.draw(run, views),
        label_mass.collect(run),
        exported.collect(run, model_dir),
        made_by.checkpoints(run),
        made_by.changed(run.recipe) if run.recipe else None,
    )


def _of_view(run: Run, view: View) -> OfView:
    return OfView(
        _headline(run, view),
        recipe_picture.draw(run, view),
        class_figures.last_scored(run, view),
        class_figures.scatter(run, view),
        class_figures.lowest(run, view),
        class_figures.confused(run, view),
        calibration.draw(run, view),
    )


def _headline(run: Run, view: View) -> list[tuple[str, str]]:
    """The figures on top of the page."""
    index = class_figures.last_scored(run, view)
    last = run.auc(index, ENSEMBLE, view)
    figures = []
    if last:
        figures.append(
            (Column("", ".4f").text(last["macro_auc"]), f"macro-AUC of round {index}'s ensemble")
        )
        gain = last.get("gain", float("nan"))
        if gain == gain:
            interval = f"{last['gain_low']:+.3f} … {last['gain_high']:+.3f}".replace("-", "−")
            figures.append((Column("", "+.4f").text(gain), f"over the round before (90 %: {interval})"))
        figures.append((f"{last['n_scored']:.0f}", "classes scored"))
    figures.append((str(len(run.rounds)), "rounds" if len(run.rounds) > 1 else "round"))
    n_models = sum(len(of.models) for of in run.rounds)
    figures.append((str(n_models), "models trained" if n_models > 1 else "model trained"))
    if run.names is not None:
        count = f"{run.names['n_recordings'].sum():,.0f}"
        figures.append((count, f"recordings of {len(run.names):,} classes"))
    return figures


def _score_table(run: Run) -> Table:
    """`summary.csv` as it is."""
    specs: dict[str, Any] = {"round": ".0f", "macro_auc": ".4f", "n_scored": ".0f"}
    specs |= dict.fromkeys(("gain", "gain_low", "gain_high"), "+.4f")
    columns = [Column(name, specs.get(name, "")) for name in run.models.columns]
    rows = run.models.astype(object).to_numpy().tolist()
    return Table("Every model on every set", columns, rows, "summary.csv in the run's folder.")
