"""What a session refuses before it writes, and what other runs, signals and faults can't take away."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from birdkit import files
from birdkit.engines.layout import MOST_THREADS
from birdkit.errors import UserError
from birdkit.kaggle import session
from birdkit.scoring.ensemble import Spec
from birdkit.signals import Stopped, Termination
from tests.conftest import ROOT
from tests.conftest import submission_run as run
from tests.submission.kaggle.test_invariant import World, assert_holds, make_data, play, sounds

__all__ = ["sounds"]
FINISHED = {"passes": ["plain"], "csv_sha256": hashlib.sha256(b"a finished table\n").hexdigest()}


@pytest.fixture
def data(sounds: list[Path], tmp_path: Path) -> Path:
    return make_data(sounds, {}, tmp_path / "data")


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A table of completed passes that an earlier run has left."""
    out = tmp_path / "s.csv"
    out.write_text("a finished table\n")
    (tmp_path / "s.csv.report.json").write_text(json.dumps(FINISHED))
    return out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--budget-min nan", "above 0, and finite"),
        ("--budget-min inf", "above 0, and finite"),
        ("--started nan", "not in the future"),
        ("--started 4102444800", "not in the future"),  # 2100
        ("--max-passes -5", "--max-passes -5 must be 0"),
        ("--dry-run-files -1", "--dry-run-files -1 must be 0"),
        (f"--threads {MOST_THREADS + 1}", "at most"),
        ("--layout 9999x1x1", "beyond this machine"),
        ("--layout 1x1x99999", "beyond this machine"),
        ("--layout 2x2", "is not STREAMSxTHREADSxBATCH"),
        ("--engine opnvino", "engine 'opnvino' is unknown"),
        ("--precision fp8", "choose auto"),
        ("--model nowhere", "ensemble.json: not found"),
        ("--data nowhere", "no such folder"),
    ],
)
def test_a_wrong_option_is_refused_before_a_finished_table_is_touched(
    options: str, message: str, data: Path, finished: Path
) -> None:
    arguments = ["--data", str(data), "--out", str(finished), *options.split()]
    with pytest.raises(UserError, match=message):
        run.main(arguments)
    assert finished.read_text() == "a finished table\n"


def test_seven_hundred_files_have_to_fit_in_94_percent_of_the_limit() -> None:
    text, fits = session.verdict(7.2, 90.0)
    assert (text, fits) == ("700 files would take 84.0 of 90 min a pass: fits", True)
    assert not session.verdict(7.3, 90.0)[1]


def test_a_second_signal_does_not_stop_the_writing_that_follows_the_first() -> None:
    termination = Termination()
    termination._receive(signal.SIGTERM, None)  # held back
    with pytest.raises(Stopped):
        termination.release()
    termination._receive(signal.SIGTERM, None)
    awake = Termination()
    awake.release()
    with pytest.raises(Stopped):
        awake._receive(signal.SIGINT, None)
    awake._receive(signal.SIGTERM, None)


def test_a_model_without_its_file_is_refused_before_the_first_table(data: Path, tmp_path: Path) -> None:
    Spec({"m": 1.0}).save(tmp_path)
    out = tmp_path / "s.csv"
    with pytest.raises(UserError, match=r"no m\.onnx or m\.xml there"):
        run.main(["--data", str(data), "--model", str(tmp_path), "--out", str(out)])
    assert not out.exists()


@pytest.mark.parametrize("kind", ["folder", "under a file", "too long", "device"])
def test_an_out_that_cannot_be_a_file_is_one_line(
    kind: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    outs = {"folder": ".", "under a file": "file/s.csv", "too long": 250 * "x", "device": "/dev/null"}
    ended = play(World("none", 0), data, tmp_path / outs[kind], monkeypatch)
    assert isinstance(ended, UserError)
    assert "give the path of a file" in str(ended)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "file"]


