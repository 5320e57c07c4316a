"""Settings of augmentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from birdkit.errors import UserError
from train.config.settings.ranges import Range, Share

Decibels = Annotated[float, Range(-60, 100)]
Speed = Annotated[float, Range(0.5, 2)]
Contrast = Annotated[float, Range(0, 4)]


@dataclass(frozen=True)
class Augment:
    """What training does to a chunk."""

    mixup: Share = 0.5
    """Share of the chunks mixed with another recording; the target is the union of both labels."""
    mixup_gain_db: Annotated[float, Range(0, 60)] = 6.0
    """Largest difference of the two levels."""
    afar: Share = 0.0
    """Share of the recordings made to sound distant: low-passed and reverberated."""
    equalise: Share = 0.0
    """Share of the recordings with random gains over frequency, as of another recorder or place."""
    equalise_db: Annotated[float, Range(0, 60)] = 12.0
    """Largest of those gains and losses."""
    speed: Share = 0.0
    """Share of the recordings played faster or slower, which moves their pitch and their time alike."""
    speed_range: tuple[Speed, Speed] = (0.9, 1.1)
    """Range of that speed; 1 is the recording's own."""
    noise: Share = 0.5
    """Share of the chunks with coloured noise added."""
    noise_snr_db: tuple[Decibels, Decibels] = (0.0, 30.0)
    """Range of that noise's signal-to-noise ratio."""
    background: Share = 0.0
    """Share of the chunks with a background added: a crop of an unlabelled soundscape, or of a
    recording in background_folder. The target stays what it was."""
    background_folder: str = ""
    """A folder of recordings without any of the classes, searched with all folders below it; the
    unlabelled soundscapes where empty, whose own birds then have no label."""
    background_snr_db: tuple[Decibels, Decibels] = (3.0, 20.0)
    """Range of the chunk's level over the background's."""
    contrast: Share = 0.0
    """Share of the chunks whose log-mel deviates more or less from each band's mean, by a random factor
    that is smooth over the bands; other than a gain it also acts under frontend.subtract_mean."""
    contrast_range: tuple[Contrast, Contrast] = (0.6, 1.4)
    """Range of that factor; 1 changes nothing."""
    freq_masks: Annotated[int, Range(0, 100)] = 2
    """Masks over mel bands (SpecAugment)."""
    freq_mask_share: Share = 0.12
    """Largest share of the mel bands under one mask."""
    time_masks: Annotated[int, Range(0, 100)] = 2
    """Masks over frames (SpecAugment)."""
    time_mask_share: Share = 0.1
    """Largest share of the frames under one mask."""

    def __post_init__(self) -> None:
        for name in ("noise_snr_db", "speed_range", "background_snr_db", "contrast_range"):
            lowest, highest = getattr(self, name)
            if lowest > highest:
                raise UserError(f"augment.{name} {[lowest, highest]}: put the lower one first")
