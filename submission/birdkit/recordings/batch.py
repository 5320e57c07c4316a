"""Scores recordings one after another into the journal; a bad one ends nothing."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from birdkit import audio
from birdkit.errors import one_line
from birdkit.grid import windows_in
from birdkit.log import LOG
from birdkit.recordings.folders import Recording
from birdkit.recordings.journal import Scored, Sound
from birdkit.recordings.progress import Progress
from birdkit.recordings.times import start_of
from birdkit.scoring.averaging import average, constant_where_unknown
from birdkit.scoring.engine_failover import Failover
from birdkit.scoring.parts import Part, SoundFile, Span, spans
from birdkit.scoring.predict import finite
from birdkit.scoring.streams import in_order

PartScores = tuple[Span, NDArray[np.float32]]  # (windows, classes) of the windows that hold sound


class Keeps(Protocol):
    """What keeps the scores of a batch, as the journal does; each method as the journal's."""

    def parts(self, recording: Recording, n_classes: int) -> list[NDArray[np.float32]]: ...

    def add_part(self, recording: Recording, number: int, scores: NDArray[np.float32]) -> None: ...

    def add(self, recording: Recording, floor: float, scored: Scored) -> None: ...

    def commit(self) -> None: ...


@dataclass
class _Begun:
    """A recording whose turn has come, with its parts as far as they are scored."""

    recording: Recording
    file: SoundFile
    sound: Sound
    parts: list[NDArray[np.float32]]
    n_parts: int

    @property
    def bytes_a_window(self) -> float:
        return self.recording.size / self.file.n_windows


class Batch:
    """Recordings to score, the models that do, and the journal that keeps what they say.

    Members are combined by the mean of their probabilities, whatever the submission does: a rank is a
    place among the windows of one submission, and no threshold holds for it from batch to batch.

    Parameters
    ----------
    floor : scores below it are not kept
    """

    def __init__(self, models: Failover, journal: Keeps, floor: float, progress: Progress) -> None:
        self._models, self._journal, self._floor = models, journal, floor
        self._progress = progress
        self._contract = models.contract
        self.faults: dict[str, str] = {}  # name of a bad recording → why

    def run(self, recordings: Iterable[Recording], streams: int) -> None:
        """Score recordings in order, and keep the scores of each as soon as it is done.

        A recording is asked for when its turn comes, while those before it are scored.
        """
        begun: dict[int, _Begun] = {}
        files = self._files(recordings, begun)
        with closing(in_order(files, self._contract, _next_part, self._score, streams)) as every_part:
            for index, of_file in groupby(every_part, key=itemgetter(0)):
                fault: Exception | None = None
                for _, part in of_file:
                    try:
                        scored = part.result()
                    except Exception as error:  # the per-file guard: any fault costs this file only
                        fault = fault or error
                    if fault is None:
                        self._take(begun[index], *scored)
                self._finish(begun.pop(index), fault)
        self._journal.commit()

    def _files(self, recordings: Iterable[Recording], begun: dict[int, _Begun]) -> Iterator[SoundFile]:
        """The recordings that can be opened, each when its turn comes; `begun` is filled beside."""
        n_classes, count = len(self._contract.classes), itertools.count()
        for recording in recordings:
            try:
                sound = look_at(recording)
            except Exception as error:  # the per-file guard: whatever a header does to its reader
                self._bad(recording, error, recording.size)
                continue
            n_windows = windows_in(sound.duration_s, self._contract.window_s)
            file = SoundFile(recording.path, n_windows)
            n_parts = len(spans(file, self._contract))
            done = self._journal.parts(recording, n_classes)[: n_parts - 1]
            self._progress.skip(recording.size * sum(map(len, done)) / n_windows)
            file = replace(file, parts_done=len(done))
            begun[next(count)] = _Begun(recording, file, sound, done, n_parts)
            yield file

    def _score(self, coming: Future[Part]) -> PartScores:
        part = coming.result()
        n_windows = self._n_with_sound(part)
        if n_windows == 0:
            return part.span, np.zeros((0, len(self._contract.classes)), np.float32)
        members = finite(self._models.score(part.samples, part.span.heard)[..., part.span.kept, :])
        weights = list(self._models.spec.members.values())
        mean = constant_where_unknown(average(members, weights, "probability"))
        return part.span, mean[:n_windows]

    def _n_with_sound(self, part: Part) -> int:
        """How many windows of a part hold sound: a header may promise more than there is."""
        heard = windows_in(part.samples.size / self._contract.sample_rate, self._contract.window_s)
        reached = min(part.span.count, heard - part.span.before)
        return max(reached, 1 if part.span.first == 0 else 0)

    def _take(self, of: _Begun, span: Span, scores: NDArray[np.float32]) -> None:
        of.parts.append(scores)
        if len(of.parts) < of.n_parts:
            self._journal.add_part(of.recording, len(of.parts) - 1, scores)
        self._progress.part(of.bytes_a_window * span.count, len(scores) * self._contract.window_s)

    def _finish(self, of: _Begun, fault: Exception | None) -> None:
        if fault is not None:
            left = of.file.n_windows - sum(map(len, of.parts))
            self._bad(of.recording, fault, of.bytes_a_window * left)
            return
        scores = self._models.spec.smooth(np.concatenate(of.parts))
        end_s = len(scores) * self._contract.window_s
        whole = len(scores) >= of.file.n_windows
        sound = of.sound if whole else replace(of.sound, duration_s=min(of.sound.duration_s, end_s))
        self._journal.add(of.recording, self._floor, Scored.of(sound, scores, self._floor))
        self._progress.recording()

    def _bad(self, recording: Recording, error: Exception, bytes_left: float) -> None:
        why = str(error).removeprefix(f"{recording.path}: ") or type(error).__name__
        why = one_line(why)
        self.faults[recording.name] = why
        LOG.warning(f"bad recording: {recording.name}: {why}")
        self._progress.skip(bytes_left)
        self._progress.recording(bad=True)


def _next_part(parts: Iterator[Part]) -> Part:
    return next(parts)


def look_at(recording: Recording) -> Sound:
    """What a recording's header says. Raises what opening raises."""
    duration_s = audio.length_s(recording.path)
    if duration_s == 0:
        raise audio.AudioError(f"{recording.path}: holds no samples; replace or remove it")
    with audio.opened(recording.path) as file:
        rate, channels = file.samplerate, file.channels
    start = start_of(recording.path)
    return Sound(duration_s, rate, channels, start.isoformat() if start else "")
