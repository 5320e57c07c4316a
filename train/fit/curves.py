"""Draws the curves of a training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from train.fit.loop import Progress


def draw_curves(progress: Progress, path: Path, title: str) -> None:
    """Write a PNG with the loss beside the validation figures."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    per_epoch = len(progress.losses) / max(1, len(progress.epochs))
    epochs = np.arange(1, len(progress.losses) + 1) / per_epoch
    left.plot(epochs, progress.losses, lw=0.6, alpha=0.4, color="tab:blue", label="each step")
    ends = np.arange(1, len(progress.epochs) + 1)
    means = [epoch["loss"] for epoch in progress.epochs]
    left.plot(ends, means, color="tab:blue", label="mean of the epoch")
    left.set(xlabel="epoch", ylabel="loss", title=title)
    for name, by_output in progress.epochs[-1]["metrics"].items():
        for output in by_output:
            line = [epoch["metrics"][name][output] for epoch in progress.epochs]
            right.plot(ends, line, label=f"{name}, {output}")
    right.set(xlabel="epoch", ylabel="macro ROC-AUC")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
