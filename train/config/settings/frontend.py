"""Mel settings of the front end."""

from __future__ import annotations

from dataclasses import dataclass

from birdkit.errors import UserError
from train.config.settings.checks import share


@dataclass(frozen=True)
class FrontEnd:
    """The log-mel."""

    sample_rate: int = 32000
    """Hz; one for the whole run."""
    n_fft: int = 2048
    """Samples of a frame; even."""
    hop: int = 512
    """Samples from frame to frame; 313 frames for 5 s."""
    n_mels: int = 128
    """Mel bands."""
    fmin_hz: float = 50.0
    """Lower end of the lowest band."""
    fmax_hz: float = 16000.0
    """Upper end of the highest band."""
    subtract_mean: float = 0.0
    """Share of each band's mean over the chunk that is subtracted: it removes steady noise and the
    colour of a recorder or a place."""

    def __post_init__(self) -> None:
        if not 0 < self.hop <= self.n_fft:
            raise UserError(f"frontend.hop {self.hop} must be in 1..n_fft ({self.n_fft})")
        if self.n_fft % 2:
            raise UserError(f"frontend.n_fft {self.n_fft} must be even; take {self.n_fft + 1}")
        share("frontend.subtract_mean", self.subtract_mean)
        if not 0 <= self.fmin_hz < self.fmax_hz <= self.sample_rate / 2:
            raise UserError(
                f"frontend: 0 <= fmin_hz < fmax_hz <= sample_rate/2 does not hold for "
                f"{self.fmin_hz:g}, {self.fmax_hz:g} Hz at {self.sample_rate} Hz"
            )
