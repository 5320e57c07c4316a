"""The columns of the tables of recordings and of detections, and the values of a row."""

from __future__ import annotations

from collections.abc import Sequence

from birdkit.detections.events import Detection, moment
from birdkit.detections.species import Species
from birdkit.recordings.journal import Model, Scored, Sound

RECORDING_COLUMNS = (
    *("recording", "duration_s", "sample_rate", "channels", "start", "windows", "detections", "fault"),
)
DETECTION_COLUMNS = (
    *("recording", "start_s", "end_s", "time", "class", "scientific_name", "common_name", "score"),
    *("windows", "model"),
)


def detection_row(
    recording: str, scored: Scored, one: Detection, species: Sequence[Species], model: Model
) -> Sequence[object]:
    """The values of a detection, in the order of the columns."""
    name = species[one.label]
    names = (name.label, name.scientific, name.common)
    time = moment(scored.sound.start, one.start_s)
    where = (recording, one.start_s, one.end_s, time)
    return (*where, *names, one.score, one.n_windows, model.name)


def recording_row(
    recording: str, sound: Sound, n_windows: int, n_detections: int, fault: str = ""
) -> Sequence[object]:
    """The values of a recording, in the order of the columns."""
    told = (recording, sound.duration_s, sound.rate, sound.channels, sound.start)
    return (*told, n_windows, n_detections, fault)
