"""Loss and validation figures of a training as curves, and tables put between marks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from birdkit.errors import UserError
from train.fit.loop import Progress


def draw_curves(progress: Progress, path: Path, title: str) -> None:
    """Write a PNG with the loss beside the validation figures."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    per_epoch = len(progress.losses) / max(1, len(progress.epochs))
    epochs = np.arange(1, len(progress.losses) + 1) / per_epoch
    left.plot(epochs, progress.losses, lw=0.6, alpha=0.4, color="tab:blue")
    ends = np.arange(1, len(progress.epochs) + 1)
    left.plot(ends, [epoch["loss"] for epoch in progress.epochs], color="tab:blue")
    left.set(xlabel="epoch", ylabel="loss", title=title)
    for name, by_output in progress.epochs[-1]["metrics"].items():
        for output in by_output:
            line = [epoch["metrics"][name][output] for epoch in progress.epochs]
            right.plot(ends, line, label=f"{name}, {output}")
    right.set(xlabel="epoch", ylabel="macro ROC-AUC")
    if right.get_legend_handles_labels()[1]:
        right.legend(fontsize=8)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def put_between_marks(path: Path, mark: str, text: str) -> None:
    """Replace what stands between `<!-- mark -->` and `<!-- /mark -->` in a file."""
    start, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    whole = path.read_text()
    if start not in whole or end not in whole:
        raise UserError(f"{path}: needs a line {start} and a line {end} to put the table between")
    before, after = whole.partition(start)[0], whole.partition(end)[2]
    path.write_text(f"{before}{start}\n{text}\n{end}{after}")
