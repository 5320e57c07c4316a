"""Sound and spectrogram of a clip, as a page holds them: MP3 and a grey JPEG, both in base64."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from PIL import Image
from scipy.signal import ShortTimeFFT, get_window

from birdkit import audio
from birdkit.audio import Mono

# The spectrogram: 32 ms at 32 kHz, 50 columns a second, 256 rows from 0 Hz to half the sample rate.
N_FFT = 1024
ROWS = 256
COLUMNS_A_SECOND = 50
QUALITY = 75  # of the JPEG: 2 to 3 kB a second
# A grey value is a level in dB, in steps of 0.47: 0 is FLOOR_DB, 255 about a sine at full scale.
FLOOR_DB = -120.0
# Levels that are shown black and white at first, as shares of the cells that sound at all.
SHOWN = (0.45, 0.999)
LEAST_RANGE_DB = 20.0

# Rates of MP3 whose files tell the encoder's delay; at lower ones sound comes 50 to 70 ms late.
MP3_RATES = (32000, 44100, 48000)
OTHER_RATE = 32000
COMPRESSION = 0.88  # of libsndfile: 64 kbit/s at 32 kHz
PEAK = 0.9
MOST_GAIN_DB = 40.0

COLOUR_MAPS = ("magma", "viridis", "gray_r")


@dataclass(frozen=True)
class Media:
    """What a page plays and draws of a clip."""

    sound: str  # MP3, base64
    picture: str  # JPEG, base64; high frequencies on top
    gain_db: float  # by which the sound was made louder
    shown_db: tuple[float, float]  # levels that are black and white at first


def cut(path: Path, rate: int, spans_s: Sequence[tuple[float, float]]) -> list[Mono]:
    """The samples of spans of a recording, with silence behind its end. Raises `AudioError`.

    Decoded once, a few seconds at a time: an hour takes no more memory than its spans do.
    """
    bounds = [(round(start * rate), round(end * rate)) for start, end in spans_s]
    pieces = [np.zeros(end - start, dtype=np.float32) for start, end in bounds]
    at = 0
    for block in audio.blocks(path, rate, max_s=max(end for _, end in spans_s)):
        for piece, (start, end) in zip(pieces, bounds, strict=True):
            first, last = max(start, at), min(end, at + block.size)
            if first < last:
                piece[first - start : last - start] = block[first - at : last - at]
        at += block.size
    return pieces


def media(samples: Mono, rate: int) -> Media:
    """Sound and spectrogram of samples in [-1, 1]."""
    levels = levels_db(samples, rate)
    sounding = levels[levels > FLOOR_DB + 1]
    low, high = np.quantile(sounding, SHOWN) if sounding.size else (FLOOR_DB, 0.0)
    shown = (float(low), float(max(high, low + LEAST_RANGE_DB)))
    peak = float(np.abs(samples).max(initial=0.0))
    gain_db = min(MOST_GAIN_DB, 20 * np.log10(PEAK / peak)) if peak else 0.0
    louder = samples * np.float32(10 ** (gain_db / 20))
    return Media(_base64(mp3(louder, rate)), _base64(_jpeg(levels)), float(gain_db), shown)


def levels_db(samples: Mono, rate: int) -> NDArray[np.float64]:
    """(ROWS, columns): the spectrogram in dB of full scale, the lowest frequencies first."""
    hop = max(1, round(rate / COLUMNS_A_SECOND))
    padded = np.pad(samples, (0, max(0, N_FFT - samples.size)))
    transform = ShortTimeFFT(get_window("hann", N_FFT), hop, rate, scale_to="magnitude")
    power = 4 * np.abs(transform.stft(padded, p0=0, p1=-(-samples.size // hop))) ** 2
    # The lowest bin is the mean, which nobody hears; the others are joined two by two.
    joined = power[1:].reshape(ROWS, -1, power.shape[1]).mean(axis=1)
    return np.asarray(10 * np.log10(np.maximum(joined, 10 ** (FLOOR_DB / 10))))


def _jpeg(levels: NDArray[np.float64]) -> bytes:
    grey = np.rint(255 * np.clip(1 - levels / FLOOR_DB, 0, 1)).astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(grey[::-1]).save(content, "JPEG", quality=QUALITY)
    return content.getvalue()


def mp3(samples: Mono, rate: int) -> bytes:
    """A mono MP3, which every browser plays, at the same rate where that is one of MP3."""
    if rate not in MP3_RATES:
        samples, rate = soxr.resample(samples, rate, OTHER_RATE), OTHER_RATE
    content = io.BytesIO()
    options = {"bitrate_mode": "CONSTANT", "compression_level": COMPRESSION}
    with soundfile.SoundFile(
        content, "w", rate, 1, format="MP3", subtype="MPEG_LAYER_III", **options
    ) as file:
        for start in range(0, samples.size, rate):
            file.write(samples[start : start + rate])
    return content.getvalue()


def colour_maps() -> dict[str, str]:
    """Name → 256 colours, each as six hexadecimal digits."""
    maps = {name: matplotlib.colormaps[name](np.arange(256), bytes=True) for name in COLOUR_MAPS}
    return {name: colours[:, :3].tobytes().hex() for name, colours in maps.items()}


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
