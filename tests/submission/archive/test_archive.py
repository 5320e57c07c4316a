"""An archive: one row a window whatever fails, the same tables by any workers, and nothing twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import pytest

from birdkit.archive import cluster, processes, session
from birdkit.archive.partitions import Partition, partitions
from birdkit.archive.places import Item, find
from birdkit.archive.tables import FOLDERS, Summary
from birdkit.archive.worker import ATTEMPTS, DIED, MOST_DEATHS, Attempt, Collected, Task, Worker
from birdkit.detections.outputs import Choices, Outputs
from birdkit.detections.species import Species
from birdkit.engines.layout import Layout
from birdkit.errors import UserError
from birdkit.recordings import folders
from birdkit.recordings.batch import Batch
from birdkit.recordings.journal import Journal, Model
from birdkit.recordings.models import ModelFolder, Opened
from birdkit.recordings.progress import Progress
from tests.conftest import ROOT, submission_detect, write_sound
from tests.submission.recordings.test_batch import Hears, models

WITHOUT_RAY = "Ray of requirements-scale.txt is not installed"


def arguments(folder: Path, out: Path, model_dir: Path, *more: str) -> list[str]:
    given = [str(folder), "--model", str(model_dir), "--out", str(out), "--floor", "0.01"]
    return [*given, "--threshold", "0.05", *more]


def detect(folder: Path, out: Path, model_dir: Path, *more: str) -> int:
    return submission_detect.main(arguments(folder, out, model_dir, *more))


def contents(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Recordings of several lengths, one cut short, and one that is no sound."""
    folder = tmp_path / "in"
    for index, seconds in enumerate((12.0, 5.0, 31.0, 0.5)):
        write_sound(folder / f"S{index}_20250703_0715{index:02d}.wav", seconds, rate=16000)
    whole = write_sound(folder / "cut.flac", 40.0, rate=16000).read_bytes()
    (folder / "cut.flac").write_bytes(whole[: len(whole) // 2])
    (folder / "bad.wav").write_bytes(b"no sound")
    return folder


@dataclass(frozen=True)
class Folder:
    """In place of a model folder: an engine that answers with what it hears."""

    key: str = "key"
    folder: Path = Path("models")

    def open(self, before: str | None) -> Opened:
        return Opened(models(Hears()), Layout(1, 1, 12))


@pytest.fixture
def task(tmp_path: Path) -> Task:
    contract = Hears().contract
    model = Model("models-key", contract.classes, 5.0, contract.sample_rate, "1x1x12")
    species = [Species("a", "Genus a", "Animal a"), Species("b")]
    choices = Choices(species, [0, 1], [0.5, 0.5], 0.2, join=True, clips=0)
    return Task(cast(ModelFolder, Folder()), "key", model, choices, str(tmp_path / "out"))


def the_partition(folder: Path) -> Partition:
    (one,) = partitions(find([str(folder)], "out")[0], 10**6, "made")
    return one


def test_every_window_has_one_row_whatever_fails(archive: Path, task: Task, tmp_path: Path) -> None:
    summary = Worker(task)(the_partition(archive))
    windows = pd.read_parquet(tmp_path / "out" / "windows")
    assert not windows.duplicated(["recording", "window"]).any()
    counts = windows.groupby("recording")["window"].count()
    assert counts.drop("cut.flac").to_dict() == {
        "S0_20250703_071500.wav": 3, "S1_20250703_071501.wav": 1, "S2_20250703_071502.wav": 7,
        "S3_20250703_071503.wav": 1, "bad.wav": 1,
    }  # fmt: skip
    assert 1 <= counts["cut.flac"] <= 8
    assert windows.loc[~windows["scored"], "recording"].unique().tolist() == ["bad.wav"]
    recordings = pd.read_parquet(tmp_path / "out" / "recordings").set_index("recording")
    assert (recordings["windows"] == counts).all()
    assert (
        recordings.loc[recordings["fault"] != ""].index.tolist() == list(summary.faults) == ["bad.wav"]
    )
    assert (summary.recordings, summary.windows) == (6, len(windows))
    assert not list((tmp_path / "out" / ATTEMPTS).iterdir())


def test_the_scores_are_those_of_one_process_without_partitions(
    archive: Path, task: Task, tmp_path: Path
) -> None:
    Worker(task)(the_partition(archive))
    plain = tmp_path / "plain"
    plain.mkdir()
    found, _ = folders.find([archive])
    with closing(Journal(plain, "key")) as journal:
        batch = Batch(models(Hears()), journal, 0.2, Progress(len(found), 1))
        batch.run(found, streams=1)
        Outputs(plain, journal, task.model, task.choices).write(found, batch.faults)
    nested = pd.read_parquet(tmp_path / "out" / "windows")
    flat = nested.explode(["classes", "scores"]).dropna(subset="classes")
    flat = flat.rename(columns={"classes": "class", "scores": "score"}).astype({"score": "float32"})
    columns = ["recording", "start_s", "end_s", "time", "class", "score"]
    windows = pd.read_parquet(plain / "windows.parquet")
    assert len(windows) > 10
    pd.testing.assert_frame_equal(flat[columns].reset_index(drop=True), windows[columns])
    detections = pd.read_csv(plain / "detections.csv", keep_default_na=False)
    own = pd.read_parquet(tmp_path / "out" / "detections")
    assert len(own) > 3
    assert own.drop(columns="score").astype(str).equals(detections.drop(columns="score").astype(str))
    np.testing.assert_allclose(own["score"], detections["score"], atol=1e-6)


def test_a_partition_that_is_there_is_read_and_not_scored(archive: Path, task: Task) -> None:
    partition = the_partition(archive)
    first = Worker(task)(partition)
    before = contents(Path(task.out))
    for recording in archive.iterdir():
        recording.write_bytes(b"")  # would be bad now
    assert Worker(task)(partition) == first
    assert contents(Path(task.out)) == before


def test_a_damaged_partition_is_made_again(archive: Path, task: Task) -> None:
    partition = the_partition(archive)
    Worker(task)(partition)
    before = contents(Path(task.out))
    (path,) = (Path(task.out) / "recordings").iterdir()
    path.write_bytes(path.read_bytes()[:100])
    Worker(task)(partition)
    assert contents(Path(task.out)) == before


def test_a_worker_that_dies_while_it_writes_leaves_nothing_behind(
    archive: Path, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scored(task: Task, todo: Sequence[Partition], n_workers: int) -> Iterator[Summary]:
        for partition in todo:
            yield Worker(task)(partition)
            # As if one had been killed in the middle of a table, and another after the last one.
            (out / "windows" / f"part-{partition.key}.{'0' * 16}.partial").write_bytes(b"half")
            (out / ATTEMPTS / f"{partition.key}.json").write_text("[1, []]")

    out = Path(task.out)
    monkeypatch.setattr(session, "task_of", lambda of_all, where: task)
    monkeypatch.setattr(processes, "run", scored)
    detect(archive, out, tmp_path, "--workers", "1")
    assert sorted({Path(name).parent.name for name in contents(out)}) == sorted(FOLDERS)
    assert all(name.endswith(".parquet") for name in contents(out))


def test_a_recording_that_ends_its_workers_is_left_out_and_the_others_are_scored(
    archive: Path, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Death(BaseException):
        """In place of a signal that no code survives."""

    def fatal(worker: Worker, items: Sequence[Item], attempt: Attempt, collected: Collected) -> None:
        if any("S1" in item.name for item in items) and not attempt.ended_its_worker(items):
            raise Death
        score(worker, items, attempt, collected)

    score = Worker._score
    monkeypatch.setattr(Worker, "_score", fatal)
    worker, partition, deaths = Worker(task), the_partition(archive), 0
    while True:
        try:
            summary = worker(partition)
            break
        except Death:
            deaths += 1
    assert deaths == 2 * MOST_DEATHS
    assert summary.faults["S1_20250703_071501.wav"] == DIED
    windows = pd.read_parquet(Path(task.out) / "windows")
    assert windows.groupby("recording")["scored"].all().to_dict() == {
        name: name not in ("bad.wav", "S1_20250703_071501.wav") for name in windows["recording"]
    }


def test_other_models_on_a_machine_are_refused(task: Task) -> None:
    with pytest.raises(UserError, match="holds other models"):
        Worker(replace(task, key="another key"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--workers", "1", "--clips", "3"], "--clips goes with one process, not with --workers"),
        (["--partition", "3"], "--partition goes with --ray or --workers"),
    ],
)
def test_options_that_contradict_each_other_are_a_mistake(
    archive: Path, tmp_path: Path, more: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        detect(archive, tmp_path / "out", tmp_path, *more)


def test_an_object_store_needs_workers(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="s3://bucket: object stores are read with --workers or --ray"):
        submission_detect.main(["s3://bucket", "--out", str(tmp_path / "out")])


def test_a_cluster_without_ray_is_a_mistake_and_local_goes_on_in_processes(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "installed", lambda: False)
    with pytest.raises(UserError, match="Ray is missing; pip install -r requirements-scale"):
        detect(archive, tmp_path / "out", tmp_path, "--ray", "10.0.0.1:6379")
    assert session.with_ray("local") is None


@pytest.mark.slow  # starts processes, each of which imports an engine
def test_processes_go_on_where_one_was_killed(archive: Path, model_dir: Path, tmp_path: Path) -> None:
    for index in range(40):
        write_sound(archive / f"more{index:02d}.wav", 20.0, rate=16000)
    given = arguments(archive, tmp_path / "whole", model_dir, "--workers", "2", "--partition", "2")
    assert submission_detect.main(given) == 3
    given[given.index("--out") + 1] = str(tmp_path / "out")
    done = killed_in_the_middle(given, tmp_path / "out", "spawn_main")
    assert done.returncode == 3, done.stderr
    assert "a worker died" in done.stderr
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.slow  # starts a cluster
def test_a_cluster_writes_the_same_tables_though_an_actor_was_killed(
    archive: Path, model_dir: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason=WITHOUT_RAY)
    for index in range(40):
        write_sound(archive / f"more{index:02d}.wav", 20.0, rate=16000)
    given = arguments(archive, tmp_path / "whole", model_dir, "--workers", "2", "--partition", "2")
    assert submission_detect.main(given) == 3
    given[given.index("--out") + 1] = str(tmp_path / "out")
    done = killed_in_the_middle([*given, "--ray", "local"], tmp_path / "out", "ray::MapWorker")
    assert done.returncode == 3, done.stderr
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def killed_in_the_middle(given: list[str], out: Path, name: str) -> subprocess.CompletedProcess[str]:
    """Run the command, and kill one of its workers once two partitions are there."""
    command = [sys.executable, str(ROOT / "submission" / "detect.py"), *given]
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while running.poll() is None and len(list(out.glob("recordings/*"))) < 2:
        time.sleep(0.05)
    for pid in below(running.pid):
        if name in Path(f"/proc/{pid}/cmdline").read_text():
            os.kill(pid, signal.SIGKILL)
            break
    else:
        pytest.fail(f"no worker {name} was there to kill")
    said, errors = running.communicate(timeout=600)
    return subprocess.CompletedProcess(command, running.returncode, said, errors)


def below(pid: int) -> list[int]:
    """The processes that a process started, and those that they did."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    children = [int(child) for child in path.read_text().split()] if path.exists() else []
    return [*children, *(other for child in children for other in below(child))]


@pytest.mark.slow  # opens an engine
def test_a_model_folder_tells_without_an_engine_what_an_engine_does(model_dir: Path) -> None:
    folder = ModelFolder(model_dir, threads=1)
    assert folder.told() == folder.describe(folder.open(None))
    assert ModelFolder(model_dir, layout="auto").told() is None
