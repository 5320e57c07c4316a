"""Waveform → log-mel, as matrix products: the kit's only signal processing, inside the exported graph.

An STFT operator does not export to every engine, and a DFT written as one convolution costs as much
as the network behind it. So the DFT is factorised, as Cooley and Tukey do, into two small products.
With N = n1 × n2 samples a frame, sample n = n1·b + a and bin k = c + n2·d:

    X[c + n2·d] = Σ_a e^(-2πi·a·(c/N + d/n1)) · Σ_b x[n1·b + a] e^(-2πi·b·c/n2)

The inner sum is a real DFT of n2 numbers, so it is n2 numbers again: c and n2 - c are conjugates, and
the bins beyond N/2 stand for those that c > n2/2 would give. The window folds into n1 inner matrices,
one for each a, the twiddles into n2/2 outer ones, one for each c; the bins come out of order, which
the mel matrix undoes. Frames are the innermost axis throughout, so nothing is ever transposed but
whole rows of them.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from librosa.filters import mel as librosa_mel
from numpy.typing import NDArray
from torch import Tensor, nn

from birdkit.contract import Contract
from train.config.settings import FrontEnd

# Mel power below this is silence: -140 dB, under the noise of 16-bit audio.
POWER_FLOOR = 1e-14
# The log-mel spans this many dB, down from a chunk's loudest bin.
RANGE_DB = 80.0
ALL = slice(None)
# Frames are cut as slices where at most this many make one: faster than a gather, but a node each.
MOST_SLICES = 16


class LogMel(nn.Module):
    """(batch, samples) in [-1, 1] → (batch, 1, mels, frames) in [0, 1], nearly: see `subtract_mean`.

    The mel power is librosa's (Slaney's scale and norm, Hann window, frames centred, zeros beyond the
    ends), in dB below the chunk's peak, so that the gain of a recorder does not matter. Digital
    silence is 0. It is always computed in f32, because bf16 has errors of up to 21 dB.
    """

    def __init__(self, config: FrontEnd) -> None:
        super().__init__()
        self.config = config
        self.n1, self.n2 = _factor(config.n_fft)
        inner, outer, bins = _dft_factors(self.n1, self.n2)
        mel = mel_matrix(config)
        self.inner: Tensor
        self.outer: Tensor
        self.mel: Tensor
        # Constants follow from the config, so a checkpoint does not hold them.
        for name, matrix in (("inner", inner), ("outer", outer), ("mel", mel[:, bins.reshape(-1)])):
            self.register_buffer(name, torch.tensor(matrix, dtype=torch.float32), persistent=False)

    def n_frames(self, n_samples: int) -> int:
        return n_frames(self.config, n_samples)

    def forward(self, waveform: Tensor) -> Tensor:
        with torch.autocast(waveform.device.type, enabled=False):
            return self.from_power(self.mel_power(waveform.float()))

    def of(self, waveform: Tensor, contract: Contract) -> Tensor:
        """(batch, input_samples) → (batch, 1, mels, frames): of chunks, or of stretches of chunks."""
        if contract.stretch_s:
            return self.of_stretch(waveform, contract.chunk_samples)
        return self(waveform)

    def of_stretch(self, waveform: Tensor, chunk_samples: int) -> Tensor:
        """(batch, samples) → (batch, 1, mels, frames), normalised a training chunk at a time.

        So a loud call silences its own chunk's background, as in training, and not that of the stretch.
        Frames that hear the chunk beside them, too, do not count for the peak.
        """
        with torch.autocast(waveform.device.type, enabled=False):
            mel_power = self.mel_power(waveform.float())
            # A rest of less than half a chunk belongs to the chunk before it.
            starts = range(0, max(1, waveform.shape[-1] - chunk_samples // 2), chunk_samples)
            bounds = [*(-(-start // self.config.hop) for start in starts), mel_power.shape[-1]]
            parts = mel_power.split([after - before for before, after in pairwise(bounds)], dim=2)
            across = -(-self.config.n_fft // (2 * self.config.hop))
            inner = [
                slice(across if i else 0, part.shape[2] - (across if i + 1 < len(parts) else 0))
                for i, part in enumerate(parts)
            ]
            every = [
                self.from_power(part, own if own.start < own.stop else ALL)  # a chunk of few frames
                for part, own in zip(parts, inner, strict=True)
            ]
            return torch.cat(every, dim=3)

    def by_window(self, log_mel: Tensor, contract: Contract) -> Tensor:
        """Log-mel of stretches → that of each of their windows, (batch * windows, 1, mels, frames).

        All have as many frames as a chunk has in training, so windows begin up to a hop early or
        late, and may share a frame with the next one.
        """
        n_samples, hop = contract.window_samples, self.config.hop
        n_frames = self.n_frames(n_samples)
        last = log_mel.shape[-1] - n_frames
        starts = (min(-(-i * n_samples // hop), last) for i in range(contract.stretch_windows))
        windows = [log_mel[..., start : start + n_frames] for start in starts]
        return torch.stack(windows, dim=1).flatten(0, 1)

    def from_power(self, mel_power: Tensor, inner: slice = ALL) -> Tensor:
        """(batch, mels, frames) power → (batch, 1, mels, frames), normalised for the network.

        The peak is that of the `inner` frames.
        """
        log_mel = to_log_mel(mel_power, inner)
        if self.config.subtract_mean:
            log_mel = without_band_means(log_mel, self.config.subtract_mean)
        return log_mel

    def mel_power(self, waveform: Tensor) -> Tensor:
        """(batch, samples) → (batch, mels, frames), power."""
        n1, n2, n_frames = self.n1, self.n2, self.n_frames(waveform.shape[-1])
        inner = torch.matmul(self.inner, self._frames(waveform))  # (batch, n1, n2, frames)
        by_bin = inner.transpose(1, 2).reshape(-1, n2 // 2, 2 * n1, n_frames)
        real, imag = torch.matmul(self.outer, by_bin).chunk(2, dim=2)  # (batch, n2/2, n1, frames)
        power = (real * real + imag * imag).reshape(-1, n2 // 2 * n1, n_frames)
        return torch.matmul(self.mel, power)

    def _frames(self, waveform: Tensor) -> Tensor:
        """(batch, samples) → (batch, n1, n2, frames), centred, zeros beyond the ends.

        Sample n1·b + a of each frame lies at [a, b].
        """
        n_fft, hop, n1 = self.config.n_fft, self.config.hop, self.n1
        n_frames = self.n_frames(waveform.shape[-1])
        # Blocks as long as hop and n_fft allow; a whole hop where it divides n_fft.
        block = math.gcd(hop, n_fft)
        needed = (n_frames - 1) * hop + n_fft
        tail = max(0, -(-needed // block) * block - waveform.shape[-1] - n_fft // 2)
        padded = nn.functional.pad(waveform, (n_fft // 2, tail))
        n_blocks = needed // block
        blocks = padded[:, : n_blocks * block]
        stride, per_frame = hop // block, n_fft // block
        if per_frame <= MOST_SLICES and block % n1 == 0:
            by_residue = blocks.reshape(-1, n_blocks, block // n1, n1).permute(0, 3, 2, 1)
            last = (n_frames - 1) * stride + 1
            slices = [by_residue[..., j : j + last : stride] for j in range(per_frame)]
            return torch.cat(slices, dim=2)
        first = torch.arange(n_frames, device=waveform.device)[:, None] * stride
        index = first + torch.arange(per_frame, device=waveform.device)
        frames = blocks.reshape(-1, n_blocks, block)[:, index]
        return frames.reshape(-1, n_frames, self.n2, n1).permute(0, 3, 2, 1)


def n_frames(config: FrontEnd, n_samples: int) -> int:
    """Frames of the log-mel of so many samples."""
    return 1 + n_samples // config.hop


def to_log_mel(mel_power: Tensor, inner: slice = ALL) -> Tensor:
    """(batch, mels, frames) power → (batch, 1, mels, frames) in [0, 1]: dB below the peak.

    The peak is that of the `inner` frames; what is louder is 1.
    """
    level_db = 10.0 * torch.log10(mel_power.clamp(min=POWER_FLOOR))
    silence_db = 10.0 * math.log10(POWER_FLOOR)
    top_db = level_db[:, :, inner].amax(dim=(1, 2), keepdim=True).clamp(min=silence_db + RANGE_DB)
    return ((level_db - top_db) / RANGE_DB + 1.0).clamp(min=0.0, max=1.0).unsqueeze(1)


def without_band_means(log_mel: Tensor, share: float) -> Tensor:
    """(batch, 1, mels, frames): move each band's mean towards that of all bands by `share`.

    This is the mean normalisation of speech features (Atal, J. Acoust. Soc. Am. 55, 1974) for each
    band. The sound of a place or a recorder is the same in every frame, and a call is not.
    """
    band_mean = log_mel.mean(dim=3, keepdim=True)
    excess = band_mean - band_mean.mean(dim=2, keepdim=True)
    return (log_mel - share * excess).clamp(min=0.0)


def mel_matrix(config: FrontEnd) -> NDArray[np.float64]:
    """(mels, n_fft // 2 + 1): librosa's filters, Slaney's scale and norm."""
    filters: NDArray[np.float64] = librosa_mel(
        sr=config.sample_rate,
        n_fft=config.n_fft,
        n_mels=config.n_mels,
        fmin=config.fmin_hz,
        fmax=config.fmax_hz,
        dtype=np.float64,
    )
    return filters


def _factor(n: int) -> tuple[int, int]:
    """n = n1 · n2 with n1 <= n2 and n2 even, as near to each other as n allows. n is even."""
    n1 = next(d for d in range(math.isqrt(n), 0, -1) if n % d == 0 and n // d % 2 == 0)
    return n1, n // n1


def _dft_factors(
    n1: int, n2: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """The two matrices of the module docstring, and the order of the bins.

    Returns
    -------
    inner : (n1, n2, n2), for each a its rows: c = 0, c = n2/2, then real and imaginary of the others
    outer : (n2/2, 2·n1, 2·n1), for each c real over imaginary, both ways; the first: c = 0 and n2/2
    bins : (n2/2, n1). Bins 0 and N/2 are left out: no mel filter weighs them. One place is spare and
        stays 0
    """
    n, half = n1 * n2, n2 // 2
    a, b = np.arange(n1), np.arange(n2)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * (n1 * b + a[:, None]) / n)  # (n1, n2)
    inner = np.empty((n1, n2, n2))
    inner[:, 0], inner[:, 1] = hann, hann * (-1.0) ** b
    real_dft = np.exp(-2j * np.pi * np.outer(np.arange(1, half), b) / n2)
    inner[:, 2::2] = hann[:, None] * real_dft.real
    inner[:, 3::2] = hann[:, None] * real_dft.imag

    c, d = np.arange(half)[:, None], np.arange(n1)
    twiddles = np.exp(-2j * np.pi * a * (c / n + d / n1)[..., None])  # (n2/2, n1 of d, n1 of a)
    outer = np.block([[twiddles.real, -twiddles.imag], [twiddles.imag, twiddles.real]])
    bins = np.where(c + n2 * d <= n // 2, c + n2 * d, n - c - n2 * d)
    # c = 0 and c = n2/2 are real, so half of their bins mirror the other half: both fit in one place.
    zeroth, middle = np.arange(1, (n1 + 1) // 2), np.arange(n1 // 2)
    outer[0], bins[0] = 0.0, 0
    for first, at_c, rows in ((0, 0, zeroth), (zeroth.size, half, middle)):
        into = np.exp(-2j * np.pi * a * (at_c / n + rows[:, None] / n1))
        columns = slice(0, n1) if at_c == 0 else slice(n1, 2 * n1)
        outer[0, first : first + rows.size, columns] = into.real
        outer[0, n1 + first : n1 + first + rows.size, columns] = into.imag
        bins[0, first : first + rows.size] = at_c + n2 * rows
    return inner, outer, bins
