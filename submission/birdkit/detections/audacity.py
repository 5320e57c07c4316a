"""Audacity's labels: start, end and text of each detection of a recording."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from birdkit.detections.events import Detection
from birdkit.detections.species import Species
from birdkit.errors import one_line


def write_labels(text: TextIO, detections: Sequence[Detection], species: Sequence[Species]) -> None:
    """Write a file of labels. It has three columns and no header, so the score is in the text."""
    for one in detections:
        label = f"{species[one.label].shown} {one.score:.2f}"
        text.write(f"{one.start_s:.6f}\t{one.end_s:.6f}\t{one_line(label)}\n")
