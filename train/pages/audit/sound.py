"""What recordings hold, heard once: silence, clipping, speech, and fingerprints for duplicates."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from birdkit.audio import AudioError
from birdkit.errors import UserError
from train.config import provenance
from train.config.settings import Data, FrontEnd
from train.data import bad_files, duplicates, speech
from train.data.dataset import SPEECH_NAME
from train.data.progress import in_threads
from train.data.speech import Stretches
from train.data.waveforms import FULL_SCALE, Waveforms, to_float

# As training hears recordings by default: mono, at this rate, in these first seconds.
RATE_HZ, FIRST_S = FrontEnd.sample_rate, Data.first_s
FRAME_S = 0.05  # for silence
# Measured on birdclef-mini: frames below -80 dBFS are cut out or padded (4 of 75 recordings have more
# than 10 %; the others less than 1 %). Vorbis lets single peaks of unclipped sound reach full scale.
SILENT_DB, CLIPPED = -80.0, 0.999
MEMORY_BYTES = 1 << 28
SAVE_EVERY = 500  # recordings heard
STORE_NAME, VERSION = "audit.json", 1  # raise it when the same recording gives other figures


@dataclass(frozen=True)
class Heard:
    """What the first seconds of a recording hold; of one that can't be decoded only the fault."""

    silent: float = float("nan")  # share of the frames
    clipped: float = float("nan")  # share of the samples
    peak: float = float("nan")  # of full scale, 0 to 1
    speech: Stretches = ()
    fault: str | None = None


@dataclass
class Listener:
    """Hears recordings, each once; with a cache folder it knows those that it heard before.

    Of the cache, waveforms and the speech that a training found are read, and `STORE_NAME` is written.
    """

    cache: Path | None = None
    prints: dict[Path, NDArray[np.float32]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        if self.cache is not None and not self.cache.is_dir():
            raise UserError(
                f"--cache {self.cache}: no such folder; leave it out, or give that of a run"
            )
        self.read = Waveforms(RATE_HZ, self.cache, MEMORY_BYTES)
        self._detector = speech.SpeechDetector()
        self._spoken: dict[str, Stretches] = {}
        self._known: dict[str, Heard] = {}
        self._made_by = {"version": VERSION, "silent": [SILENT_DB, FRAME_S], "clipped": CLIPPED}
        if self.cache is not None:
            self._spoken = speech.stored(self.cache / SPEECH_NAME.format(FIRST_S), RATE_HZ)
            self._known = _read_store(self.cache / STORE_NAME, self._made_by)

    def listen(self, paths: Sequence[Path], printed: Collection[Path]) -> dict[Path, Heard]:
        """What is heard in each file; `prints` then has the fingerprints of those `printed`."""

        def hear(path: Path) -> Heard:
            return self._hear(path, path in printed)

        try:
            return dict(zip(paths, in_threads(hear, paths, "listening"), strict=True))
        finally:
            self._save()

    def waveform(self, path: Path) -> NDArray[np.float32]:
        """The first seconds, (samples,) in [-1, 1]. Raises `AudioError`."""
        return to_float(self.read(path, FIRST_S))

    def _hear(self, path: Path, printed: bool) -> Heard:
        try:
            state = provenance.file_state(path)
            known = self._known.get(state)
            if known and not printed:
                return known
            samples = self.read(path, FIRST_S)
        except AudioError as error:
            return Heard(fault=bad_files.fault(path, error))
        except OSError as error:  # it was there when its header was read
            return Heard(fault=f"can't be read ({error.strerror})")
        waveform = to_float(samples)
        if printed:
            self.prints[path] = duplicates.fingerprint(waveform, RATE_HZ)
        if known:
            return known
        spoken = self._spoken.get(state)
        spoken = self._detector(waveform, RATE_HZ) if spoken is None else spoken
        heard = Heard(*levels(samples), spoken)
        with self._lock:
            self._known[state] = heard
            if len(self._known) % SAVE_EVERY == 0:
                self._save()
        return heard

    def _save(self) -> None:
        if self.cache is None:
            return
        kept = {state: astuple(heard)[:-1] for state, heard in self._known.items()}
        with suppress(OSError):  # without it, the next audit hears them again
            provenance.write_store(self.cache / STORE_NAME, {"made_by": self._made_by, "heard": kept})


def levels(samples: NDArray[np.int16]) -> tuple[float, float, float]:
    """Share of silent frames, share of samples at full scale, and peak of int16 samples (samples,)."""
    size = round(FRAME_S * RATE_HZ)
    starts = np.arange(0, samples.size, size)
    sizes = np.diff(np.r_[starts, samples.size])
    power = np.add.reduceat(np.square(to_float(samples), dtype=np.float64), starts) / sizes
    silent = power < 10 ** (SILENT_DB / 10)
    level = np.abs(samples.astype(np.int32))
    clipped = np.count_nonzero(level >= CLIPPED * FULL_SCALE) / samples.size
    return float(sizes[silent].sum() / samples.size), clipped, float(level.max() / FULL_SCALE)


def _read_store(path: Path, made_by: provenance.MadeBy) -> dict[str, Heard]:
    """What an earlier audit heard, by state of the file."""
    content = provenance.read_store(path)
    if not provenance.can_be_kept(made_by, content.get("made_by")):
        return {}
    try:
        return {
            state: Heard(silent, clipped, peak, tuple((start, end) for start, end in spoken))
            for state, (silent, clipped, peak, spoken) in content["heard"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
