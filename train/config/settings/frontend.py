"""Mel settings of the front end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from birdkit.errors import UserError
from train.config.settings.ranges import Range, Share


@dataclass(frozen=True)
class FrontEnd:
    """The log-mel."""

    sample_rate: Annotated[int, Range(1000, 500_000)] = 32000
    """Hz; one for the whole run."""
    n_fft: Annotated[int, Range(16, 16_384)] = 2048
    """Samples of a frame; even."""
    hop: Annotated[int, Range(16, 16_384)] = 512
    """Samples from frame to frame; 313 frames for 5 s."""
    n_mels: Annotated[int, Range(8, 1024)] = 128
    """Mel bands."""
    fmin_hz: Annotated[float, Range(0, 250_000)] = 50.0
    """Lower end of the lowest band."""
    fmax_hz: Annotated[float, Range(1, 250_000)] = 16000.0
    """Upper end of the highest band."""
    subtract_mean: Share = 0.0
    """Share of each band's mean over the chunk that is subtracted: it removes steady noise and the
    colour of a recorder or a place."""

    def __post_init__(self) -> None:
        if self.hop > self.n_fft:
            raise UserError(f"frontend.hop {self.hop} is above frontend.n_fft {self.n_fft}; lower it")
        if self.n_fft % 2:
            raise UserError(f"frontend.n_fft {self.n_fft} must be even; take {self.n_fft + 1}")
        if not self.fmin_hz < self.fmax_hz <= self.sample_rate / 2:
            raise UserError(
                f"frontend: fmin_hz < fmax_hz <= sample_rate/2 does not hold for "
                f"{self.fmin_hz:g}, {self.fmax_hz:g} Hz at {self.sample_rate} Hz"
            )
