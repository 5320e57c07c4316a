"""Finds human speech in recordings, such as a recordist who announces the species.

The detector is Silero VAD (https://github.com/snakers4/silero-vad, MIT), whose wheel holds its network.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import numpy as np
import soxr
from numpy.typing import NDArray
from tqdm import tqdm

from birdkit.errors import UserError
from train.config import provenance
from train.data import progress

Stretches = tuple[tuple[float, float], ...]  # (start s, end s), in order and apart from each other
Sound = TypeVar("Sound", NDArray[np.float32], NDArray[np.int16])

RATE_HZ = 16_000
FRAME = 512  # samples for each probability: 32 ms
CONTEXT = 64  # samples before a frame that the network gets with it
BLOCK = 512  # frames a call: 16 s
# The package's get_speech_timestamps has the same thresholds. It pads less; here no voice may remain.
# In birdclef-mini (224 recordings, 60 minutes) they find both announcements, and take 18 s of song
# in 11 other recordings for speech. Speech over birds is found to 98 % at 0 dB, to 73 % at -5 dB.
SPEECH, QUIET = 0.5, 0.35  # speech begins at the one probability and lasts down to the other
LEAST_SPEECH_S, LEAST_QUIET_S, PAD_S = 0.25, 0.1, 0.2

VERSION = 1  # raise it when the same recording gives other stretches
SAVE_EVERY_S = 60.0  # the whole store is written each time, which takes longer as it grows


class SpeechDetector:
    """Silero VAD on the CPU, in one thread: some 0.1 s a minute of audio."""

    def __init__(self) -> None:
        import onnxruntime  # here: Kaggle's image lacks it, and most recipes search for no speech

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            str(_network()), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, waveform: NDArray[np.float32], sample_rate: int) -> Stretches:
        """Stretches of speech in a waveform (samples,) in [-1, 1] at `sample_rate`."""
        sound = soxr.resample(waveform, sample_rate, RATE_HZ)
        return speech_stretches(self.probabilities(sound), waveform.size / sample_rate)

    def probabilities(self, sound: NDArray[np.float32]) -> NDArray[np.float32]:
        """(samples,) at 16 kHz → speech probabilities (frames,); silence pads the last frame."""
        frames = np.zeros((-(-sound.size // FRAME), FRAME), dtype=np.float32)
        frames.reshape(-1)[: sound.size] = sound
        before = np.zeros((len(frames), CONTEXT), dtype=np.float32)
        before[1:] = frames[:-1, -CONTEXT:]
        seen = np.hstack([before, frames])
        hidden = cell = np.zeros((1, 1, 128), dtype=np.float32)
        parts = [np.zeros(0, dtype=np.float32)]
        for start in range(0, len(seen), BLOCK):
            inputs = {"input": seen[start : start + BLOCK], "h": hidden, "c": cell}
            block, hidden, cell = self._session.run(["speech_probs", "hn", "cn"], inputs)
            parts.append(block.reshape(-1))
        return np.concatenate(parts)


def _network() -> Path:
    """The packaged model that takes a whole sequence. The package is located and not imported,
    because its import needs more libraries."""
    spec = importlib.util.find_spec("silero_vad")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "data" / "silero_vad_16k_sequence.onnx"
        if path.is_file():
            return path
    raise UserError("the search for speech needs silero-vad: pip install --no-deps silero-vad==6.2.3")


def speech_stretches(probabilities: NDArray[np.float32], duration_s: float) -> Stretches:
    """Runs of speech, padded and joined where they then touch. (frames,) → s, within the recording."""
    stretches: list[tuple[float, float]] = []
    for first, last in runs(probabilities):
        start_s = max(0.0, first * FRAME / RATE_HZ - PAD_S)
        end_s = min(duration_s, last * FRAME / RATE_HZ + PAD_S)
        if stretches and start_s <= stretches[-1][1]:
            start_s = stretches.pop()[0]
        stretches.append((start_s, end_s))
    return tuple(stretches)


def runs(probabilities: NDArray[np.float32]) -> list[tuple[int, int]]:
    """First frame of each run of speech, and the one after its last; as get_speech_timestamps."""
    speech_runs = []
    start = quiet = None
    for frame, probability in enumerate(probabilities):
        if probability >= SPEECH:
            start, quiet = frame if start is None else start, None
        elif probability < QUIET and start is not None:
            quiet = frame if quiet is None else quiet
            if (frame - quiet) * FRAME >= LEAST_QUIET_S * RATE_HZ:
                speech_runs.append((start, quiet))
                start = quiet = None
    if start is not None:
        speech_runs.append((start, len(probabilities)))
    return [
        (first, last)
        for first, last in speech_runs
        if (last - first) * FRAME > LEAST_SPEECH_S * RATE_HZ
    ]


def find_speech(
    paths: Sequence[Path],
    read: Callable[[Path], NDArray[np.float32]],
    sample_rate: int,
    store: Path,
) -> dict[Path, Stretches]:
    """Stretches of speech in each recording. Only recordings new or changed since `store` are searched.

    `read` returns (samples,) at `sample_rate`; one that stops at another length needs another store.
    The store, JSON, is written now and then and at the end, an interruption's too, and begun anew if
    it can't be read. Raises UserError where `read` does or silero-vad is absent.
    """
    made_by = _made_by(sample_rate)
    known = stored(store, sample_rate)
    keys = {path: provenance.file_state(path) for path in paths}
    todo = [path for path, key in keys.items() if key not in known]
    if todo:
        detector, saved_s = SpeechDetector(), time.monotonic()
        try:
            for path in tqdm(todo, **progress.bar("searching for speech")):
                known[keys[path]] = detector(read(path), sample_rate)
                if time.monotonic() - saved_s > SAVE_EVERY_S:
                    _write_store(store, made_by, known)
                    saved_s = time.monotonic()
        finally:
            _write_store(store, made_by, known)
    return {path: known[key] for path, key in keys.items()}


def _made_by(sample_rate: int) -> provenance.MadeBy:
    return {
        "version": VERSION,
        "thresholds": [SPEECH, QUIET, LEAST_SPEECH_S, LEAST_QUIET_S, PAD_S],
        "sample_rate": sample_rate,
    }


def stored(store: Path, sample_rate: int) -> dict[str, Stretches]:
    """What `find_speech` has kept, by state of the file; {} where it would begin anew."""
    content = provenance.read_store(store)
    if not provenance.can_be_kept(_made_by(sample_rate), content.get("made_by")):
        return {}
    try:
        return {
            key: tuple((float(start_s), float(end_s)) for start_s, end_s in stretches)
            for key, stretches in content["found"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _write_store(store: Path, made_by: provenance.MadeBy, known: Mapping[str, Stretches]) -> None:
    with suppress(OSError):  # without it, the next run searches again
        provenance.write_store(store, {"made_by": made_by, "found": known})


def without_speech(waveform: Sound, stretches: Stretches, sample_rate: int, least_s: float) -> Sound:
    """(samples,) with the stretches removed, or unchanged where less than `least_s` s would remain."""
    keep = np.ones(waveform.size, dtype=bool)
    for start_s, end_s in stretches:
        keep[max(0, round(start_s * sample_rate)) : max(0, round(end_s * sample_rate))] = False
    n_kept = np.count_nonzero(keep)
    return waveform if n_kept < max(1, least_s * sample_rate) else waveform[keep]


def notes(speech: Mapping[Path, Stretches]) -> list[str]:
    """A line on how much speech there is, if there is any."""
    n_spoken = sum(bool(stretches) for stretches in speech.values())
    if not n_spoken:
        return []
    minutes = sum(end - start for stretches in speech.values() for start, end in stretches) / 60
    return [f"human speech in {n_spoken} of {len(speech)} recordings, {minutes:.1f} minutes in all"]
