"""Settings of augmentation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Augment:
    """What training does to a chunk."""

    mixup: float = 0.5
    """Share of the chunks mixed with another recording; the target is the union of both labels."""
    mixup_gain_db: float = 6.0
    """Largest difference of the two levels."""
    afar: float = 0.0
    """Share of the recordings made to sound distant: low-passed and reverberated."""
    noise: float = 0.5
    """Share of the chunks with coloured noise added."""
    noise_snr_db: tuple[float, float] = (0.0, 30.0)
    """Range of that noise's signal-to-noise ratio."""
    freq_masks: int = 2
    """Masks over mel bands (SpecAugment)."""
    freq_mask_share: float = 0.12
    """Largest share of the mel bands under one mask."""
    time_masks: int = 2
    """Masks over frames (SpecAugment)."""
    time_mask_share: float = 0.1
    """Largest share of the frames under one mask."""
