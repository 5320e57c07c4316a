"""Settings of augmentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from birdkit.errors import UserError
from train.config.settings.ranges import Range, Share

Decibels = Annotated[float, Range(-60, 100)]


@dataclass(frozen=True)
class Augment:
    """What training does to a chunk."""

    mixup: Share = 0.5
    """Share of the chunks mixed with another recording; the target is the union of both labels."""
    mixup_gain_db: Annotated[float, Range(0, 60)] = 6.0
    """Largest difference of the two levels."""
    afar: Share = 0.0
    """Share of the recordings made to sound distant: low-passed and reverberated."""
    noise: Share = 0.5
    """Share of the chunks with coloured noise added."""
    noise_snr_db: tuple[Decibels, Decibels] = (0.0, 30.0)
    """Range of that noise's signal-to-noise ratio."""
    freq_masks: Annotated[int, Range(0, 100)] = 2
    """Masks over mel bands (SpecAugment)."""
    freq_mask_share: Share = 0.12
    """Largest share of the mel bands under one mask."""
    time_masks: Annotated[int, Range(0, 100)] = 2
    """Masks over frames (SpecAugment)."""
    time_mask_share: Share = 0.1
    """Largest share of the frames under one mask."""

    def __post_init__(self) -> None:
        if self.noise_snr_db[0] > self.noise_snr_db[1]:
            raise UserError(f"augment.noise_snr_db {list(self.noise_snr_db)}: put the lower one first")
