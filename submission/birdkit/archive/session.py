"""One call of `detect.py` on an archive: partitions, workers, and what is left of earlier calls."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from birdkit.archive import cluster, processes, tables
from birdkit.archive.partitions import Partition, partitions
from birdkit.archive.places import Folder, Place, find, is_address, place
from birdkit.archive.tables import FOLDERS, RECORDINGS, Summary
from birdkit.archive.worker import ATTEMPTS, Task
from birdkit.detections import session
from birdkit.durations import in_words
from birdkit.engines.layout import usable_cores
from birdkit.errors import UserError
from birdkit.files import locked
from birdkit.log import LOG
from birdkit.recordings import journal
from birdkit.recordings.models import ModelFolder
from birdkit.recordings.progress import Progress


@dataclass(frozen=True)
class Options:
    """The options that archives have beside those of every detection.

    `ray` is the address of a cluster, or None for processes of this machine; `workers` is 0 where it is
    left to the machine or cluster.
    """

    places: Sequence[str]
    out: str
    ray: str | None
    workers: int
    partition: int


@dataclass
class Totals:
    """How much all partitions hold."""

    recordings: int = 0
    duration_s: float = 0.0
    windows: int = 0
    detections: int = 0
    faults: dict[str, str] = field(default_factory=dict)

    def add(self, summary: Summary) -> None:
        self.recordings += summary.recordings
        self.duration_s += summary.duration_s
        self.windows += summary.windows
        self.detections += summary.detections
        self.faults |= summary.faults


def detect(options: Options, of_all: session.Options) -> int:
    """Score what is not scored yet, write all partitions, and return how many recordings are bad."""
    if of_all.clips:
        raise UserError(
            "--clips needs all detections in one place; leave --workers and --ray out for it"
        )
    ray = with_ray(options.ray)
    out = place(options.out)
    items, vanished = find(options.places, options.out)
    with _held(options.out):
        task = task_of(of_all, options.out)
        every = partitions(items, options.partition, _made_by(task))
        totals = Totals(faults=dict(vanished))
        _score(task, every, out, totals, (ray, options.workers))
        _remove_stale(out, {partition.key for partition in every})
    LOG.info(
        f"{options.out}: {totals.detections} detections, {totals.windows} windows, "
        f"{totals.recordings} recordings ({len(totals.faults)} bad), "
        f"{in_words(totals.duration_s)} of sound, in {len(every)} partitions"
    )
    return len(totals.faults)


def with_ray(address: str | None) -> str | None:
    """The cluster to ask; None where processes do."""
    if address is None or cluster.installed():
        return address
    if address != cluster.LOCAL:
        raise UserError(
            f"--ray {address}: Ray is missing; pip install -r requirements-scale.txt, or give --workers"
        )
    LOG.warning("warning: Ray is missing (requirements-scale.txt): processes here do its work")
    return None


@contextmanager
def _held(out: str) -> Iterator[None]:
    """Keep other calls from writing a folder. An object store has no locks."""
    if is_address(out):
        yield
        return
    folder = Path(out)
    session.make(folder)
    with locked(folder):
        Folder(folder).sweep()
        yield
        Folder(folder).sweep()  # of workers that were killed in this call


def task_of(of_all: session.Options, out: str) -> Task:
    threads = of_all.threads or 1
    folder = ModelFolder(
        of_all.model.resolve(), of_all.engine, of_all.precision, threads, of_all.layout
    )
    model = folder.told() or folder.describe(folder.open(None))
    where = out if is_address(out) else str(Path(out).resolve())
    return Task(folder, folder.key, model, session.choices_of(of_all, model), where)


def _made_by(task: Task) -> str:
    """What the tables depend on beside the recordings."""
    choices = asdict(task.choices)
    text = json.dumps([journal.VERSION, task.key, task.model.layout, choices])
    return hashlib.sha256(text.encode()).hexdigest()


def _score(
    task: Task, every: Sequence[Partition], out: Place, totals: Totals, by: tuple[str | None, int]
) -> None:
    """Have every partition scored, or read where it is done."""
    address, n_workers = by
    there = {tables.key_of(name) for name in out.names(RECORDINGS)}
    todo = [partition for partition in every if partition.key not in there]
    kept = f"; {len(every) - len(todo)} are scored already" if len(todo) < len(every) else ""
    n_recordings = sum(len(partition.items) for partition in every)
    LOG.info(f"{n_recordings} recordings in {len(every)} partitions{kept}")
    for partition in every:
        if partition.key in there:
            summary = tables.kept(out, partition.key)
            if summary is None:
                todo.append(partition)
            else:
                totals.add(summary)
    sizes = {partition.key: partition.size for partition in todo}
    progress = Progress(sum(len(partition.items) for partition in todo), sum(sizes.values()))
    if not todo:
        return
    if address is None:
        n_workers = n_workers or max(1, usable_cores() // task.cores)
        summaries = processes.run(task, todo, n_workers)
    else:
        summaries = cluster.run(task, todo, n_workers, address)
    for summary in summaries:
        totals.add(summary)
        for _ in range(summary.recordings - len(summary.faults)):
            progress.recording()
        for name, why in summary.faults.items():
            LOG.warning(f"bad recording: {name}: {why}")
            progress.recording(bad=True)
        progress.part(sizes[summary.key], summary.duration_s)


def _remove_stale(out: Place, keys: set[str]) -> None:
    """Remove attempts, and the tables of other recordings, models or choices.

    All partitions of this call are done: an attempt that is still there belongs to none of them, or its
    worker died after the last table.
    """
    for folder in FOLDERS:
        for name in out.names(folder):
            key = tables.key_of(name)
            if key is not None and key not in keys:
                out.remove(f"{folder}/{name}")
    for name in out.names(ATTEMPTS):
        out.remove(f"{ATTEMPTS}/{name}")
