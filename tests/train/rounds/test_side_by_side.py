"""Models of a round that train at a time are those that train one after another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from birdkit.errors import UserError
from birdkit.signals import Stopped
from tests.conftest import ROOT, TINY, two_members
from train import run as train_run
from train.fit.stop import EXIT_STATUS, Stop
from train.rounds import side_by_side

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
MEMBERS = "test_resnet", "test_resnet-2"


@pytest.fixture
def one_thread() -> Iterator[None]:
    """More of them sum in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def arguments(competition: Path, out: Path, *settings: str) -> list[str]:
    where = ["--data", str(competition), "--out", str(out), "--device", "cpu"]
    command = ["--recipe", str(two_members(out.parent)), *where]
    for setting in [*TINY, "fit.batch=4", "fit.steps_per_epoch=4", *settings]:
        command += ["--set", setting]
    return command


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_models_that_train_at_a_time_are_those_that_train_one_after_another(
    competition: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    after = arguments(competition, tmp_path / "after")
    assert train_run.main([*after, "--jobs", "1"]) == 0
    capfd.readouterr()
    beside = arguments(competition, tmp_path / "beside")
    assert train_run.main([*beside, "--jobs", "2"]) == 0
    said = capfd.readouterr().out
    assert f"round 0: {MEMBERS[0]} and {MEMBERS[1]}, 2 at a time" in said
    for name in MEMBERS:
        assert f"{name}:   epoch   2/2" in said
        one, other = (tmp_path / run / "round0" / name / "final.pt" for run in ("after", "beside"))
        assert one.read_bytes() == other.read_bytes()
    assert train_run.main([*beside, "--jobs", "2"]) == 0
    assert capfd.readouterr().out.count("done already") == 2


@pytest.mark.slow
def test_trainings_end_with_their_run_and_go_on_until_their_time_is_over(
    competition: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    endless = arguments(competition, out, "fit.steps_per_epoch=100000", "fit.checkpoint_every_s=0.1")
    command = [sys.executable, "train/run.py", *endless, "--jobs", "2"]
    run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    states = [out / "round0" / name / "state.pt" for name in MEMBERS]
    while not all(state.exists() for state in states):
        assert run.poll() is None
        time.sleep(0.1)
    children = [
        path.parent.name for path in Path("/proc").glob("[0-9]*/stat") if parent(path) == run.pid
    ]
    run.kill()
    run.wait()
    assert len(children) >= 2
    until = time.monotonic() + 60
    while any(Path("/proc", number).exists() for number in children):
        assert time.monotonic() < until, "a training goes on without its run"
        time.sleep(0.1)
    again = subprocess.run([*command, "--stop-after", "1s"], cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == EXIT_STATUS
    assert all(f"{name}: going on after step" in again.stdout for name in MEMBERS)
    assert "stopped as --stop-after asks" in again.stdout
    assert again.stderr == ""


def parent(stat: Path) -> int:
    """The number of a process's parent; 0 where it has ended."""
    try:
        return int(stat.read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


@dataclass(frozen=True)
class Fake:
    """A training that does what its name says."""

    name: str

    @property
    def member(self) -> Any:
        return SimpleNamespace(name=self.name)

    def run(self, device: torch.device, stop: Stop) -> None:
        if self.name == "is refused":
            raise UserError("the loss is nan; lower fit.lr")
        if self.name == "is killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.name == "is broken":
            os._exit(7)
        if self.name == "stops":
            raise Stopped
        if self.name == "takes long":
            time.sleep(600)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["takes long", "is refused"], "the loss is nan; lower fit.lr"),
        (["is killed"], "is killed: its training ended by SIGKILL; the same command goes on"),
        (["is broken"], "is broken: its training ended by exit status 7; the same command goes on"),
    ],
)
def test_one_that_fails_ends_the_others_in_one_line(names: list[str], said: str) -> None:
    trainings: Any = [Fake(name) for name in names]
    with pytest.raises(UserError, match=said):
        side_by_side.train(trainings, [CPU] * len(names), Stop())


@pytest.mark.slow
def test_one_that_stops_lets_no_further_one_begin() -> None:
    trainings: Any = [Fake("stops"), Fake("ends"), Fake("takes long")]
    with pytest.raises(Stopped):
        side_by_side.train(trainings, [CPU], Stop())


@pytest.mark.parametrize(
    ("device", "n_models", "n_steps", "jobs", "expected"),
    [
        (CPU, 4, 400, 0, ["cpu", "cpu"]),  # two cores
        (CPU, 1, 400, 0, ["cpu"]),
        (CPU, 4, 99, 0, ["cpu"]),  # no gain
        (CPU, 4, 99, 3, ["cpu"] * 3),
        (CPU, 4, 400, 1, ["cpu"]),
        (CPU, 0, 400, 0, ["cpu"]),
        (CUDA, 4, 400, 0, ["cuda:0", "cuda:1", "cuda:2"]),  # three GPUs
        (CUDA, 2, 400, 0, ["cuda:0", "cuda:1"]),
        (CUDA, 4, 400, 4, ["cuda:0", "cuda:1", "cuda:2", "cuda:0"]),
        (torch.device("cuda:1"), 4, 400, 0, ["cuda:1"]),
    ],
)
def test_as_many_train_at_a_time_as_gain_by_it(
    device: torch.device,
    n_models: int,
    n_steps: int,
    jobs: int,
    expected: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(side_by_side, "most_at_once", lambda cores: 2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    found = side_by_side.devices(device, [n_steps] * n_models, jobs)
    assert [str(each) for each in found] == expected
