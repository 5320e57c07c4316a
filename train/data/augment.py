"""Augmentation of training chunks: mixing, noise, distance, masks. Validation uses none of it."""

from __future__ import annotations

import numpy as np
import scipy.fft
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from train.config.settings import Augment

# Spectral slopes of the noise bank, power ~ 1/f^slope: white, pink, brown, and between.
_SLOPES = (0.0, 0.5, 1.0, 1.5, 2.0)
_BANK_S = 30
# Of reverberation from afar, to -60 dB.
_TAIL_S = (0.1, 0.5)
# Samples to either side that a filter without delay is heard in.
_SPREAD = 128
# Where random gains are drawn, an octave and a half apart.
_CORNERS_HZ = np.geomspace(125.0, 16_000.0, 6)


def noise_bank(sample_rate: int, seed: int) -> NDArray[np.float32]:
    """Coloured noises of unit power, (slopes, samples). `add_noise` cuts random pieces of them."""
    rng = np.random.default_rng(seed)
    n = _BANK_S * sample_rate
    hz = np.fft.rfftfreq(n, 1 / sample_rate)
    bank = []
    for slope in _SLOPES:
        spectrum = np.fft.rfft(rng.standard_normal(n)) * np.maximum(hz, 50.0) ** (-slope / 2)
        noise = np.fft.irfft(spectrum, n)
        bank.append(noise / noise.std())
    return np.array(bank, dtype=np.float32)


