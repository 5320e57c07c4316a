"""Loss and macro-AUC over all epochs of a run, its rounds after one another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from train.pages import svg
from train.pages.report.run_folder import Model, Run, View

BUCKETS = 60  # points of a loss curve, each the mean of the steps between two


@dataclass(frozen=True)
class Curves:
    """Two charts and the models' colours; a chart is empty where nothing was measured."""

    loss: Markup
    auc: dict[View, Markup]
    legend: list[tuple[str, str]]  # model, class of its colour


def draw(run: Run, views: list[View]) -> Curves:
    names = list(dict.fromkeys(model.name for of in run.rounds for model in of.models))
    colours = {name: svg.colour(place) for place, name in enumerate(names)}
    starts = np.cumsum([0, *(max([0, *map(n_epochs, of.models)]) for of in run.rounds)]).tolist()
    if not starts[-1]:
        return Curves(Markup(""), {}, [])
    aucs = {view: _aucs(run, view, starts, colours) for view in views}
    return Curves(_losses(run, starts, colours), aucs, list(colours.items()))


def n_epochs(model: Model) -> int:
    """Epochs that a training has begun."""
    return max(len(model.progress.get("epochs", [])), bool(model.progress.get("losses")))


def losses(model: Model) -> list[svg.Point]:
    """Epochs and mean losses, at most `BUCKETS` of them."""
    values = np.array(model.progress.get("losses", []), float)
    parts = np.array_split(values, min(BUCKETS, len(values))) if len(values) else []
    ends = np.cumsum([len(part) for part in parts]) / max(1, len(values)) * n_epochs(model)
    return list(zip(ends.tolist(), [float(part.mean()) for part in parts], strict=True))


def _losses(run: Run, starts: list[int], colours: dict[str, str]) -> Markup:
    lines = {
        (place, model.name): [(starts[place] + x, y) for x, y in losses(model)]
        for place, of in enumerate(run.rounds)
        for model in of.models
    }
    values = [y for points in lines.values() for _, y in points]
    chart = _chart(run, "training loss", starts, (min(values), max(values)))
    for (_, name), points in lines.items():
        chart.line(points, colours[name])
    return chart.markup()


def _aucs(run: Run, view: View, starts: list[int], colours: dict[str, str]) -> Markup:
    """Lines of the figures after each epoch, where the set is scored then, and dots of the finals'."""
    lines, dots = {}, []
    for place, of in enumerate(run.rounds):
        for model in of.models:
            epochs = model.progress.get("epochs", [])
            found = [epoch.get("metrics", {}).get(view[0], {}).get(view[1], np.nan) for epoch in epochs]
            points = [(starts[place] + i, auc) for i, auc in enumerate(found, 1) if not np.isnan(auc)]
            lines[place, model.name] = points
            final = run.auc(of.index, model.name, view).get("macro_auc", np.nan)
            if not np.isnan(final):
                dots.append((starts[place] + n_epochs(model), final, model.name, of.index))
    values = [y for points in lines.values() for _, y in points] + [dot[1] for dot in dots]
    if not values:
        return Markup("")
    chart = _chart(run, "macro-AUC", starts, (min(values), max(values)))
    for (_, name), points in lines.items():
        chart.line(points, colours[name])
    for x, auc, name, index in dots:
        chart.dot((x, auc), colours[name], f"{name}, round {index}: {auc:.4f}")
    return chart.markup()


def _chart(run: Run, what: str, starts: list[int], ends: tuple[float, float]) -> svg.Chart:
    room = 0.06 * (ends[1] - ends[0]) or 0.01
    y = svg.Axis(what, ends[0] - room, ends[1] + room)
    chart = svg.Chart(f"{what} of {run.name} by epoch", svg.Axis("epoch", 0, starts[-1]), y)
    for of, start in zip(run.rounds, starts, strict=False):
        chart.mark(start, f"round {of.index}")
    return chart
