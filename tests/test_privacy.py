"""The kit calls nobody: no command opens a socket, looks up a name or writes outside its folders."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
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
    done, trace = traced(arguments, folder)
    refuse_calls_and_writes(trace, folder)
    return done


def traced(
    arguments: Sequence[str], folder: Path
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run Python in `folder` with a home folder of its own; how it ended, and its system calls."""
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
    return done, trace.read_text(errors="replace").splitlines() if STRACE else []


def refuse_calls_and_writes(trace: Sequence[str], folder: Path) -> None:
    home = folder / "home"
    assert list(home.rglob("*")) == []
    for line in trace:
        assert not SOCKET.search(line), line
        if (written := WRITTEN.search(line)) and not TRANSIENT.search(line):
            path = (folder / (written[1] or written[2])).resolve()
            assert path.is_relative_to(folder) or path.is_relative_to("/dev"), line
            assert not path.is_relative_to(home), line


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_an_engine_is_imported_without_its_telemetry(engine: str, tmp_path: Path) -> None:
    """Imported plainly, each leaves an id in the home folder and looks up its maker's name."""
    code = f"from birdkit.engines import wheels; wheels.obtain('{engine}')"
    assert watched(["-c", code], tmp_path).returncode == 0


# bench.py is watched by its own test; kaggle_sim.py has pip fetch packages, and no network after it.
COMMANDS = [
    "train/demo.py --out demo --scale 0.02",
    "train/run.py --data {data} --out run --cache cache {tiny} --set data.speech=cut --tensorboard",
    "train/run.py --data {data} --out planned --cache cache {tiny} --dry-run",
    "train/compare.py {run} --against {run} --set held_out",
    "train/metrics.py {data}/validation/truth.csv --validation {data}/validation",
    "train/report.py {run} --model {model} --out run.html",
    "train/report.py --data {data} --out data.html",
    "train/report.py --soundscapes {data}/train_soundscapes --model {model} --out soundscapes.html",
    "train/label.py {run} --soundscapes {data}/train_soundscapes --out labels",
    "export/to_onnx.py {run} --data {data} --out model",
    "export/to_openvino.py {to_convert} --data {data}",
    "export/bundle.py --model {model} --wheels wheels --out bundle",
    "submission/run.py --data {data} --model {model} --dry-run-files 2 --engine openvino",
    "submission/run.py --data {data} --model {model} --dry-run-files 2 --engine onnxruntime",
    "submission/detect.py {data}/train_soundscapes --model {model} --out detections --clips 1",
]
# Forks for each command, once what takes seconds to import is there: the engines are not, nor is
# anything computed before. A file of the command's number marks in the trace where it begins.
FORKS = """
import json, os, runpy, sys
from pathlib import Path
import scipy.signal, scipy.stats, sklearn.metrics, sklearn.model_selection, torch, train.models, timm
statuses = []
for number, arguments in enumerate(json.loads(Path("commands.json").read_text())):
    Path(f"begin-{number}").touch()
    if not (child := os.fork()):
        sys.argv, sys.path[0] = arguments, str(Path(arguments[0]).parent)
        runpy.run_path(arguments[0], run_name="__main__")
        sys.exit()
    statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
Path("statuses.json").write_text(json.dumps(statuses))
"""


@dataclass(frozen=True)
class Watched:
    """All commands, run one after the other: their exit statuses, messages and parts of the trace."""

    folder: Path
    statuses: list[int]
    errors: str
    traces: list[list[str]]


def parts(trace: Sequence[str]) -> list[list[str]]:
    """The lines before the first command, and those from the beginning of each to the next one's."""
    found: list[list[str]] = [[]]
    for line in trace:
        if f'"begin-{len(found) - 1}"' in line:
            found.append([])
        found[-1].append(line)
    return found


@pytest.fixture(scope="module")
def commands(
    competition: Path, run_dir: Path, model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Watched:
    folder = tmp_path_factory.mktemp("watched").resolve()
    for wheel in WHEELS:
        make_wheel(folder / "wheels" / wheel)
    names = {"data": competition, "run": run_dir}
    names |= {n: shutil.copytree(model_dir, folder / n) for n in ("model_dir", "to_convert")}
    short = [*TINY, "fit.epochs=1", "fit.steps_per_epoch=2", "rounds=[{}, {}]"]
    tiny = " ".join(f"--set {setting}" for setting in short).replace(", ", ",")
    lines = [each.format(**names, model=names["model_dir"], tiny=tiny).split() for each in COMMANDS]
    lines = [[str(ROOT / script), *options] for script, *options in lines]
    (folder / "commands.json").write_text(json.dumps(lines))
    code = f"import sys; sys.path[1:1] = [{str(ROOT)!r}]\n{FORKS}"
    done, trace = traced(["-c", code], folder)
    assert done.returncode == 0, done.stderr
    statuses = json.loads((folder / "statuses.json").read_text())
    return Watched(folder, statuses, done.stderr, parts(trace))


@pytest.mark.slow  # the commands do what they are for
@pytest.mark.parametrize("number", range(len(COMMANDS)), ids=[each.split(" {")[0] for each in COMMANDS])
def test_no_command_calls_home(number: int, commands: Watched) -> None:
    assert commands.statuses[number] == 0, commands.errors
    if STRACE:
        assert len(commands.traces[number + 1]) > 1
        refuse_calls_and_writes(commands.traces[number + 1], commands.folder)
    assert list((commands.folder / "home").rglob("*")) == []


@pytest.mark.slow
def test_what_the_commands_import_calls_nobody(commands: Watched) -> None:
    refuse_calls_and_writes(commands.traces[0], commands.folder)
