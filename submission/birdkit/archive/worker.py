"""A worker: it holds one engine, takes one partition after another, and answers with little."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from birdkit import audio, log
from birdkit.archive import tables
from birdkit.archive.partitions import Partition
from birdkit.archive.places import Item, Place, fetch, place
from birdkit.archive.tables import Summary, Tables, Unscored
from birdkit.detections.outputs import Choices
from birdkit.engines.layout import Layout
from birdkit.errors import UserError
from birdkit.recordings.batch import Batch, look_at
from birdkit.recordings.folders import Recording
from birdkit.recordings.journal import Model, Scored, Sound
from birdkit.recordings.models import ModelFolder
from birdkit.recordings.progress import Progress

ATTEMPTS = "attempts"
# A partition whose worker died so many times is scored a recording at a time, each noted before it is
# begun; a recording that was noted so many times is left out, since it ended its worker each time.
MOST_DEATHS = 2
DIED = "ended the process that scored it"


@dataclass(frozen=True)
class Task:
    """What all workers do: the models, what goes into the tables, and where they are written."""

    folder: ModelFolder
    key: str  # of the models
    model: Model
    choices: Choices
    out: str

    @property
    def cores(self) -> int:
        """Cores that a worker uses."""
        layout = Layout.parse(self.model.layout)
        return layout.streams * layout.threads


def opened(task: Task) -> Worker | Exception:
    """A worker, or why there is none: what starts workers would only say that one did not start."""
    try:
        return Worker(task)
    except Exception as error:  # to be raised by the first partition
        return error


class Worker:
    """Scores partitions. Raises `UserError` where its model folder differs from the one asked for."""

    def __init__(self, task: Task) -> None:
        if task.folder.key != task.key:
            raise UserError(
                f"{task.folder.folder}: holds other models than where the command was given; "
                "copy the same model folder to every machine"
            )
        log.show("error")  # what is bad is said by the one who gives the partitions
        self._task, self._place = task, place(task.out)
        self._opened = task.folder.open(task.model.layout)

    def __call__(self, partition: Partition) -> Summary:
        """Score a partition and write its tables; nothing is scored where they are there."""
        if (before := tables.kept(self._place, partition.key)) is not None:
            return before
        attempt = Attempt.begin(self._place, partition.key)
        with tempfile.TemporaryDirectory(prefix="birdkit-") as scratch:
            collected = Collected(Tables(self._task.model, self._task.choices), Path(scratch))
            for items in attempt.lots(partition.items):
                self._score(items, attempt, collected)
        summary = collected.tables.write(partition, self._place)
        attempt.end()
        return summary

    def _score(self, items: Sequence[Item], attempt: Attempt, collected: Collected) -> None:
        """Score some recordings one after another; each is copied while those before it are scored."""
        if attempt.ended_its_worker(items):
            collected.bad(items[0], None, DIED)
            return
        copies: dict[str, Path] = {}

        def recordings() -> Iterator[Recording]:
            for item in items:
                try:
                    copies[item.name] = fetch(item, collected.scratch)
                except OSError as error:
                    collected.bad(item, None, str(error))
                else:
                    yield Recording(copies[item.name], item.name, item.size, 0)

        models, floor = self._opened.models, self._task.choices.floor
        batch = Batch(models, collected, floor, Progress(len(items), 0))
        batch.run(recordings(), self._opened.layout.streams)
        for item in items:
            if item.name in batch.faults:
                collected.bad(item, _sound(copies[item.name], item), batch.faults[item.name])


def _sound(path: Path, item: Item) -> Sound | None:
    """What the header of a bad recording says; None where it can't be read."""
    with suppress(audio.AudioError, OSError):
        return look_at(Recording(path, item.name, item.size, 0))
    return None


@dataclass
class Collected:
    """Keeps the scores of a batch as rows of its tables, in place of a journal."""

    tables: Tables
    scratch: Path  # of the copies of recordings that lie elsewhere

    def parts(self, recording: Recording, n_classes: int) -> list[NDArray[np.float32]]:
        return []

    def add_part(self, recording: Recording, number: int, scores: NDArray[np.float32]) -> None:
        """Parts of a recording are not kept: a partition is scored whole, or anew."""

    def add(self, recording: Recording, floor: float, scored: Scored) -> None:
        self.tables.add(recording, scored)
        if self.scratch in recording.path.parents:
            recording.path.unlink()  # room for the next ones

    def commit(self) -> None:
        """All is written at once, when the partition is done."""

    def bad(self, item: Item, sound: Sound | None, why: str) -> None:
        self.tables.add_unscored(item.name, Unscored(sound, why))


@dataclass
class Attempt:
    """How often a partition was begun, kept beside the tables, since a death leaves no other trace."""

    place: Place
    path: str
    number: int
    noted: list[str]  # recordings, each time they were begun on their own

    @classmethod
    def begin(cls, place: Place, key: str) -> Attempt:
        path = f"{ATTEMPTS}/{key}.json"
        content = place.read(path)
        number, noted = json.loads(content) if content else (0, [])
        attempt = cls(place, path, number + 1, noted)
        attempt._write()
        return attempt

    def lots(self, items: Sequence[Item]) -> Iterator[Sequence[Item]]:
        """The recordings in lots: all at once, or one at a time where workers have died of them."""
        if self.number <= MOST_DEATHS:
            yield items
            return
        for item in items:
            self.noted.append(item.name)
            self._write()
            yield [item]
            self.noted = [name for name in self.noted if name != item.name]

    def ended_its_worker(self, items: Sequence[Item]) -> bool:
        """Whether a lot is one recording whose workers died each time."""
        return len(items) == 1 and self.noted.count(items[0].name) > MOST_DEATHS

    def end(self) -> None:
        self.place.remove(self.path)

    def _write(self) -> None:
        self.place.write(self.path, json.dumps([self.number, self.noted]).encode())
