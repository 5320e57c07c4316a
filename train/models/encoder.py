"""A timm model as encoder: from log-mel to features over time, before the head of its classifier."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn

from birdkit.errors import UserError, first_line
from train.config.settings import Model

# The stride of most timm backbones. Some need a log-mel whose sides are multiples of it.
STRIDE = 32
LENGTHS = (64 * STRIDE, 128 * STRIDE)  # of two log-mels whose features differ by whole strides
SILENCE = -1.0  # of a log-mel that spans -1 … 1


@dataclass(frozen=True)
class Features:
    """How to call an encoder: (batch, 1, mels, frames) → (batch, features, mels, frames)."""

    drop_rate: float
    before_head: bool = False  # leave its head out, which has a hidden layer behind the pooling
    padded: bool = False  # pad with silence to multiples of the stride

    def __call__(self, encoder: nn.Module, log_mel: Tensor) -> Tensor:
        if self.padded:
            n_mels, n_frames = log_mel.shape[2:]
            margins = (0, -n_frames % STRIDE, 0, -n_mels % STRIDE)
            log_mel = nn.functional.pad(log_mel, margins, value=SILENCE)
        if not self.before_head:
            # Called as a whole, for its forward_features would skip its dropout.
            return _channels_first(encoder, encoder(log_mel))
        x = encoder.forward_features(log_mel)  # type: ignore[operator]
        x = nn.functional.dropout(x, self.drop_rate, encoder.training)
        return _channels_first(encoder, x)


def build(config: Model, n_mels: int, n_frames: int) -> tuple[nn.Module, Features]:
    """The timm model with random weights, and how to call it.

    Raises
    ------
    UserError
        Where timm has no such model, or it gives no features over time for log-mels of this size.
    """
    if not timm.is_model(config.encoder):
        near = timm.list_models(f"*{config.encoder.partition('.')[0][:12]}*")[:5]
        raise UserError(
            f"models.encoder {config.encoder!r} is no timm model; near: {', '.join(near) or 'none'}"
        )
    features = probe(config.encoder, config.drop_rate, config.drop_path_rate, n_mels, n_frames)
    return _create(config.encoder, config.drop_rate, config.drop_path_rate), features


@functools.cache
def probe(name: str, drop_rate: float, drop_path_rate: float, n_mels: int, n_frames: int) -> Features:
    """How to call this encoder, found with shapes alone: tensors on the meta device hold no numbers."""
    with torch.device("meta"):
        encoder = _create(name, drop_rate, drop_path_rate).eval()
        log_mel = torch.zeros(1, 1, n_mels, n_frames)
    reason = ""
    for features in _ways(drop_rate):
        try:
            with torch.inference_mode():
                shape = features(encoder, log_mel).shape
        except Exception as error:  # models that need another size fail in a dozen ways of their own
            reason = reason or first_line(error)
            continue
        if len(shape) == 4 and shape[1] == encoder.num_features:
            return features
        reason = reason or f"it gives {tuple(shape)}"
    raise UserError(
        f"models.encoder {name!r} gives no features over time for a log-mel of {n_mels} mels × "
        f"{n_frames} frames ({reason}); choose a convolutional one such as tf_efficientnet_b3 or "
        "resnet18"
    )


@functools.cache
def stride(name: str, features: Features, n_mels: int) -> float:
    """Frames of the log-mel for each of the encoder's, found with shapes alone.

    By a difference: without padding at the ends, an encoder gives a little fewer.
    """
    few, many = LENGTHS
    with torch.device("meta"), torch.inference_mode():
        encoder = _create(name, 0.0, 0.0).eval()
        try:
            inputs = (torch.zeros(1, 1, n_mels, n_frames) for n_frames in (few, many))
            n_few, n_many = (features(encoder, log_mel).shape[3] for log_mel in inputs)
        except Exception as error:  # models of one size fail in a dozen ways of their own
            raise UserError(
                f"models.encoder {name!r} can't hear more than a chunk at once ({first_line(error)}); "
                "give stretches of 0 s"
            ) from error
    return (many - few) / (n_many - n_few)


def _ways(drop_rate: float) -> Iterator[Features]:
    for padded in (False, True):
        for before_head in (False, True):
            yield Features(drop_rate, before_head, padded)


def _create(name: str, drop_rate: float, drop_path_rate: float) -> nn.Module:
    arguments: dict[str, Any] = {"num_classes": 0, "in_chans": 1, "drop_rate": drop_rate}
    if drop_path_rate:
        arguments["drop_path_rate"] = drop_path_rate
    try:
        try:
            return timm.create_model(name, global_pool="", **arguments)
        except AssertionError:  # of models whose head can't do without its pooling
            return timm.create_model(name, **arguments)
    except Exception as error:  # timm's models refuse what they lack in a dozen ways of their own
        remedy = "it has no drop path: set models.drop_path_rate = 0"
        if "drop_path_rate" not in str(error):
            remedy = "choose another, such as tf_efficientnet_b3 or resnet18"
        raise UserError(
            f"models.encoder {name!r} can't be built ({first_line(error)}); {remedy}"
        ) from error


def _channels_first(encoder: nn.Module, x: Tensor) -> Tensor:
    """(batch, features, mels, frames), whichever order the encoder has."""
    return x.permute(0, 3, 1, 2) if getattr(encoder, "output_fmt", "") == "NHWC" else x
