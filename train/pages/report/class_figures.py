"""Figures by class: macro-AUC beside the number of recordings, the lowest, and the confused ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray

from train.pages import svg
from train.pages.report.run_folder import Run, View
from train.pages.tables import Column, Table
from train.scoring.summary import ENSEMBLE, Scored

LOWEST, CONFUSED = 8, 15  # rows of their tables
FEWEST = 3  # windows that a confusion must be seen in to be listed


def aucs(run: Run, view: View, index: int) -> pd.DataFrame:
    """The rows of per_class.csv of a round's ensemble on a set in an output, by class."""
    table = run.classes
    rows = table[(table["round"] == index) & (table["model"] == ENSEMBLE)]
    return rows[(rows["set"] == view[0]) & (rows["output"] == view[1])].set_index("class")


def last_scored(run: Run, view: View) -> int:
    """The last round of the run that was scored on a set in an output; -1 where none was."""
    table = run.models[~run.models["round"].isin(run.without_gain)]
    rows = table[(table["set"] == view[0]) & (table["output"] == view[1])]
    return int(rows["round"].max()) if len(rows) else -1


def names_of(runs: Sequence[Run]) -> pd.DataFrame:
    """The classes of all runs with what is known of them, by class."""
    known = [run.names.set_index("class") for run in runs if run.names is not None]
    rest = [pd.DataFrame(index=pd.Index(_classes(run), name="class")) for run in runs]
    table = pd.concat([*known, *rest])
    return table[~table.index.duplicated()]


def _classes(run: Run) -> list[str]:
    """The classes of a run, as far as any of its files tells them."""
    scored = [c for of in run.rounds for s in of.scored.values() for c in s.header.classes]
    labelled = [c for of in run.rounds if of.labels for c in of.labels.summary.mass]
    return list(dict.fromkeys([*scored, *labelled, *run.classes["class"]]))


def class_data(runs: Sequence[Run], views: Sequence[View]) -> dict[str, Any]:
    """What the page's table of classes shows: a row a class, and columns by view."""
    names = names_of(runs)
    texts = names.reindex(columns=["common_name", "scientific_name", "class_name"]).fillna("")
    counted = any(run.names is not None for run in runs)
    return {
        "classes": names.index.tolist(),
        "names": [
            ", ".join(filter(None, pair))
            for pair in zip(texts["common_name"], texts["scientific_name"], strict=True)
        ],
        "groups": texts["class_name"].tolist(),
        "recordings": names["n_recordings"].tolist() if counted else None,
        "views": {"|".join(view): _columns(runs, view, names.index) for view in views},
    }


def _columns(runs: Sequence[Run], view: View, classes: pd.Index) -> dict[str, Any]:
    """Positives of each class, macro-AUC by round or by run, and how far the last two differ."""
    if len(runs) == 1:
        (run,) = runs
        shown = [(f"AUC round {of.index}", aucs(run, view, of.index)) for of in run.rounds]
    else:
        shown = [(f"AUC {run.name}", aucs(run, view, last_scored(run, view))) for run in runs]
    columns = [(title, table["auc"].reindex(classes).astype(float)) for title, table in shown]
    positives = pd.concat([table["n_positive"] for _, table in shown])
    positives = positives[~positives.index.duplicated()].reindex(classes)
    listed: list[dict[str, Any]] = [
        {"title": title, "values": values.tolist()} for title, values in columns
    ]
    if len(columns) > 1:
        before, after = (
            (columns[1][1], columns[0][1]) if len(runs) > 1 else (columns[0][1], columns[-1][1])
        )
        title = "first − second run" if len(runs) > 1 else "last − first round"
        listed.append({"title": title, "values": (after - before).tolist(), "change": True})
    return {"positives": positives.tolist(), "columns": listed}


def scatter(run: Run, view: View) -> Markup:
    """AUC of each class in the last round over its number of recordings."""
    table = aucs(run, view, last_scored(run, view))
    if run.names is None or table.empty:
        return Markup("")
    counts = run.names.set_index("class")["n_recordings"].reindex(table.index).fillna(0)
    most = max(10.0, float(counts.max()))
    x = svg.Axis("recordings + 1, logarithmic", 0.9, 1.2 * (most + 1), log=True)
    low = min(0.5, math.floor(10 * float(table["auc"].min())) / 10)
    chart = svg.Chart(f"AUC of the classes of {run.name} by recordings", x, svg.Axis("AUC", low, 1.0))
    chart.line([(0.9, 0.5), (1.2 * (most + 1), 0.5)], "chance")
    for name, auc, positives in zip(table.index, table["auc"], table["n_positive"], strict=True):
        tip = f"{name}: AUC {auc:.3f}, {counts[name]:.0f} recordings, {positives:.0f} positive"
        chart.dot((counts[name] + 1, auc), "s0", tip, 4.5, data_class=name)
    return chart.markup()


def lowest(run: Run, view: View) -> Table:
    """The classes of the lowest AUC in the last round."""
    table = aucs(run, view, last_scored(run, view)).sort_values("auc").head(LOWEST)
    known = names_of([run]).reindex(columns=["common_name", "n_recordings"]).reindex(table.index)
    known["common_name"] = known["common_name"].fillna("")
    rows = known.join(table[["auc", "n_positive"]])
    rows = rows[["common_name", "auc", "n_positive", "n_recordings"]].reset_index()
    columns = (
        Column("class"),
        Column("name"),
        Column("AUC", ".3f"),
        Column("positives", ".0f"),
        Column("recordings", ".0f"),
    )
    return Table("The lowest", columns, rows.astype(object).to_numpy().tolist())


def confused(run: Run, view: View) -> Table | None:
    """The pairs of classes where one that is absent outscores one that calls, in most windows.

    None where the scores of the set are not stored.
    """
    scored = _scores(run, view)
    if scored is None:
        return None
    won, n_windows = outscored(scored, view[1])
    shares = np.where(
        won >= min(FEWEST, max(1, won.max(initial=0))), won / np.maximum(n_windows, 1), 0.0
    )
    order = np.lexsort((-shares.ravel(), -won.ravel()))[:CONFUSED]
    classes = scored.header.classes
    rows = [
        (classes[a], classes[b], int(won[a, b]), int(n_windows[a, b]), float(shares[a, b]))
        for a, b in zip(*np.unravel_index(order, won.shape), strict=True)
        if won[a, b] and shares[a, b]
    ]
    columns = (
        Column("calls"),
        Column("confused with"),
        Column("windows", ".0f"),
        Column("of", ".0f"),
        Column("share", ".0%"),
    )
    return Table("The most confused", columns, rows)


def _scores(run: Run, view: View) -> Scored | None:
    """The last scores that are stored of a set and output."""
    for of in reversed(run.rounds):
        scored = of.scored.get(view[0])
        if scored is not None and view[1] in scored.header.outputs:
            return scored
    return None


def outscored(scored: Scored, output: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each class that calls (row) and each other one (column): in how many windows the other one is
    absent and scores higher, and in how many it is absent.
    """
    scores, truth = scored.table(output, ENSEMBLE), scored.truth
    won, absent = np.zeros((2, truth.n_classes, truth.n_classes), np.int64)
    negative = truth.decided & ~truth.labels
    for index in np.flatnonzero(truth.n_positive).tolist():
        rows = truth.positives(index)
        higher = scores[rows] > scores[rows, index][:, None]
        won[index] = (higher & negative[rows]).sum(axis=0)
        absent[index] = negative[rows].sum(axis=0)
    return won, absent
