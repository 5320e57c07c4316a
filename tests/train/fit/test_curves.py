from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from train.fit import curves
from train.fit.loop import Progress


@pytest.mark.parametrize("metrics", [{}, {"held_out": {"clipwise": 0.7, "segmentwise": 0.6}}])
def test_every_curve_is_named_in_a_legend(
    metrics: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    progress = Progress(2, [0.5, 0.4], [{"loss": 0.45, "metrics": metrics}])
    curves.draw_curves(progress, tmp_path / "curves.png", "a model")
    left, right = drawn[0].axes
    for axes, names in (
        (left, ["each step", "mean of the epoch"]),
        (right, [f"held_out, {output}" for output in metrics.get("held_out", {})]),
    ):
        legend = axes.get_legend()
        assert ([text.get_text() for text in legend.get_texts()] if legend else []) == names
