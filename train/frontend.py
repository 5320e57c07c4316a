"""Waveform → log-mel picture, as products of matrices: the kit's only DSP, inside the exported graph.

An STFT operator does not export to every engine, and a DFT written as one convolution costs more
than the network behind it. So the DFT is factorised, as Cooley and Tukey do, into two small products.
With N = n1 × n2 samples a frame, sample n = n1·b + a and bin k = c + n2·d:

    X[c + n2·d] = Σ_a e^(-2πi·a·d/n1) · ( e^(-2πi·a·c/N) · Σ_b x[n1·b + a] e^(-2πi·b·c/n2) )

The window and the inner twiddles fold into n1 matrices, one for each a; the outer sum is one real
product over stacked real and imaginary parts, for the bins up to N/2 only.
"""

from __future__ import annotations

import math

import librosa
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from train.recipe import FrontEnd

# Mel power below this is silence: -140 dB, under the noise of 16-bit audio.
POWER_FLOOR = 1e-14
# The picture shows this many dB below a chunk's loudest bin.
RANGE_DB = 80.0
# Frames are cut as slices where this many make one: faster than a gather, but a node each.
MOST_SLICES = 16


class LogMel(nn.Module):
    """(batch, samples) in [-1, 1] → (batch, 1, mels, frames) in [0, 1].

    The mel power is librosa's (Slaney's scale and norm, Hann window, frames centred, zeros beyond the
    ends), in dB below the chunk's peak, so that the gain of a recorder does not matter. Digital
    silence is 0. Always computed in f32: in bf16 the mel would be off by up to 21 dB.
    """

    def __init__(self, config: FrontEnd) -> None:
        super().__init__()
        self.config = config
        n_fft = config.n_fft
        self.n1, self.n2 = _factor(n_fft)
        inner, outer = _dft_factors(self.n1, self.n2)
        mel = librosa.filters.mel(
            sr=config.sample_rate,
            n_fft=n_fft,
            n_mels=config.n_mels,
            fmin=config.fmin_hz,
            fmax=config.fmax_hz,
            dtype=np.float64,
        )
        self.inner: Tensor
        self.outer: Tensor
        self.mel: Tensor
        # Constants follow from the config, so a checkpoint does not hold them.
        self.register_buffer("inner", torch.tensor(inner, dtype=torch.float32), persistent=False)
        self.register_buffer("outer", torch.tensor(outer, dtype=torch.float32), persistent=False)
        mel_t = torch.tensor(mel.T.copy(), dtype=torch.float32)
        self.register_buffer("mel", mel_t, persistent=False)

    def n_frames(self, n_samples: int) -> int:
        return 1 + n_samples // self.config.hop

    def forward(self, waveform: Tensor) -> Tensor:
        with torch.autocast(waveform.device.type, enabled=False):
            return to_picture(self.mel_power(waveform.float()))

    def mel_power(self, waveform: Tensor) -> Tensor:
        """(batch, samples) → (batch, mels, frames), power."""
        frames = self._frames(waveform)  # (batch, frames, n_fft)
        batch, n_frames, n_fft = frames.shape
        rows = batch * n_frames
        by_residue = frames.reshape(rows, self.n2, self.n1).permute(2, 0, 1)  # (n1, rows, n2)
        inner = torch.matmul(by_residue, self.inner)  # (n1, rows, 2·n2): real, imaginary
        stacked = inner.reshape(self.n1, rows, 2, self.n2).permute(2, 0, 1, 3)
        flat = stacked.reshape(2 * self.n1, rows * self.n2)
        real, imag = torch.matmul(self.outer, flat).chunk(2)  # (n1/2 + 1, rows·n2) each
        power = (real * real + imag * imag).reshape(-1, rows, self.n2).permute(1, 0, 2)
        bins = power.reshape(batch, n_frames, -1)[:, :, : n_fft // 2 + 1]
        return torch.matmul(bins, self.mel).transpose(1, 2)

    def _frames(self, waveform: Tensor) -> Tensor:
        """(batch, samples) → (batch, frames, n_fft), centred, zeros beyond the ends."""
        n_fft, hop = self.config.n_fft, self.config.hop
        n_frames = self.n_frames(waveform.shape[-1])
        # Slices of blocks as long as hop and n_fft allow; a whole hop where it divides n_fft.
        block = math.gcd(hop, n_fft)
        needed = (n_frames - 1) * hop + n_fft
        tail = max(0, -(-needed // block) * block - waveform.shape[-1] - n_fft // 2)
        padded = nn.functional.pad(waveform, (n_fft // 2, tail))
        n_blocks = needed // block
        blocks = padded[:, : n_blocks * block].reshape(-1, n_blocks, block)
        stride, per_frame = hop // block, n_fft // block
        if per_frame <= MOST_SLICES:
            last = (n_frames - 1) * stride + 1
            return torch.cat([blocks[:, j : j + last : stride] for j in range(per_frame)], dim=-1)
        first = torch.arange(n_frames, device=waveform.device)[:, None] * stride
        index = first + torch.arange(per_frame, device=waveform.device)
        return blocks[:, index].reshape(-1, n_frames, n_fft)


def to_picture(mel_power: Tensor) -> Tensor:
    """(batch, mels, frames) power → (batch, 1, mels, frames) in [0, 1]: dB below the peak."""
    level_db = 10.0 * torch.log10(mel_power.clamp(min=POWER_FLOOR))
    silence_db = 10.0 * math.log10(POWER_FLOOR)
    top_db = level_db.amax(dim=(1, 2), keepdim=True).clamp(min=silence_db + RANGE_DB)
    return ((level_db - top_db) / RANGE_DB + 1.0).clamp(min=0.0).unsqueeze(1)


def _factor(n: int) -> tuple[int, int]:
    """n = n1 · n2 with n1 <= n2, as near to each other as n allows (1 · n for a prime)."""
    n1 = next(d for d in range(math.isqrt(n), 0, -1) if n % d == 0)
    return n1, n // n1


def _dft_factors(n1: int, n2: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The inner (n1, n2, 2·n2) and outer (2·(n1//2 + 1), 2·n1) real matrices of the module text."""
    n = n1 * n2
    a = np.arange(n1)[:, None, None]
    b = np.arange(n2)[None, :, None]
    c = np.arange(n2)[None, None, :]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * (n1 * b + a) / n)
    inner = hann * np.exp(-2j * np.pi * (a * c / n + b * c / n2))
    d = np.arange(n1 // 2 + 1)[:, None]
    outer = np.exp(-2j * np.pi * d * np.arange(n1)[None, :] / n1)
    # (re + i·im) · (x + i·y) as one real product on [x; y].
    outer_real = np.block([[outer.real, -outer.imag], [outer.imag, outer.real]])
    return np.concatenate([inner.real, inner.imag], axis=2), outer_real
