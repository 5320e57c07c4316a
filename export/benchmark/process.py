"""Scores files in a process of its own, to see what memory and time they take without anything else.

Imports what the submission imports, and torch only where torch is what is measured.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from birdkit.engines.layout import Layout
from birdkit.files import write_whole
from birdkit.kaggle import table
from birdkit.scoring.ensemble import Ensemble, combine, load
from birdkit.scoring.parts import SoundFile
from birdkit.scoring.predict import predict

ROOT = Path(__file__).resolve().parents[2]
START = "import sys; from export.benchmark.process import child; child(sys.argv[1])"


@dataclass(frozen=True)
class Cost:
    """Time and memory of a process from the first decode to the CSV."""

    seconds: float  # of wall time
    cpu_seconds: float  # of all its threads; a busy neighbour hardly moves it
    peak_mib: float


def score_alone(
    folder: Path, engine: str, precision: str, layout: Layout, files: Sequence[SoundFile]
) -> Cost:
    """Score files in a fresh process, with its models open and warm."""
    asked = {
        "folder": str(folder),
        "engine": engine,
        "precision": precision,
        "layout": str(layout),
        "files": [(str(file.path), file.n_windows) for file in files],
    }
    done = subprocess.run(
        [sys.executable, "-c", START, json.dumps(asked)],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'submission'}"},
        stdout=subprocess.PIPE,
        check=True,
    )
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def child(text: str) -> None:
    """The work of the fresh process; the figures are its last line of output."""
    asked = json.loads(text)
    files = [SoundFile(Path(path), n_windows) for path, n_windows in asked["files"]]
    layout, folder = Layout.parse(asked["layout"]), Path(asked["folder"])
    if asked["engine"] == "torch":
        from export.benchmark.baselines import Setup

        loaded = Setup("", folder, "torch").open(layout).ensemble
    else:
        lower = () if asked["precision"] == "f32" else (asked["precision"],)
        loaded = load(folder, layout, asked["engine"], lower).ensemble
    predict(files[:1], loaded.score, loaded.contract)  # warm
    cpu_start = time.process_time()
    seconds = write_csv(loaded, files, layout.streams)
    cpu_seconds = time.process_time() - cpu_start
    status = Path("/proc/self/status").read_text()
    peak_kib = next(int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line)
    print(json.dumps(asdict(Cost(seconds, cpu_seconds, peak_kib / 1024))))


def write_csv(ensemble: Ensemble, files: Sequence[SoundFile], streams: int) -> float:
    """Score files and write their submission; seconds."""
    contract = ensemble.contract
    plan = table.plan_rows([file.path for file in files], [], contract.window_s)
    with tempfile.TemporaryDirectory() as scratch:
        start = time.perf_counter()
        scores = predict(plan.files, ensemble.score, contract, streams=streams).scores
        written = [rows for rows in combine(scores, ensemble.spec) if rows is not None]
        submission = table.build(plan, written, contract.classes, contract.classes)
        table.check(submission, plan.row_ids, contract.classes)
        write_whole(Path(scratch) / "submission.csv", table.to_csv(submission))
        return time.perf_counter() - start
