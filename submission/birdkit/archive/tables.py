"""The tables of a partition: one row a window, one a detection, one a recording, each as parquet."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow
import pyarrow.parquet

from birdkit.archive.partitions import Partition
from birdkit.archive.places import Place
from birdkit.detections.events import detections, moment
from birdkit.detections.outputs import Choices
from birdkit.detections.rows import DETECTION_COLUMNS, RECORDING_COLUMNS, detection_row, recording_row
from birdkit.grid import windows_in
from birdkit.recordings.folders import Recording
from birdkit.recordings.journal import Model, Scored, Sound

WINDOWS, DETECTIONS, RECORDINGS = "windows", "detections", "recordings"
# Written in this order: a partition is done where its recordings are written.
FOLDERS = (WINDOWS, DETECTIONS, RECORDINGS)
WINDOW_KINDS = {
    "recording": "string", "window": "int32", "start_s": "float64", "end_s": "float64",
    "time": "string", "scored": "bool",
}  # fmt: skip
DETECTION_NUMBERS = {"start_s": "float64", "end_s": "float64", "score": "float32", "windows": "int32"}
RECORDING_NUMBERS = {
    "duration_s": "float64", "sample_rate": "int32", "channels": "int32", "windows": "int64",
    "detections": "int64",
}  # fmt: skip


@dataclass(frozen=True)
class Summary:
    """What a worker says of a partition: little, however much there was to hear."""

    key: str
    recordings: int = 0
    duration_s: float = 0.0
    windows: int = 0
    detections: int = 0
    faults: dict[str, str] = field(default_factory=dict)  # name of a bad recording → why


def path_of(folder: str, key: str) -> str:
    """Where a partition's table lies below the place of all."""
    return f"{folder}/part-{key}.parquet"


def key_of(name: str) -> str | None:
    """The key of the partition whose table has this name; None where it is no table."""
    key = name.removeprefix("part-").removesuffix(".parquet")
    return key if name == f"part-{key}.parquet" else None


@dataclass(frozen=True)
class Unscored:
    """A bad recording: as many windows as its header says, or one, and why they have no scores."""

    sound: Sound | None
    why: str


class Tables:
    """Collects the rows of a partition, and writes its tables."""

    def __init__(self, model: Model, choices: Choices) -> None:
        self._model, self._choices = model, choices
        # Folder → recording → rows: recordings are done in any order, and written in their own.
        self._rows: dict[str, defaultdict[str, list[Sequence[object]]]] = {
            folder: defaultdict(list) for folder in FOLDERS
        }

    def add(self, recording: Recording, scored: Scored) -> None:
        """The rows of a recording that was scored."""
        choices, model = self._choices, self._model
        scored = choices.of(scored)
        found = detections(scored, choices.thresholds, model.window_s, join=choices.join)
        name, n_windows = recording.name, windows_in(scored.sound.duration_s, model.window_s)
        self._rows[DETECTIONS][name] += [
            detection_row(name, scored, one, choices.species, model) for one in found
        ]
        self._rows[RECORDINGS][name].append(recording_row(name, scored.sound, n_windows, len(found)))
        edges = np.searchsorted(scored.windows, np.arange(n_windows + 1)).tolist()
        labels = [choices.species[index].label for index in scored.classes.tolist()]
        scores = scored.scores.tolist()
        for window in range(n_windows):
            cells = slice(edges[window], edges[window + 1])
            self._window(name, scored.sound, window, (True, labels[cells], scores[cells]))

    def add_unscored(self, name: str, bad: Unscored) -> None:
        """The rows of a bad recording, which has windows all the same."""
        sound = bad.sound or Sound(0.0, 0, 0, "")
        n_windows = windows_in(sound.duration_s, self._model.window_s)
        self._rows[RECORDINGS][name].append(recording_row(name, sound, n_windows, 0, bad.why))
        for window in range(n_windows):
            self._window(name, sound, window, (False, [], []))

    def write(self, partition: Partition, place: Place) -> Summary:
        """Write the tables; a partition that is written again replaces its own tables and no others."""
        names = list(dict.fromkeys(item.name for item in partition.items))
        tables = {folder: self._table(folder, names) for folder in FOLDERS}
        for folder, table in tables.items():
            content = io.BytesIO()
            pyarrow.parquet.write_table(table, content, compression="zstd")
            place.write(path_of(folder, partition.key), content.getvalue())
        return summary_of(partition.key, tables[RECORDINGS])

    def _window(
        self, name: str, sound: Sound, window: int, cells: tuple[bool, list[str], list[float]]
    ) -> None:
        start_s = window * self._model.window_s
        end_s = start_s + self._model.window_s
        if cells[0]:
            end_s = min(end_s, sound.duration_s)
        row = (name, window, start_s, end_s, moment(sound.start, start_s), *cells)
        self._rows[WINDOWS][name].append(row)

    def _table(self, folder: str, names: Sequence[str]) -> pyarrow.Table:
        schema = _schema(folder)
        rows = [row for name in names for row in self._rows[folder].get(name, ())]
        columns = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
        arrays = [
            pyarrow.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)
        ]
        return pyarrow.table(arrays, schema=schema)


def kept(place: Place, key: str) -> Summary | None:
    """What a partition's tables say where they are there; None where they are to be made."""
    content = place.read(path_of(RECORDINGS, key))
    if content is None:
        return None
    try:
        return summary_of(key, pyarrow.parquet.read_table(io.BytesIO(content)))
    except (pyarrow.ArrowInvalid, KeyError, OSError):  # damaged, so that it is made again
        return None


def summary_of(key: str, recordings: pyarrow.Table) -> Summary:
    """What a table of recordings says of its partition."""
    table = recordings.to_pandas()
    bad = table[table["fault"] != ""]
    return Summary(
        key,
        len(table),
        float(table["duration_s"].sum()),
        int(table["windows"].sum()),
        int(table["detections"].sum()),
        dict(zip(bad["recording"], bad["fault"], strict=True)),
    )


def _schema(folder: str) -> pyarrow.Schema:
    kinds = {
        WINDOWS: WINDOW_KINDS,
        DETECTIONS: dict.fromkeys(DETECTION_COLUMNS, "string") | DETECTION_NUMBERS,
        RECORDINGS: dict.fromkeys(RECORDING_COLUMNS, "string") | RECORDING_NUMBERS,
    }[folder]
    fields = [(name, pyarrow.type_for_alias(kind)) for name, kind in kinds.items()]
    if folder == WINDOWS:
        fields += [
            ("classes", pyarrow.list_(pyarrow.string())),
            ("scores", pyarrow.list_(pyarrow.float32())),
        ]
    return pyarrow.schema(fields)