@pytest.mark.parametrize("kind", ["SIGTERM at an engine call", "lasting disk full at a write"])
def test_a_table_of_completed_passes_is_not_replaced_by_one_of_none(
    kind: str, data: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = play(World(kind, 0), data, finished, monkeypatch)
    assert ended != 0
    assert finished.read_text() == "a finished table\n"


def test_a_cut_short_pass_keeps_the_finished_table_and_says_so(
    data: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert play(World("SIGTERM at an engine call", 2), data, finished, monkeypatch) == 3
    assert finished.read_text() == "a finished table\n"
    assert "the table of an earlier run is kept" in capsys.readouterr().err
    assert play(World("none", 0), data, finished, monkeypatch) == 0
    assert assert_holds(data, finished, {})["passes"]


def test_a_disk_that_is_full_after_the_first_pass_leaves_that_pass_and_exit_status_0(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "s.csv"
    assert play(World("lasting disk full at a write", 2), data, out, monkeypatch) == 0
    assert assert_holds(data, out, {})["passes"] == ["plain"]
    ended = play(World("lasting disk full at a write", 2), data, out, monkeypatch, "--strict")
    assert isinstance(ended, OSError)


def test_a_second_writer_is_told_who_holds_the_table(
    data: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with files.locked(finished):
        ended = play(World("none", 0), data, finished, monkeypatch)
    assert isinstance(ended, UserError)
    assert f"process {os.getpid()} on " in str(ended)
    assert finished.read_text() == "a finished table\n"
    assert play(World("none", 0), data, finished, monkeypatch) == 0
    assert not list(finished.parent.glob("*.lock"))


def test_what_a_run_leaves_is_the_table_and_its_report_and_its_files_follow_no_link(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = tmp_path / "private"
    private.write_text("mine")
    out = tmp_path / "out" / "s.csv"
    out.parent.mkdir()
    for name in ("s.csv.partial", "s.csv.report.json.partial", "s.csv", "s.csv.report.json"):
        (out.parent / name).symlink_to(private)
    assert play(World("none", 0), data, out, monkeypatch) == 0
    assert private.read_text() == "mine"
    assert not out.is_symlink()
    assert len(list(out.parent.iterdir())) == 4


def started(folder: Path, data: Path, slow: str) -> subprocess.Popen[str]:
    """A submission in a process of its own, whose import of `slow` waits; it has begun to wait."""
    model = folder / "model"
    model.mkdir()
    Spec({"m": 1.0}).save(model)
    (model / "m.onnx").write_bytes(b"no model")
    (folder / "sitecustomize.py").write_text(
        "import sys, time\n"
        "class Slow:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == '{slow}':\n"
        "            print('waiting', flush=True)\n"
        "            time.sleep(0.5)\n"
        "sys.meta_path.insert(0, Slow())\n"
    )
    arguments = ["--data", str(data), "--model", str(model)]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "submission" / "run.py"), *arguments],
        cwd=folder, env=os.environ | {"PYTHONPATH": str(folder)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    while process.stdout.readline() != "waiting\n":
        assert process.poll() is None
    return process


@pytest.mark.parametrize(
    ("number", "slow"),
    [(signal.SIGINT, "pandas"), (signal.SIGTERM, "pandas"), (signal.SIGINT, "openvino")],
)
def test_a_signal_during_start_up_leaves_a_complete_table_and_says_so(
    number: signal.Signals, slow: str, data: Path, tmp_path: Path
) -> None:
    """During the imports, and while an engine is imported from its wheel or fails to be."""
    process = started(tmp_path, data, slow)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == run.EXIT_INCOMPLETE
    assert errors.endswith("not one of 4 files was scored; stopped: it was told to end\n")
    assert "Traceback" not in errors
    lines = (tmp_path / "submission.csv").read_text().splitlines()
    assert len(lines) == 1 + 4 * 12
    assert not list(tmp_path.glob("*.lock"))
