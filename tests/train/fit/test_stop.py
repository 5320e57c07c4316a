"""A run that stops itself has saved all that it did, says so, and ends as one that did not stop."""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from birdkit.signals import Stopped
from tests.conftest import TINY
from train import run as train_run
from train.fit.stop import EXIT_STATUS, Stop
from train.models import checkpoint
from train.rounds import sessions, teachers

# Two rounds of one epoch of four steps.
SETTINGS = [*TINY, "fit.batch=4", "fit.steps_per_epoch=4", "fit.epochs=1", "rounds=[{},{}]"]


def train(competition: Path, out: Path, *arguments: str) -> int:
    command = ["--recipe", "demo", "--data", str(competition), "--out", str(out), "--device", "cpu"]
    for override in SETTINGS:
        command += ["--set", override]
    return train_run.main([*command, *arguments])


def ended(out: Path) -> list[str]:
    return [session["ended"] for session in sessions.read(out)]


@pytest.mark.parametrize(
    "text, seconds", [("11.5h", 41_400.0), ("90min", 5400.0), ("30s", 30.0), ("1.5 h", 5400.0)]
)
def test_a_time_counts_from_the_start(text: str, seconds: float) -> None:
    stop = Stop.after(text)
    assert stop.at == pytest.approx(time.monotonic() + seconds, abs=1.0)
    assert stop.steps_left == math.inf


@pytest.mark.parametrize("text", ["", "11.5", "0h", "-1h", "1d", "nan s", "steps", "1e3s"])
def test_what_is_no_time_is_refused_with_what_is_one(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"expected 11\.5h, 90min, 30s or 200steps"):
        Stop.after(text)


def test_a_run_has_to_stop_once_its_time_has_come_or_its_steps_are_done() -> None:
    Stop().check()
    Stop(at=time.monotonic() + 60).check()
    with pytest.raises(Stopped):
        Stop(at=time.monotonic()).check()
    stop = Stop.after("2steps")
    stop.step_done()
    assert not stop.due
    stop.step_done()
    assert stop.due


def test_a_run_stops_in_both_rounds_and_goes_on(
    competition: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(competition, tmp_path, "--stop-after", "3steps") == EXIT_STATUS
    assert "stopped as --stop-after asks; the same command goes on" in capsys.readouterr().out
    assert train(competition, tmp_path, "--stop-after", "3steps") == EXIT_STATUS
    assert "going on after step 3 of 4" in capsys.readouterr().out
    assert (tmp_path / "round1" / "pseudo.parquet").is_file()
    assert not (tmp_path / checkpoint.RECIPE_NAME).exists()
    assert train(competition, tmp_path) == 0
    assert (tmp_path / checkpoint.RECIPE_NAME).is_file()
    assert ended(tmp_path) == ["stopped", "stopped", "finished"]


@pytest.mark.slow
def test_a_run_whose_time_is_over_in_its_pseudo_labels_keeps_each_saved_block(
    competition: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teachers, "BLOCK_FILES", 2)
    assert train(competition, tmp_path, "--stop-after", "4steps") == EXIT_STATUS
    labelled: list[Any] = []
    check = Stop.check

    def over_after_two_blocks(self: Stop) -> None:
        labelled.extend(tmp_path.glob("round1/pseudo-*.npz"))
        if len(labelled) > 2:
            raise Stopped
        check(self)

    with monkeypatch.context() as patch:
        patch.setattr(Stop, "check", over_after_two_blocks)
        assert train(competition, tmp_path) == EXIT_STATUS
    assert len(list(tmp_path.glob("round1/pseudo-*.npz"))) == 2
    assert train(competition, tmp_path) == 0


def test_a_session_says_when_on_what_and_by_which_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sessions.recorded(tmp_path, torch.device("cpu")):
        assert [session["ended"] for session in sessions.read(tmp_path)] == ["running"]
    with pytest.raises(OSError), sessions.recorded(tmp_path, torch.device("cpu")):
        raise OSError("no space")
    first, second = sessions.read(tmp_path)
    assert (first["ended"], second["ended"]) == ("finished", "failed")
    assert first["device"] == ["cpu"]
    assert first["packages"]["torch"] == torch.__version__
    assert {"python", "timm", "numpy"} <= first["packages"].keys()
    (tmp_path / sessions.NAME).write_text("half of a fi")
    assert sessions.read(tmp_path) == []
