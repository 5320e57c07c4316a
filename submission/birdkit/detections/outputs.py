"""All tables of a batch, written from its journal in one walk over the recordings."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import soundfile

from birdkit.detections.audacity import write_labels
from birdkit.detections.clips import Clips, cut
from birdkit.detections.events import Detection, detections
from birdkit.detections.raven import SelectionTable
from birdkit.detections.rows import DETECTION_COLUMNS, RECORDING_COLUMNS, detection_row, recording_row
from birdkit.detections.species import Species
from birdkit.detections.texts import place, text_file
from birdkit.detections.windows import windows_table
from birdkit.errors import first_line, one_line
from birdkit.files import remove_partial, write_whole
from birdkit.recordings.folders import Recording
from birdkit.recordings.journal import Journal, Model, Scored

RECORDINGS, DETECTIONS = "recordings.csv", "detections.csv"
RAVEN, RAVEN_SOUNDS = "raven.selections.txt", "raven.sounds.txt"
RAVEN_FOLDER, AUDACITY_FOLDER, CLIPS_FOLDER = "raven", "audacity", "clips"


@dataclass(frozen=True)
class Choices:
    """What of the scores goes into the tables.

    `thresholds` has one for each class, `floor` is that of the table of windows, `clips` the most clips
    of a class.
    """

    species: Sequence[Species]
    wanted: Sequence[int]
    thresholds: Sequence[float]
    floor: float
    join: bool
    clips: int

    def of(self, scored: Scored) -> Scored:
        """The scores above the floor of the classes that are wanted."""
        return scored.above(self.floor).of_classes(self.wanted)


@dataclass
class Counts:
    """How much the tables hold, and which clips could not be cut."""

    recordings: int = 0
    duration_s: float = 0.0
    windows: int = 0
    detections: int = 0
    species: set[int] = field(default_factory=set)
    clips: int = 0
    clip_faults: list[str] = field(default_factory=list)


class Outputs:
    """Writes the tables of a batch into its folder, and removes those that it wrote for nothing now."""

    def __init__(self, folder: Path, journal: Journal, model: Model, choices: Choices) -> None:
        self._folder, self._journal, self._model = folder, journal, model
        self._choices, self._species = choices, choices.species
        self._highest_hz = model.rate / 2
        self._written: set[Path] = set()
        self.counts = Counts()

    def write(self, recordings: Sequence[Recording], faults: Mapping[str, str]) -> Counts:
        """Write all tables. Raises `OSError` where the disk is full; older tables are whole then."""
        remove_partial(self._folder)
        clips = Clips(self._choices.clips)
        self._write_tables(recordings, faults, clips)
        self._write_clips(clips)
        self._remove_stale()
        return self.counts

    def _write_tables(
        self, recordings: Sequence[Recording], faults: Mapping[str, str], clips: Clips
    ) -> None:
        with ExitStack() as stack:
            windows = stack.enter_context(windows_table(self._folder, self._model, self._species))
            of_all = _rows(stack.enter_context(text_file(self._folder / RECORDINGS)))
            events = _rows(stack.enter_context(text_file(self._folder / DETECTIONS)))
            raven_text = stack.enter_context(text_file(self._folder / RAVEN))
            sounds = stack.enter_context(text_file(self._folder / RAVEN_SOUNDS))
            raven = SelectionTable(raven_text, self._species, self._highest_hz)
            of_all.writerow(RECORDING_COLUMNS)
            events.writerow(DETECTION_COLUMNS)
            for name, fault in sorted(faults.items()):
                of_all.writerow((name, *[""] * (len(RECORDING_COLUMNS) - 2), fault))
            for recording, scored in self._scored(recordings, faults):
                found = self._found(scored)
                windows.add(recording.name, scored)
                events.writerows(self._row(recording, scored, one) for one in found)
                of_all.writerow(self._recording_row(recording, scored, len(found)))
                raven.add(recording.path, scored.sound, found)
                sounds.write(f"{one_line(str(recording.path))}\n")
                self._write_of_recording(recording, scored, found)
                clips.add(recording, found)

    def _scored(
        self, recordings: Sequence[Recording], faults: Mapping[str, str]
    ) -> Iterator[tuple[Recording, Scored]]:
        """The recordings that were scored, with what goes into the tables."""
        for recording in recordings:
            scored = None if recording.name in faults else self._journal.read(recording)
            if scored is not None:
                self.counts.recordings += 1
                self.counts.duration_s += scored.sound.duration_s
                yield recording, self._choices.of(scored)

    def _found(self, scored: Scored) -> list[Detection]:
        choices, counts = self._choices, self.counts
        found = detections(scored, choices.thresholds, self._model.window_s, join=choices.join)
        counts.windows += len(scored.scores)
        counts.detections += len(found)
        counts.species |= {one.label for one in found}
        return found

    def _row(self, recording: Recording, scored: Scored, one: Detection) -> Sequence[object]:
        row = detection_row(recording.name, scored, one, self._species, self._model)
        return [f"{one.score:.6f}" if value is one.score else value for value in row]

    @staticmethod
    def _recording_row(recording: Recording, scored: Scored, n_detections: int) -> Sequence[object]:
        name, _, *others = recording_row(recording.name, scored.sound, len(scored.scores), n_detections)
        return name, f"{scored.sound.duration_s:.3f}", *others

    def _write_of_recording(
        self, recording: Recording, scored: Scored, found: Sequence[Detection]
    ) -> None:
        """Raven's and Audacity's files of a recording; none where nothing was detected in it."""
        if not found:
            return
        raven = place(self._folder / RAVEN_FOLDER, recording.name, ".selections.txt")
        labels = place(self._folder / AUDACITY_FOLDER, recording.name, ".txt")
        self._note(raven, labels)
        with text_file(raven) as text:
            table = SelectionTable(text, self._species, self._highest_hz)
            table.add(recording.path, scored.sound, found)
        with text_file(labels) as text:
            write_labels(text, found, self._species)

    def _write_clips(self, clips: Clips) -> None:
        for below, recording, one in clips.places(self._species):
            path = self._folder / CLIPS_FOLDER / below
            try:
                sound = cut(recording.path, one)
            except (soundfile.LibsndfileError, OSError) as error:
                self.counts.clip_faults.append(f"{recording.name}: {first_line(error)}")
                continue
            self._note(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, sound)
            self.counts.clips += 1

    def _note(self, *paths: Path) -> None:
        """Remember files before they are written."""
        self._written.update(paths)
        self._journal.add_outputs([self._below(path) for path in paths])

    def _below(self, path: Path) -> bytes:
        return os.fsencode(path.relative_to(self._folder))

    def _remove_stale(self) -> None:
        """Remove files that an earlier run wrote and this one did not."""
        stale = self._journal.outputs() - {self._below(path) for path in self._written}
        for name in stale:
            path = self._folder / os.fsdecode(name)
            with suppress(OSError):
                path.unlink()
                path.parent.rmdir()  # where nothing else is left in it
        self._journal.drop_outputs(sorted(stale))


def _rows(text: TextIO) -> Any:
    """A writer of rows, with the line ends of the other tables."""
    return csv.writer(text, lineterminator="\n")
