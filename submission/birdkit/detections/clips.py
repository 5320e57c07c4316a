"""Clips of detections, the highest scores of each class, cut out as they were recorded."""

from __future__ import annotations

import heapq
import io
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import soundfile

from birdkit import audio
from birdkit.detections.events import Detection
from birdkit.detections.species import Species
from birdkit.detections.texts import place
from birdkit.recordings.folders import Recording

# Score, the order it came in so that the earlier one is kept of two, and what it is of.
Candidate = tuple[float, int, Recording, Detection]


class Clips:
    """Chooses the detections to cut out, while they come by.

    Parameters
    ----------
    most : clips of a class
    """

    def __init__(self, most: int) -> None:
        self._most, self._count = most, 0
        self._chosen: defaultdict[int, list[Candidate]] = defaultdict(list)

    def add(self, recording: Recording, detections: Sequence[Detection]) -> None:
        """Consider a recording's detections."""
        for one in detections if self._most else ():
            self._count -= 1
            heap = self._chosen[one.label]
            candidate = (one.score, self._count, recording, one)
            (heapq.heappush if len(heap) < self._most else heapq.heappushpop)(heap, candidate)

    def places(self, species: Sequence[Species]) -> Iterator[tuple[Path, Recording, Detection]]:
        """Where each clip goes, below the folder of clips, by recording."""
        chosen = [candidate for heap in self._chosen.values() for candidate in heap]
        for score, _, recording, one in sorted(chosen, key=lambda chosen: -chosen[1]):
            folder = Path(re.sub(r"[^\w .+=-]", "_", species[one.label].label)[:80])
            flat = re.sub(r"[\\/]", "__", recording.name)
            yield place(folder, f"{score:.3f}_{flat}", f"_{one.start_s:g}s.wav"), recording, one


def cut(path: Path, one: Detection) -> bytes:
    """A clip as a WAV file, at the recording's own rate, channels and bits.

    Raises what reading raises.
    """
    with audio.opened(path) as source:
        rate, subtype = source.samplerate, source.subtype
        source.seek(round(one.start_s * rate))
        samples = source.read(round((one.end_s - one.start_s) * rate), dtype="float64", always_2d=True)
    linear = subtype.startswith("PCM_") or subtype in ("FLOAT", "DOUBLE")
    kept = subtype if linear and soundfile.check_format("WAV", subtype) else "PCM_16"
    clip = io.BytesIO()
    soundfile.write(clip, samples, rate, subtype=kept, format="WAV")
    return clip.getvalue()
