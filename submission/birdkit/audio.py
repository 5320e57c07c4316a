"""Sound file → float32 mono in [-1, 1] at the contract's rate, or a named error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from birdkit.errors import UserError

BLOCK_FRAMES = 1 << 18
# Digital silence in FLAC and Ogg takes a byte for 350 frames. A header that promises more frames than
# this for each byte of its file is wrong, or says that the length is unknown (2^63 - 1 frames).
FRAMES_A_BYTE = 1000


class AudioError(UserError):
    """A file that can't be decoded, or holds no samples."""


def read(path: Path, sample_rate: int, *, max_s: float | None = None) -> NDArray[np.float32]:
    """Decode a file, mix it to mono and resample it.

    The header's length is never trusted: a truncated file returns the samples that are there. NaN and
    infinite samples become 0; decoded peaks above full scale are clipped to the range models promise.

    Parameters
    ----------
    max_s : stop decoding after that many seconds (a 30-minute file need not fill the memory)

    Returns
    -------
    (samples,) float32, at least one sample
    """
    try:
        with soundfile.SoundFile(str(path)) as file:
            rate = file.samplerate
            limit = None if max_s is None else int(np.ceil(max_s * rate))
            mono = _read_mono(file, limit)
    except (soundfile.LibsndfileError, OSError) as error:
        raise AudioError(f"{path}: can't be decoded ({error}); replace or remove it") from error
    if mono.size == 0:
        raise AudioError(f"{path}: holds no samples; replace or remove it")
    np.nan_to_num(mono, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    if rate != sample_rate:
        mono = soxr.resample(mono, rate, sample_rate)
        if mono.size == 0:
            mono = np.zeros(1, dtype=np.float32)
    return np.clip(mono, -1.0, 1.0, out=mono)


def length_s(path: Path) -> tuple[float, bool]:
    """How many seconds a file lasts, and whether it is whole.

    The length is the header's, and is measured by decoding only where that one can't be right.
    """
    try:
        with soundfile.SoundFile(str(path)) as file:
            rate, n_frames = file.samplerate, file.frames
        size = path.stat().st_size
    except (soundfile.LibsndfileError, OSError) as error:
        raise AudioError(f"{path}: can't be decoded ({error}); replace or remove it") from error
    if n_frames > FRAMES_A_BYTE * size:
        n_frames = read(path, rate).size
    return n_frames / rate, True


def _read_mono(file: soundfile.SoundFile, limit: int | None) -> NDArray[np.float32]:
    # The file is read in blocks, since a forged header can ask for more memory than there is. A lost
    # Ogg page, which libsndfile skips without an error, then shifts only the rest of its block, because
    # soundfile seeks to where each block should begin.
    blocks: list[NDArray[np.float32]] = []
    read_so_far = 0
    while limit is None or read_so_far < limit:
        wanted = BLOCK_FRAMES if limit is None else min(BLOCK_FRAMES, limit - read_so_far)
        block = file.read(wanted, dtype="float32", always_2d=True)
        if len(block) == 0:
            break
        blocks.append(block[:, 0] if block.shape[1] == 1 else block.mean(axis=1))
        read_so_far += len(block)
    return np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.float32)