def from_afar(
    chunk: NDArray[np.float32], sample_rate: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """(samples,) as from a distance: the air absorbs the highs, and reverberation is added.

    A first-order low-pass and a decaying noise tail (Polack's model of late reverberation); the power
    stays what it was.
    """
    tail_s = rng.uniform(*_TAIL_S)
    decay = np.exp(-6.9 * np.arange(round(tail_s * sample_rate)) / (tail_s * sample_rate))
    echo = rng.standard_normal(decay.size) * decay
    echo *= rng.uniform(0.1, 1.0) / np.linalg.norm(echo)
    echo[0] += 1.0
    n_fft = _fast_length(2 * round(_TAIL_S[1] * sample_rate) + 4 * _SPREAD)
    cutoff_hz = np.exp(rng.uniform(np.log(3000.0), np.log(12000.0)))
    low_pass = 1.0 / np.sqrt(1.0 + (scipy.fft.rfftfreq(n_fft, 1.0 / sample_rate) / cutoff_hz) ** 2)
    response = scipy.fft.rfft(echo.astype(np.float32), n_fft) * low_pass.astype(np.float32)
    return _at_power_of(chunk, _filtered(chunk, response, n_fft))


def _filtered(
    chunk: NDArray[np.float32], response: NDArray[np.complex64], n_fft: int
) -> NDArray[np.float32]:
    """(samples,) through a filter (n_fft // 2 + 1,) heard from `_SPREAD` before to n_fft / 2 after.

    By overlap-add, in blocks that stay in the processor's cache, all transformed in one call.
    """
    step = n_fft // 2 - 2 * _SPREAD
    n_blocks = -(-chunk.size // step)
    blocks = np.zeros((n_blocks, n_fft), dtype=np.float32)
    padded = np.zeros(n_blocks * step, dtype=np.float32)
    padded[: chunk.size] = chunk
    blocks[:, _SPREAD : _SPREAD + step] = padded.reshape(n_blocks, step)
    heard = scipy.fft.irfft(scipy.fft.rfft(blocks) * response, n_fft)
    total = np.zeros(n_blocks * step + n_fft, dtype=np.float32)
    for index, block in enumerate(heard):
        total[index * step : index * step + n_fft] += block
    return total[_SPREAD : _SPREAD + chunk.size]


def _fast_length(at_least: int) -> int:
    """A length of transforms with ten factors of two or more: quicker than the next of SciPy's.

    Many transforms should share a length, since what SciPy prepares for a new one takes as long again.
    """
    return 1024 * int(scipy.fft.next_fast_len(-(-at_least // 1024), real=True))


def equalised(
    chunk: NDArray[np.float32], sample_rate: int, most_db: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """(samples,) through a random smooth filter: gains of up to ± `most_db` from band to band.

    In dB over log frequency the gains are straight lines; the power stays what it was.
    """
    n_fft = _fast_length(2 * chunk.size)  # or the end would sound at the start
    hz = np.maximum(scipy.fft.rfftfreq(n_fft, 1.0 / sample_rate), 1.0)
    gains_db = rng.uniform(-most_db, most_db, _CORNERS_HZ.size)
    gain = 10 ** (np.interp(np.log(hz), np.log(_CORNERS_HZ), gains_db) / 20)
    spectrum = scipy.fft.rfft(chunk, n_fft) * gain.astype(np.float32)
    coloured = scipy.fft.irfft(spectrum, n_fft)[: chunk.size]
    return _at_power_of(chunk, coloured)


def _at_power_of(chunk: NDArray[np.float32], changed: NDArray[np.float32]) -> NDArray[np.float32]:
    """What was made of a chunk, with the power of the chunk."""
    return np.asarray(changed * (rms(chunk) / max(rms(changed), 1e-6)), dtype=np.float32)


def at_speed(chunk: NDArray[np.float32], n_samples: int) -> NDArray[np.float32]:
    """(n_samples,): all of a chunk played in the time of so many samples, band-limited."""
    played = soxr.resample(chunk, chunk.size, n_samples, quality="MQ")
    return np.asarray(np.resize(played, n_samples), dtype=np.float32)  # one sample off, by rounding


def add_noise(
    chunk: NDArray[np.float32],
    bank: NDArray[np.float32],
    snr_db: tuple[float, float],
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """(samples,) plus a random piece of the bank at a random signal-to-noise ratio in dB."""
    n = min(chunk.size, bank.shape[1])
    start = rng.integers(bank.shape[1] - n + 1)
    noise = np.resize(bank[rng.integers(len(bank)), start : start + n], chunk.size)
    level = rms(chunk) * 10 ** (-rng.uniform(*snr_db) / 20)
    return chunk + np.float32(level) * noise


def mix(first: NDArray[np.float32], second: NDArray[np.float32], level: float) -> NDArray[np.float32]:
    """The sum of two chunks (samples,); `level` is the second's root mean square over the first's.

    Both stay audible, so the target is the union of their labels: under the loss on clipwise
    of the 6th place of BirdCLEF+ 2025, weighted targets of 0.5 or less would act as negatives.
    """
    gain = level * rms(first) / max(rms(second), 1e-6)
    return first + np.float32(gain) * second


def mixed_evenly(first: Tensor, second: Tensor) -> Tensor:
    """Sums of two batches of chunks (batch, samples), both of the same power, within [-1, 1]."""
    powers = (part.square().mean(dim=1, keepdim=True) for part in (first, second))
    one, other = (power.sqrt().clamp(min=1e-6) for power in powers)
    mixed = first / one + second / other
    return mixed / mixed.abs().amax(dim=1, keepdim=True).clamp(min=1.0)


def rms(chunk: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.mean(np.square(chunk, dtype=np.float64)) + 1e-12))


def to_full_scale(chunk: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale a chunk down into [-1, 1] where it exceeds that; the log-mel ignores the gain."""
    peak = float(np.abs(chunk).max())
    return chunk / np.float32(peak) if peak > 1.0 else chunk


def draw_masks(n_samples: int, config: Augment, generator: torch.Generator) -> Tensor:
    """Random numbers in 0..1 for the masks of so many log-mels, (samples, masks, 2): width and start.

    The generator is on the CPU, so that the masks are the same on every device.
    """
    n_masks = config.freq_masks + config.time_masks
    return torch.rand(n_masks, 2, n_samples, generator=generator).permute(2, 0, 1)


def spec_augment(log_mel: Tensor, config: Augment, draws: Tensor) -> Tensor:
    """Set random bands of mels and stretches of frames to the log-mel's mean (SpecAugment, https://arxiv.org/abs/1904.08779).

    Parameters
    ----------
    log_mel : (batch, 1, mels, frames)
    draws : (batch, masks, 2), as `draw_masks` gives them, on the log-mel's device
    """
    _, _, n_mels, n_frames = log_mel.shape
    over_mels, over_frames = draws.split([config.freq_masks, config.time_masks], dim=1)
    bands = _stretches(over_mels, n_mels, config.freq_mask_share)
    stretches = _stretches(over_frames, n_frames, config.time_mask_share)
    masked = bands[:, :, None] | stretches[:, None, :]
    mean = log_mel.mean(dim=(2, 3), keepdim=True)
    return torch.where(masked[:, None], mean, log_mel)


def draw_contrast(n_samples: int, generator: torch.Generator) -> Tensor:
    """Random numbers in 0..1 for `band_contrast`, (samples, 1 + corners): whether, and how much."""
    return torch.rand(1 + _CORNERS_HZ.size, n_samples, generator=generator).permute(1, 0)


def band_contrast(log_mel: Tensor, config: Augment, draws: Tensor) -> Tensor:
    """Stretch or flatten the deviations of a log-mel from its bands' means, in some of the chunks.

    In dB that is a power of the energies: a gain in dB cancels where the mean is subtracted, this
    doesn't.

    Parameters
    ----------
    log_mel : (batch, 1, mels, frames)
    draws : (batch, 1 + corners), as `draw_contrast` gives them, on the log-mel's device
    """
    lowest, highest = config.contrast_range
    corners = lowest + (highest - lowest) * draws[:, None, 1:]
    factor = interpolate(corners, log_mel.shape[2], mode="linear", align_corners=True)
    factor = torch.where(draws[:, :1, None] < config.contrast, factor, 1.0)
    mean = log_mel.mean(dim=3, keepdim=True)
    return mean + (log_mel - mean) * factor[..., None]


def _stretches(draws: Tensor, length: int, share: float) -> Tensor:
    """(batch, length): the union of random stretches, each of at most `share` of the length."""
    width = draws[:, :, :1] * share * length
    start = draws[:, :, 1:] * (length - width)
    place = torch.arange(length, device=draws.device)
    return ((place >= start) & (place < start + width)).any(dim=1)
