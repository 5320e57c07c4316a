"""Settings of the optimisation."""

from __future__ import annotations

from dataclasses import dataclass

from birdkit.errors import UserError
from train.config.settings.checks import share


@dataclass(frozen=True)
class Fit:
    """The optimisation."""

    epochs: int = 15
    """Epochs; the models are validated after each."""
    steps_per_epoch: int = 0
    """Steps of an epoch; 0: as many as draw each recording once on average."""
    min_steps_per_epoch: int = 0
    """Steps of an epoch at least, where these follow the number of recordings: for few recordings."""
    batch: int = 32
    """Samples of a step."""
    lr: float = 1e-3
    """Peak learning rate of AdamW: linear warm-up, then half a cosine down to 0."""
    weight_decay: float = 1e-2
    """Weight decay of AdamW."""
    warmup: float = 0.1
    """Share of the steps that warm up."""
    ema_decay: float = 0.999
    """Decay of the moving average of the weights, which is what is validated and exported."""
    average_from: float = 1.0
    """From this share of the steps on the rate stays constant and the plain mean of the weights is
    kept, in place of the moving average (https://arxiv.org/abs/1803.05407)."""
    clipwise_weight: float = 0.5
    """Weight of the loss on clipwise; the rest is on segmentwise."""
    framewise: float = 0.0
    """Share of the loss on segmentwise that is put on every frame, each with the labels of the whole
    chunk; the maximum over time alone teaches only the loudest frame."""
    grad_clip: float = 5.0
    """Largest norm of the gradient; 0: no limit."""
    amp: str = "auto"
    """Arithmetic of training: "bf16", "fp16", "f32", or "auto", the fastest that the device has."""
    checkpoint_every_s: float = 120.0
    """Seconds between two saved states, besides one an epoch."""
    seed: int = 0
    """Seed of everything that is random."""

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 2:
            raise UserError("fit: needs epochs >= 1 and batch >= 2")
        if self.steps_per_epoch < 0 or self.min_steps_per_epoch < 0:
            raise UserError("fit: needs steps_per_epoch >= 0 and min_steps_per_epoch >= 0")
        share("fit.average_from", self.average_from)
        share("fit.framewise", self.framewise)
