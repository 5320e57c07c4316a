"""Calibration: how often a class calls where the ensemble gives it a probability."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from train.pages import svg
from train.pages.report.run_folder import Run, View
from train.pages.tables import Column, Table
from train.scoring.summary import ENSEMBLE, Scored

N_BINS = 10


@dataclass(frozen=True)
class Reliability:
    """Decided cells of a table by their probability, in bins of equal width; empty bins are NaN."""

    counts: NDArray[np.int64]  # (bins,)
    means: NDArray[np.float64]  # (bins,) of the probabilities
    shares: NDArray[np.float64]  # (bins,) of the cells whose class calls

    @property
    def error(self) -> float:
        """Expected calibration error: |share − mean|, weighted by cells (Guo et al. 2017)."""
        gaps = np.nan_to_num(np.abs(self.shares - self.means))
        return float((self.counts * gaps).sum() / max(1, self.counts.sum()))


def reliability(scored: Scored, output: str) -> Reliability:
    """The ensemble's, over all classes together."""
    decided = scored.truth.decided
    scores = scored.table(output, ENSEMBLE)[decided].astype(np.float64)
    labels = scored.truth.labels[decided]
    bins = np.minimum((scores * N_BINS).astype(int), N_BINS - 1)
    counts = np.bincount(bins, minlength=N_BINS)
    with np.errstate(invalid="ignore"):
        means = np.bincount(bins, scores, N_BINS) / counts
        shares = np.bincount(bins, labels, N_BINS) / counts
    return Reliability(counts, means, shares)


@dataclass(frozen=True)
class Calibration:
    """The chart of all rounds, its colours, and its figures."""

    chart: Markup
    legend: list[tuple[str, str]]
    table: Table


def draw(run: Run, view: View) -> Calibration | None:
    """None where no scores of the set are stored."""
    found = {
        of.index: reliability(scored, view[1])
        for of in run.rounds
        if (scored := of.scored.get(view[0])) is not None and view[1] in scored.header.outputs
    }
    if not found:
        return None
    x, y = svg.Axis("mean probability", 0, 1), svg.Axis("share that calls", 0, 1)
    chart = svg.Chart(f"Reliability of {run.name} on {view[0]}, {view[1]}", x, y)
    chart.line([(0, 0), (1, 1)], "chance")
    legend = []
    for index, of in found.items():
        class_ = svg.colour(index)
        there = np.flatnonzero(of.counts)
        chart.line([(of.means[i], of.shares[i]) for i in there], class_)
        for i in there:
            cells = f"of {of.counts[i]:,} cells at {of.means[i]:.2f}, {of.shares[i]:.1%} call"
            radius = 2.5 + 0.9 * np.log10(of.counts[i])
            chart.dot((of.means[i], of.shares[i]), class_, f"round {index}: {cells}", float(radius))
        legend.append((f"round {index}, error {of.error:.4f}", class_))
    return Calibration(chart.markup(), legend, _table(found))


def _table(found: dict[int, Reliability]) -> Table:
    columns = [Column("probability")]
    for index in found:
        columns += [
            Column(f"cells, round {index}", ",.0f"),
            Column("mean", ".3f"),
            Column("call", ".1%"),
        ]
    rows = [
        [
            f"{i / N_BINS:.1f} to {(i + 1) / N_BINS:.1f}",
            *(value for of in found.values() for value in (of.counts[i], of.means[i], of.shares[i])),
        ]
        for i in range(N_BINS)
    ]
    return Table("Cells by probability", columns, rows)
