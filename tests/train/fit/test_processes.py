"""Trainings by several gloo processes, as torchrun starts them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import ROOT
from tests.train.fit.several import ENCODER, trained
from tests.train.fit.test_trainer import assert_same, command, outcome
from train.fit.processes import GO_ON, Processes

STEPS = 3
# So small a rate that the rounding of sums does not grow from step to step.
SETTINGS = [
    f"models.encoder={ENCODER}",
    "fit.epochs=2",
    "fit.steps_per_epoch=6",
    "fit.lr=1e-5",
    "fit.amp=f32",
]


def started(n: int, arguments: list[str], **more: Any) -> subprocess.Popen[str]:
    ours = f"{ROOT}{os.pathsep}{ROOT / 'submission'}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ours}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(n)]
    return subprocess.Popen([*launcher, *arguments], cwd=ROOT, env=environment, text=True, **more)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "accumulate"), [(2, 1), (3, 2)])
def test_several_processes_reach_the_weights_of_one(tmp_path: Path, n: int, accumulate: int) -> None:
    """Up to the rounding of sums: 16 digits less those that batch norm over 8 samples loses."""
    path = tmp_path / "several.pt"
    arguments = ["-m", "tests.train.fit.several", str(path), str(STEPS), str(accumulate)]
    assert started(n, arguments).wait(600) == 0
    several, one = torch.load(path, weights_only=True), trained(Processes(), STEPS, accumulate)
    torch.testing.assert_close(several["losses"], one["losses"], rtol=1e-7, atol=0)
    for weights in ("model", "ema"):
        assert several[weights].keys() == one[weights].keys()
        for name, value in one[weights].items():
            torch.testing.assert_close(several[weights][name], value, rtol=1e-6, atol=1e-7)


def process_of(rank: int, launcher: subprocess.Popen[str]) -> int | None:
    """The number of the process of this rank that the launcher has started."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            variables = (folder / "environ").read_bytes().split(b"\0")
            if parent == launcher.pid and f"RANK={rank}".encode() in variables:
                return int(folder.name)
    return None


@pytest.mark.slow
def test_a_killed_process_ends_the_training_in_one_line_and_it_goes_on_to_the_same_end(
    competition: Path, tmp_path: Path
) -> None:
    def arguments(out: str) -> list[str]:
        return command(competition, tmp_path / out, *SETTINGS)[1:]

    assert started(2, arguments("whole"), stdout=subprocess.DEVNULL).wait(600) == 0
    killed = started(2, arguments("killed"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    state = tmp_path / "killed" / "round0" / ENCODER / "state.pt"
    while not state.exists() and killed.poll() is None:
        time.sleep(0.05)
    number = process_of(1, killed)
    assert number is not None
    os.kill(number, signal.SIGKILL)
    _, said = killed.communicate(timeout=600)
    assert killed.returncode == 1
    assert [line.endswith(GO_ON) for line in said.splitlines() if line.startswith("error: ")] == [True]
    assert not (state.parent / "final.pt").exists()
    assert started(2, arguments("killed"), stdout=subprocess.DEVNULL).wait(600) == 0
    assert_same(outcome(tmp_path / "killed", ENCODER), outcome(tmp_path / "whole", ENCODER))
    # A finished one is kept by a process alone: their number is no part of what made it.
    again = subprocess.run(command(competition, tmp_path / "whole", *SETTINGS))
    assert again.returncode == 0


@pytest.mark.slow
def test_a_mistake_is_said_once(tmp_path: Path) -> None:
    arguments = ["train/run.py", "--data", str(tmp_path / "nowhere"), "--device", "cpu"]
    failed = started(2, arguments, stderr=subprocess.PIPE)
    _, said = failed.communicate(timeout=600)
    assert failed.returncode == 1  # torchrun's, whatever that of its processes
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "nowhere" in line
