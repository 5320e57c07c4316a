"""Sound file → float32 mono in [-1, 1] at the contract's rate, or a named error."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from birdkit.errors import UserError, one_line

Mono = NDArray[np.float32]  # (samples,)

# Kaggle's metric reads ogg; the others are for field recordings.
SUFFIXES = frozenset({".ogg", ".opus", ".wav", ".flac", ".mp3"})
BLOCK_FRAMES = 1 << 18
# Decoding goes on that many frames after a damaged place, then twice as many, until it succeeds; a FLAC
# frame has 4096. The attempts bound the time that a file of many such places takes.
SKIPPED_FRAMES = 1 << 10
ATTEMPTS = 64
# Digital silence in FLAC and Ogg takes a byte for 350 frames. A header that promises more frames than
# this for each byte of its file is wrong, or says that the length is unknown (2^63 - 1 frames).
FRAMES_A_BYTE = 1000


class AudioError(UserError):
    """A file that can't be decoded, or holds no samples."""


def read(path: Path, sample_rate: int, *, max_s: float | None = None) -> Mono:
    """Decode a file, mix it to mono and resample it.

    The header's length is never trusted: a truncated file returns the samples that are there. A damaged
    place is silent, and what comes after it keeps its time where the format tells it. NaN and infinite
    samples become 0; decoded peaks above full scale are clipped to the range models promise.

    Parameters
    ----------
    max_s : stop decoding after that many seconds (a 30-minute file need not fill the memory)

    Returns
    -------
    (samples,) float32, at least one sample
    """
    return np.concatenate(list(blocks(path, sample_rate, max_s=max_s)))


def blocks(path: Path, sample_rate: int, *, max_s: float | None = None) -> Iterator[Mono]:
    """The samples that `read` returns, a few seconds at a time."""
    resampler, n_samples = None, 0
    for rate, block in _decoded(path, max_s):
        np.nan_to_num(block, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        if rate != sample_rate:
            resampler = resampler or soxr.ResampleStream(rate, sample_rate, 1)
            block = resampler.resample_chunk(block)
        n_samples += block.size
        yield np.clip(block, -1.0, 1.0, out=block)
    if resampler:
        rest = resampler.resample_chunk(np.zeros(0, dtype=np.float32), last=True)
        n_samples += rest.size
        yield np.clip(rest, -1.0, 1.0, out=rest)
    if n_samples == 0:  # a single sample can be lost in resampling
        yield np.zeros(1, dtype=np.float32)


def length_s(path: Path) -> float:
    """How many seconds a file lasts by its header; measured by decoding where that can't be right."""
    try:
        with opened(path) as file:
            rate, n_frames = file.samplerate, file.frames
        if n_frames > FRAMES_A_BYTE * path.stat().st_size:
            n_frames = sum(block.size for _, block in _decoded(path, None))
    except (soundfile.LibsndfileError, OSError) as error:
        raise _undecodable(path, error) from error
    return n_frames / rate


def opened(path: Path) -> soundfile.SoundFile:
    """Raises `LibsndfileError` or `OSError`. A pipe is not opened, since that can wait for ever."""
    if path.exists() and not path.is_file():
        raise OSError("it is no regular file")
    return soundfile.SoundFile(os.fsencode(path))  # a name may be no UTF-8


def _undecodable(path: Path, error: Exception) -> AudioError:
    why = getattr(error, "error_string", error)  # libsndfile's, without the path
    return AudioError(one_line(f"{path}: can't be decoded ({why}); replace or remove it"))


def _decoded(path: Path, max_s: float | None) -> Iterator[tuple[int, Mono]]:
    """Sample rate and mono samples, block by block, at least one sample in all.

    After a damaged place the file is opened again, because no decoder can be trusted to go on.
    """
    # Frames yielded so far, frames after them that can't be decoded, and frames by the header.
    end = skipped = n_frames = 0
    failure: Exception | None = None
    for _ in range(ATTEMPTS):
        try:
            with opened(path) as file:
                rate, n_frames = file.samplerate, file.frames
                limit = np.inf if max_s is None else np.ceil(max_s * rate)
                if skipped:
                    file.seek(end + skipped)
                for block in _until_damage(file, limit - end - skipped):
                    if skipped:
                        yield rate, np.zeros(skipped, dtype=np.float32)
                    yield rate, block
                    end, skipped = end + skipped + block.size, 0
            break
        except (soundfile.LibsndfileError, OSError) as error:
            failure = error
        skipped = 2 * skipped or SKIPPED_FRAMES
        if end + skipped >= n_frames:
            break
    if failure and end == 0:
        raise _undecodable(path, failure) from failure
    if end == 0:
        raise AudioError(one_line(f"{path}: holds no samples; replace or remove it"))


def _until_damage(file: soundfile.SoundFile, limit: float) -> Iterator[Mono]:
    """Mono samples of at most `limit` frames. Raises what decoding raises, after what it decoded."""
    # The file is read in blocks, since a forged header can ask for more memory than there is. A lost
    # Ogg page, which libsndfile skips without an error, then shifts only the rest of its block, because
    # soundfile seeks to where each block should begin.
    while limit > 0:
        frames = np.full((int(min(BLOCK_FRAMES, limit)), file.channels), np.nan, dtype=np.float32)
        failure = None
        try:
            block = file.read(out=frames)
        except soundfile.LibsndfileError as error:
            failure = error
            reached = np.flatnonzero(~np.isnan(frames).all(axis=1)).max(initial=-1)
            block = frames[: reached + 1]
        if len(block):
            yield block[:, 0] if block.shape[1] == 1 else block.mean(axis=1)
        if failure:
            raise failure
        if len(block) == 0:
            return
        limit -= len(block)
