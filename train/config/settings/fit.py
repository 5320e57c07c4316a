"""Settings of the optimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from train.config.settings.ranges import LARGEST_SEED, FolderName, Range, Share


@dataclass(frozen=True)
class FocalGroup:
    """Exponents of the focal loss for the classes of a group, in place of `fit.focal_…`."""

    group: str = ""
    """The group, as class_name of taxonomy.csv has it, such as "Amphibia"."""
    positive: Annotated[float, Range(0, 10)] = 2.0
    """Exponent on classes of the group that are present."""
    negative: Annotated[float, Range(0, 10)] = 2.0
    """Exponent on absent classes of the group."""


@dataclass(frozen=True)
class Fit:
    """The optimisation."""

    epochs: Annotated[int, Range(1, 10_000)] = 15
    """Epochs; the models are validated after each."""
    steps_per_epoch: Annotated[int, Range(0, 1_000_000)] = 0
    """Steps of an epoch; 0: as many as draw each recording once on average."""
    min_steps_per_epoch: Annotated[int, Range(0, 1_000_000)] = 0
    """Steps of an epoch at least, where these follow the number of recordings: for few recordings."""
    batch: Annotated[int, Range(2, 4096)] = 32
    """Samples of a step, of all processes and micro-batches together."""
    accumulate: Annotated[int, Range(1, 4096)] = 1
    """Micro-batches of a step, one after another, for batches that no memory holds at once; each is
    normalised (batch norm) by itself."""
    compile: bool = False
    """Compile the network with torch.compile: minutes before the first step, and faster ones then. In
    one process only."""
    lr: Annotated[float, Range(0, 1)] = 1e-3
    """Peak learning rate of AdamW: linear warm-up, then half a cosine down to 0."""
    weight_decay: Annotated[float, Range(0, 10)] = 1e-2
    """Weight decay of AdamW."""
    warmup: Share = 0.1
    """Share of the steps that warm up."""
    ema_decay: Share = 0.999
    """Decay of the moving average of the weights, which is what is validated and exported."""
    average_from: Share = 1.0
    """From this share of the steps on the rate stays constant and the plain mean of the weights is
    kept, in place of the moving average (https://arxiv.org/abs/1803.05407)."""
    loss: Literal["bce", "focal", "auc", "bce+auc", "cross_entropy"] = "bce"
    """Loss on segmentwise and on frames: BCE of each class; "focal" BCE, in which what is nearly right
    counts less; a smooth "auc" over pairs, alone or beside BCE; "cross_entropy" over the classes."""
    focal_positive: Annotated[float, Range(0, 10)] = 2.0
    """Exponent of the focal loss on classes that are present; 0: each counts in full."""
    focal_negative: Annotated[float, Range(0, 10)] = 2.0
    """Exponent of the focal loss on absent classes; a larger one than on present ones is asymmetric."""
    focal_groups: tuple[FocalGroup, ...] = ()
    """Exponents for groups of classes."""
    clipwise_loss: Literal["logits", "probability"] = "logits"
    """Loss on clipwise: the write-up's, which takes a probability for a logit, or proper BCE."""
    clipwise_weight: Share = 0.5
    """Weight of the loss on clipwise; the rest is on segmentwise."""
    framewise: Share = 0.0
    """Share of the loss on segmentwise that is put on every frame, each with the labels of the whole
    chunk; the maximum over time alone teaches only the loudest frame."""
    mixmax: Annotated[float, Range(0, 10)] = 0.0
    """Weight of the MixMax consistency: halves of the batch are mixed in pairs, in a forward pass of
    their own, and what is said of a mix should be the maximum of what is said of its two parts."""
    distil_weight: Share = 0.0
    """Share of the loss that is on a teacher's embeddings of the same audio, for which the encoder's
    features are projected; 1: on these alone, so that a later round, `warm`, learns the classes."""
    distil_from: Annotated[str, FolderName(optional=True)] = ""
    """Name among [[teachers]] whose embeddings are learnt; the first of them where empty."""
    grad_clip: Annotated[float, Range(0, 1000)] = 5.0
    """Largest norm of the gradient; 0: no limit."""
    amp: Literal["auto", "bf16", "fp16", "f32"] = "auto"
    """Arithmetic of training: "bf16", "fp16", "f32", or "auto", the fastest that the device has."""
    checkpoint_every_s: Annotated[float, Range(0, 86_400)] = 120.0
    """Seconds between two saved states, besides one an epoch."""
    seed: Annotated[int, Range(0, LARGEST_SEED)] = 0
    """Seed of everything that is random."""
