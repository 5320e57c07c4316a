"""Answers of models from outside, kept in one file for each recording and read back by training.

A teacher is far larger than its students, so it hears every recording once. An entry is keyed by the
recording, the teacher and what was asked of it; a damaged one is noticed and made again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from birdkit.audio import AudioError
from birdkit.files import write_whole
from birdkit.log import LOG
from birdkit.outside.probe import directions
from birdkit.scoring.parts import SoundFile
from train.config import provenance

VERSION = 1
FOLDER = "answers"  # in the folder of decoded waveforms
KEPT_FILES = 2048  # whose embeddings stay in memory


@dataclass(frozen=True)
class Answers:
    """What a teacher says of the windows of a recording.

    scores : (windows, classes) probabilities, NaN for the classes that it doesn't know
    embeddings : (windows, dims), or None where they were not asked for
    """

    scores: NDArray[np.float32]
    embeddings: NDArray[np.float32] | None


def name_of(file: SoundFile, teacher: provenance.MadeBy, wanted: Mapping[str, Any]) -> str:
    """The name of an entry. Raises `AudioError` where there is no such file."""
    try:
        state = provenance.file_state(file.path)
    except OSError as error:
        raise AudioError(f"{file.path}: can't be read ({error}); replace or remove it") from error
    made_by = {"version": VERSION, "file": state, "windows": file.n_windows}
    return provenance.key(made_by | {"teacher": teacher, "wanted": wanted})[:32] + ".npz"


def write(path: Path, answers: Answers) -> None:
    """Keep answers. Embeddings are kept in half precision: only their direction is learnt."""
    arrays = {"scores": answers.scores}
    if answers.embeddings is not None:
        arrays["embeddings"] = directions(answers.embeddings).astype(np.float16)
    content = BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
    write_whole(path, content.getvalue())


def read(path: Path) -> Answers:
    """Read an entry back. A file that is damaged raises errors of many kinds."""
    with np.load(path) as entry:  # a zip, whose members have checksums
        kept = entry["embeddings"].astype(np.float32) if "embeddings" in entry else None
        return Answers(entry["scores"], kept)


def read_or_none(path: Path) -> Answers | None:
    """Read an entry; None where there is none, or a damaged one, which is named."""
    if not path.is_file():
        return None
    try:
        return read(path)
    except Exception as error:  # zip, zlib and numpy each fail in their own way
        LOG.warning(f"{path}: damaged ({type(error).__name__}); the teacher answers again")
        return None


@dataclass(frozen=True)
class KeptEmbeddings:
    """A teacher's embeddings of recordings, by the windows of the kit's grid.

    A stretch of a recording gets the mean of the windows that it overlaps, weighted by the overlap, as
    the rows of time-shifted windows are made. The nearest window alone could hold as little as half of
    what the student hears.
    """

    entries: Mapping[Path, Path]  # recording → its entry
    window_s: float
    size: int  # numbers in an embedding

    def __call__(self, path: Path, start_s: float, end_s: float) -> NDArray[np.float32]:
        """(size,): the embedding of a stretch; NaN where the teacher has none."""
        entry = self.entries.get(path)
        if entry is None:
            return np.full(self.size, np.nan, dtype=np.float32)
        windows = _embeddings_in(entry)
        first_s = np.arange(len(windows)) * self.window_s
        overlap_s = np.minimum(end_s, first_s + self.window_s) - np.maximum(start_s, first_s)
        weights = np.maximum(overlap_s, 0.0)
        if not weights.any():
            return np.full(self.size, np.nan, dtype=np.float32)
        return np.asarray(weights / weights.sum() @ windows, dtype=np.float32)


@lru_cache(KEPT_FILES)
def _embeddings_in(entry: Path) -> NDArray[np.float32]:
    embeddings = read(entry).embeddings
    assert embeddings is not None
    return embeddings
