"""TensorBoard's files, read back by their own format: length, checksum, event, checksum."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

from tests.conftest import TINY
from train import run as train_run
from train.fit.events import FOLDER, events
from train.fit.loop import Progress

Curves = dict[str, dict[int, float]]  # name → step → value


def curves(model_folder: Path) -> Curves:
    (path,) = (model_folder / FOLDER).iterdir()
    content, found, start = path.read_bytes(), Curves(), 0
    while start < len(content):
        (length,) = struct.unpack_from("<Q", content, start)
        event = Event.FromString(content[start + 12 : start + 12 + length])
        for value in event.summary.value:
            found.setdefault(value.tag, {})[event.step] = value.simple_value
        start += 12 + length + 4
    return found


def progress(n_epochs: int) -> Progress:
    aucs = [{"loss": 0.0, "metrics": {"held_out": {"clipwise": 0.5 + 0.125 * k}}} for k in range(9)]
    losses = [1 / 2**step for step in range(3 * n_epochs)]
    return Progress(len(losses), losses, aucs[:n_epochs])


def test_each_step_s_loss_and_each_epoch_s_figures_are_written_once(tmp_path: Path) -> None:
    with events(tmp_path, 3, wanted=True) as watch:
        watch(progress(1))
        watch(progress(2))
    assert curves(tmp_path) == {
        "loss": {step + 1: 1 / 2**step for step in range(6)},
        "held_out/clipwise": {3: 0.5, 6: 0.625},
    }


def test_a_training_that_goes_on_is_one_curve(tmp_path: Path) -> None:
    with events(tmp_path, 3, wanted=True) as watch:
        watch(progress(1))
    with events(tmp_path, 3, wanted=True) as watch:  # the next process begins in the third epoch
        begun = progress(2)
        watch(Progress(7, [*begun.losses, 0.0], begun.epochs))
        watch(progress(3))
    assert list(curves(tmp_path)["loss"]) == list(range(1, 10))
    assert list(curves(tmp_path)["held_out/clipwise"]) == [3, 6, 9]


def test_nothing_is_written_where_nobody_asks(tmp_path: Path) -> None:
    with events(tmp_path, 3, wanted=False) as watch:
        watch(progress(1))
    assert not list(tmp_path.iterdir())


def test_a_quiet_training_says_nothing_and_leaves_its_curves(
    competition: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(competition), "--out", str(tmp_path / "run"), "--device", "cpu"]
    for override in [*TINY, "rounds=[{}]"]:
        arguments += ["--set", override]
    assert train_run.main([*arguments, "--tensorboard", "--quiet"]) == 0
    assert capfd.readouterr() == ("", "")
    (history,) = (tmp_path / "run" / "round0").glob("*/history.json")
    figures = json.loads(history.read_text())
    drawn = curves(history.parent)
    assert list(drawn["loss"].values()) == pytest.approx(figures["losses"])
    for name, by_output in figures["epochs"][-1]["metrics"].items():
        for output, auc in by_output.items():
            assert drawn[f"{name}/{output}"][len(figures["losses"])] == pytest.approx(auc)
    shutil.rmtree(history.parent / FOLDER)
    assert train_run.main([*arguments, "--tensorboard", "--quiet"]) == 0  # of what is finished, too
    assert curves(history.parent) == drawn
