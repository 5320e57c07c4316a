"""The journal of a batch: what was scored, in one SQLite file that a kill at any moment leaves whole.

A recording's scores are kept above a floor only. A long recording's parts are kept until it is done,
so that hours of it are not scored again. Everything is keyed by what changes detections: the models
and how they run, and a recording's path, size and modification time.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from birdkit.errors import UserError
from birdkit.recordings.folders import Recording

NAME = "journal.sqlite"
VERSION = 1  # to be raised when the kit comes to score otherwise
COMMIT_EVERY_S = 1.0  # so much work is lost by a kill, at most
SCHEMA = """
CREATE TABLE IF NOT EXISTS models (
    key TEXT PRIMARY KEY, name TEXT, classes TEXT, window_s REAL, rate INTEGER, layout TEXT);
CREATE TABLE IF NOT EXISTS recordings (
    key TEXT, path BLOB, size INTEGER, mtime_ns INTEGER, floor REAL, duration_s REAL, rate INTEGER,
    channels INTEGER, start TEXT, windows BLOB, classes BLOB, scores BLOB, PRIMARY KEY (key, path));
CREATE TABLE IF NOT EXISTS parts (
    key TEXT, path BLOB, size INTEGER, mtime_ns INTEGER, number INTEGER, scores BLOB,
    PRIMARY KEY (key, path, number));
CREATE TABLE IF NOT EXISTS outputs (path BLOB PRIMARY KEY);
"""


@dataclass(frozen=True)
class Model:
    """What the tables need to know of the models that scored."""

    name: str  # the folder's, with the first digits of the key
    classes: tuple[str, ...]
    window_s: float
    rate: int  # Hz, that the models hear
    layout: str  # in which they scored first; another one differs in the last digits


@dataclass(frozen=True)
class Sound:
    """What a recording's header says, cut to where its sound ended sooner."""

    duration_s: float
    rate: int  # Hz
    channels: int
    start: str  # ISO 8601, or empty where nothing tells


@dataclass(frozen=True)
class Scored:
    """A recording's scores above a floor, ordered by window and class."""

    sound: Sound
    windows: NDArray[np.uint32]  # (scores,)
    classes: NDArray[np.uint16]  # (scores,), index of the class
    scores: NDArray[np.float32]  # (scores,)

    @classmethod
    def of(cls, sound: Sound, scores: NDArray[np.float32], floor: float) -> Scored:
        """Those of (windows, classes) that reach the floor."""
        windows, classes = np.nonzero(scores >= floor)
        kept = scores[windows, classes]
        return cls(sound, windows.astype(np.uint32), classes.astype(np.uint16), kept)

    def above(self, floor: float) -> Scored:
        """What of it reaches another floor."""
        return self._only(self.scores >= floor)

    def of_classes(self, classes: Sequence[int]) -> Scored:
        """What of it is said of these classes."""
        return self._only(np.isin(self.classes, classes))

    def _only(self, kept: NDArray[np.bool_]) -> Scored:
        return Scored(self.sound, self.windows[kept], self.classes[kept], self.scores[kept])


