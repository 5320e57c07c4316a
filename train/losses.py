"""The write-up's loss, and that of a student on its teacher's answers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy, binary_cross_entropy_with_logits


def sed_loss(
    clipwise: Tensor,
    segmentwise: Tensor,
    target: Tensor,
    clipwise_weight: float,
    soft_clipwise: bool = True,
) -> Tensor:
    """BCEWithLogits on both outputs, all (batch, classes); cells whose target is NaN don't count.

    Clipwise is a probability already, so BCE*WithLogits* is wrong for it by the book; the write-up
    kept it because it raised the leaderboard score. A consequence: clipwise values come out small,
    their ranking is good, and targets of 0.5 or less pull them to 0. Without `soft_clipwise`, targets
    between 0 and 1 count for segmentwise alone, which takes them as they are.
    """
    known = (~torch.isnan(target)).float()
    target = torch.nan_to_num(target)
    certain = known * ((target == 0.0) | (target == 1.0)).float()
    heard = known if soft_clipwise else certain
    on_clipwise = binary_cross_entropy_with_logits(clipwise.float(), target, heard)
    on_segmentwise = binary_cross_entropy_with_logits(segmentwise.float(), target, known)
    return clipwise_weight * on_clipwise + (1.0 - clipwise_weight) * on_segmentwise


def distillation_loss(
    clipwise: Tensor,
    framewise_logit: Tensor,
    teacher_clipwise: Tensor,
    teacher_framewise: Tensor,
    clipwise_weight: float,
) -> Tensor:
    """BCE on a teacher's probabilities: clipwise (batch, classes), framewise (batch, classes, frames).

    On segmentwise, the maximum over time, the teacher would teach one frame alone. Its clipwise is
    what the student's is meant to be, so here it is taken as the probability that it is. Knowledge
    distillation, https://arxiv.org/abs/1503.02531, with the teacher hearing what the student hears,
    https://arxiv.org/abs/2106.05237.
    """
    # A rounded sum of shares can come out at 1 or above it.
    heard = clipwise.float().clamp(1e-7, 1.0 - 1e-7)
    with torch.autocast(clipwise.device.type, enabled=False):  # autocast refuses this loss
        on_clipwise = binary_cross_entropy(heard, teacher_clipwise)
    on_framewise = binary_cross_entropy_with_logits(framewise_logit.float(), teacher_framewise)
    return clipwise_weight * on_clipwise + (1.0 - clipwise_weight) * on_framewise
