"""Raven's selection tables: one of a recording, or one over all recordings laid end to end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from birdkit.detections.events import Detection
from birdkit.detections.species import Species
from birdkit.errors import one_line
from birdkit.recordings.journal import Sound

COLUMNS = (
    *("Selection", "View", "Channel", "Begin Time (s)", "End Time (s)"),
    *("Low Freq (Hz)", "High Freq (Hz)", "Begin Path", "File Offset (s)"),
    *("Species Code", "Scientific Name", "Common Name", "Confidence"),
)


@dataclass
class SelectionTable:
    """A selection table that is being written.

    Begin and end times run on over the durations of the recordings before, as Raven counts them where
    several files are opened as one sound; the file offset is within the recording. Channels are mixed
    before they are scored, so the channel is always 1.
    """

    text: TextIO
    species: Sequence[Species]
    highest_hz: float  # that the models hear
    _selection: int = 0
    _before_s: float = 0.0

    def __post_init__(self) -> None:
        self._row(COLUMNS)

    def add(self, path: Path, sound: Sound, detections: Sequence[Detection]) -> None:
        """Write a recording's detections; one without any still counts by its duration."""
        highest_hz = min(sound.rate / 2, self.highest_hz)
        for one in detections:
            self._selection += 1
            name = self.species[one.label]
            begin_s, end_s = self._before_s + one.start_s, self._before_s + one.end_s
            cells = (
                *(str(self._selection), "Spectrogram 1", "1", f"{begin_s:.6f}", f"{end_s:.6f}"),
                *("0.0", f"{highest_hz:.1f}", str(path), f"{one.start_s:.6f}"),
                *(name.label, name.scientific, name.shown, f"{one.score:.6f}"),
            )
            self._row([one_line(cell) for cell in cells])
        self._before_s += sound.duration_s

    def _row(self, cells: Sequence[str]) -> None:
        self.text.write("\t".join(cells) + "\n")