class Journal:
    """The journal of one folder.

    Every method raises `UserError` where the disk is full or the journal is broken.

    Parameters
    ----------
    key : of the models and how they run; entries of other keys are kept and not seen
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.path, self.key = folder / NAME, f"{VERSION}-{key}"
        self._committed = time.monotonic()
        with self._mended():
            self._db = sqlite3.connect(os.fspath(self.path), isolation_level="DEFERRED")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.executescript(SCHEMA)

    @property
    def model(self) -> Model | None:
        """What scored under this key; None before anything did."""
        row = self._row("SELECT name, classes, window_s, rate, layout FROM models WHERE key = ?")
        if row is None:
            return None
        name, classes, window_s, rate, layout = row
        return Model(name, tuple(json.loads(classes)), window_s, rate, layout)

    @model.setter
    def model(self, model: Model) -> None:
        name, classes, *others = astuple(model)
        self._write(
            "INSERT OR REPLACE INTO models VALUES (?, ?, ?, ?, ?, ?)",
            name,
            json.dumps(classes),
            *others,
        )
        self.commit()

    def has(self, recording: Recording, floor: float) -> bool:
        """Whether a recording was scored as it is now, with this floor or a lower one."""
        where = "size = ? AND mtime_ns = ? AND floor <= ?"
        query = f"SELECT 1 FROM recordings WHERE key = ? AND path = ? AND {where}"
        path, *state = _identity(recording)
        return self._row(query, path, *state, floor) is not None

    def read(self, recording: Recording) -> Scored | None:
        """A recording's scores; None where it was not scored."""
        columns = ", ".join([*(f.name for f in fields(Sound)), "windows", "classes", "scores"])
        query = f"SELECT {columns} FROM recordings WHERE key = ? AND path = ?"
        row = self._row(query, _identity(recording)[0])
        if row is None:
            return None
        *sound, windows, classes, scores = row
        return Scored(
            Sound(*sound),
            np.frombuffer(windows, np.uint32),
            np.frombuffer(classes, np.uint16),
            np.frombuffer(scores, np.float32),
        )

    def add(self, recording: Recording, floor: float, scored: Scored) -> None:
        """Keep a recording's scores, and drop its parts."""
        arrays = (scored.windows.tobytes(), scored.classes.tobytes(), scored.scores.tobytes())
        values = (*_identity(recording), floor, *astuple(scored.sound), *arrays)
        marks = ", ".join("?" * (1 + len(values)))
        self._write(f"INSERT OR REPLACE INTO recordings VALUES ({marks})", *values)
        self._write("DELETE FROM parts WHERE key = ? AND path = ?", _identity(recording)[0])
        self._commit_now_and_then()

    def parts(self, recording: Recording, n_classes: int) -> list[NDArray[np.float32]]:
        """The first parts of a recording that were scored, (windows, classes) each, without a gap."""
        query = (
            "SELECT number, scores FROM parts WHERE key = ? AND path = ? AND size = ? AND mtime_ns = ? "
            "ORDER BY number"
        )
        with self._mended():
            rows = self._db.execute(query, (self.key, *_identity(recording))).fetchall()
        kept = (scores for index, (number, scores) in enumerate(rows) if number == index)
        return [np.frombuffer(scores, np.float32).reshape(-1, n_classes) for scores in kept]

    def add_part(self, recording: Recording, number: int, scores: NDArray[np.float32]) -> None:
        """Keep the (windows, classes) of a recording's part."""
        values = (*_identity(recording), number, np.ascontiguousarray(scores, np.float32).tobytes())
        self._write("INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?, ?, ?)", *values)
        self._commit_now_and_then()

    def outputs(self) -> set[bytes]:
        """The files that were written beside the journal, by their paths below its folder."""
        with self._mended():
            return {path for (path,) in self._db.execute("SELECT path FROM outputs")}

    def add_outputs(self, paths: Sequence[bytes]) -> None:
        """Remember files before they are written, so that those of no more use can be removed."""
        with self._mended():
            self._db.executemany(
                "INSERT OR IGNORE INTO outputs VALUES (?)", [(path,) for path in paths]
            )
        self._commit_now_and_then()

    def drop_outputs(self, paths: Sequence[bytes]) -> None:
        """Forget files that were removed."""
        with self._mended():
            self._db.executemany("DELETE FROM outputs WHERE path = ?", [(path,) for path in paths])
        self.commit()

    def commit(self) -> None:
        """From now on a kill loses nothing of what was added."""
        with self._mended():
            self._db.commit()
        self._committed = time.monotonic()

    def close(self) -> None:
        """Commit and close."""
        with self._mended():
            self._db.commit()
            self._db.close()

    def _commit_now_and_then(self) -> None:
        if time.monotonic() - self._committed > COMMIT_EVERY_S:
            self.commit()

    def _row(self, query: str, *values: object) -> tuple[Any, ...] | None:
        """The first row that a query finds for this key."""
        with self._mended():
            return self._db.execute(query, (self.key, *values)).fetchone()

    def _write(self, statement: str, *values: object) -> None:
        with self._mended():
            self._db.execute(statement, (self.key, *values))

    @contextmanager
    def _mended(self) -> Iterator[None]:
        """Errors of SQLite as ones that the user can mend."""
        try:
            yield
        except sqlite3.OperationalError as error:  # a full disk, a folder that can't be written
            raise UserError(
                f"{self.path}: {error}; make room there, or mend that, and run the same command again: "
                "what was done is kept"
            ) from error
        except sqlite3.DatabaseError as error:
            raise UserError(
                f"{self.path}: {error}; remove it, and everything is scored anew"
            ) from error


def _identity(recording: Recording) -> tuple[bytes, int, int]:
    """Path, size and modification time of a recording. A path may be no UTF-8."""
    return os.fsencode(recording.path), recording.size, recording.mtime_ns
