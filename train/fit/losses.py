"""The loss of the 6th place of BirdCLEF+ 2025 on clipwise and segmentwise, and one on every frame."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from train.config.settings import Fit


def sed_loss(
    clipwise: Tensor, framewise: Tensor, targets: Tensor, fit: Fit, soft_clipwise: bool
) -> Tensor:
    """The weighted sum of the losses on clipwise, segmentwise and, by `fit.framewise`, every frame.

    Parameters
    ----------
    clipwise : (batch, classes) probabilities
    framewise : (batch, classes, frames) logits; segmentwise is their maximum over time
    targets : (batch, classes) in 0..1 for the whole chunk; NaN is unknown and doesn't count
    soft_clipwise : whether targets between 0 and 1 count in the loss on clipwise, too
    """
    on_clipwise = clipwise_loss(clipwise, targets, soft_clipwise)
    on_segmentwise = logit_loss(framewise.max(dim=2)[0], targets)
    if fit.framewise:
        on_frames = logit_loss(framewise, targets[:, :, None].expand_as(framewise))
        on_segmentwise = (1.0 - fit.framewise) * on_segmentwise + fit.framewise * on_frames
    return fit.clipwise_weight * on_clipwise + (1.0 - fit.clipwise_weight) * on_segmentwise


def clipwise_loss(clipwise: Tensor, target: Tensor, soft: bool = True) -> Tensor:
    """BCEWithLogits, both (batch, classes); cells whose target is NaN don't count.

    Clipwise is a probability already, so BCE*WithLogits* is formally wrong for it. The write-up of the
    6th place of BirdCLEF+ 2025 kept it because it raised the leaderboard score. As a consequence
    clipwise values are small, their ranking is good, and targets of 0.5 or less pull them to 0. Unless
    `soft`, targets between 0 and 1 don't count here either; segmentwise learns them.
    """
    known = ~torch.isnan(target)
    if not soft:
        known &= (target == 0.0) | (target == 1.0)
    return _known_bce(clipwise, target, known)


def logit_loss(logit: Tensor, target: Tensor) -> Tensor:
    """BCE on segmentwise (batch, classes) or framewise (batch, classes, frames) logits.

    Cells whose target is NaN don't count.
    """
    return _known_bce(logit, target, ~torch.isnan(target))


def _known_bce(logit: Tensor, target: Tensor, known: Tensor) -> Tensor:
    return binary_cross_entropy_with_logits(logit.float(), torch.nan_to_num(target), known.float())
