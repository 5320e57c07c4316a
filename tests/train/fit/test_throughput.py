from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import TINY
from train import bench


@pytest.mark.slow
def test_training_is_measured_beside_the_step_alone_and_keeps_nothing(
    competition: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(competition), "--cache", str(tmp_path / "cache"), "--device", "cpu"]
    for override in TINY:
        arguments += ["--set", override]
    figures = tmp_path / "bench.json"
    assert bench.main([*arguments, "--steps", "2", "--json", str(figures)]) == 0
    found = json.loads(figures.read_text())
    assert found["ratio"] == pytest.approx(found["real"] / found["resident"])
    # Loading takes time, and a neighbour's load may add to either.
    assert 0.05 < found["ratio"] < 3
    assert min(found[name] for name in ("plain", "first_step_s", "loader", "peak_memory_gb")) > 0
    assert f"{found['ratio']:.3f}" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["bench.json"]
