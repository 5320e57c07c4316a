"""Losses on clipwise, on segmentwise and on every frame, and the sum of them that is trained.

The default is that of the 6th place of BirdCLEF+ 2025. Each loss takes logits and targets of one shape,
(batch, classes) or (batch, classes, frames), where a target of NaN is unknown and doesn't count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    softplus,
)

from train.config.settings import Fit

Answers = tuple[Tensor, Tensor]  # clipwise probabilities and framewise logits


@dataclass(frozen=True)
class Exponents:
    """Of the focal loss, (classes,) each, or (1,) where all classes have the same."""

    positive: Tensor
    negative: Tensor

    @classmethod
    def of(
        cls, fit: Fit, classes: Sequence[str] = (), groups: Mapping[str, str] | None = None
    ) -> Exponents:
        """Those of `fit`, by each class's group where `fit.focal_groups` has some."""
        known = {each.group: (each.positive, each.negative) for each in fit.focal_groups}
        rest = fit.focal_positive, fit.focal_negative
        of_classes = [known.get((groups or {}).get(name, ""), rest) for name in classes if known]
        return cls(*torch.tensor(of_classes or [rest]).T)

    def to(self, device: torch.device) -> Exponents:
        return Exponents(self.positive.to(device), self.negative.to(device))


Loss = Callable[[Tensor, Tensor, Exponents], Tensor]


def sed_loss(
    answers: Answers, targets: Tensor, fit: Fit, exponents: Exponents, soft_clipwise: bool
) -> Tensor:
    """The weighted sum of the losses on clipwise, segmentwise and, by `fit.framewise`, every frame.

    Parameters
    ----------
    answers : clipwise, (batch, classes) probabilities, and framewise, (batch, classes, frames) logits;
        segmentwise is their maximum over time
    targets : (batch, classes) in 0..1 for the whole chunk; NaN is unknown and doesn't count
    soft_clipwise : whether targets between 0 and 1 count in the loss on clipwise, too
    """
    loss, (clipwise, framewise) = LOSSES[fit.loss], answers
    on_clipwise = clipwise_loss(clipwise, targets, soft_clipwise, fit.clipwise_loss == "logits")
    on_segmentwise = loss(framewise.max(dim=2)[0], targets, exponents)
    if fit.framewise:
        on_frames = loss(framewise, targets[:, :, None].expand_as(framewise), exponents)
        on_segmentwise = (1.0 - fit.framewise) * on_segmentwise + fit.framewise * on_frames
    return fit.clipwise_weight * on_clipwise + (1.0 - fit.clipwise_weight) * on_segmentwise


def clipwise_loss(
    clipwise: Tensor, target: Tensor, soft: bool = True, as_logits: bool = True
) -> Tensor:
    """BCE of probabilities, both (batch, classes); cells whose target is NaN don't count.

    With `as_logits` it is BCE*WithLogits*, which is formally wrong for what is a probability already.
    The write-up of the 6th place of BirdCLEF+ 2025 kept it because it raised the leaderboard score. As
    a consequence clipwise values are small, their ranking is good, and targets of 0.5 or less pull them
    to 0. Unless `soft`, targets between 0 and 1 don't count here either; segmentwise learns them.
    """
    known = ~torch.isnan(target)
    if not soft:
        known &= (target == 0.0) | (target == 1.0)
    if as_logits:
        return _known_bce(clipwise, target, known)
    probability = clipwise.float().clamp(0.0, 1.0)  # a mean by attention exceeds 1 by rounding
    return binary_cross_entropy(probability, torch.nan_to_num(target), known.float())


def bce(logit: Tensor, target: Tensor, exponents: Exponents) -> Tensor:
    """Binary cross entropy of each class by itself."""
    return _known_bce(logit, target, ~torch.isnan(target))


def focal(logit: Tensor, target: Tensor, exponents: Exponents) -> Tensor:
    """BCE in which cells that are nearly right count less, by the exponents of their classes.

    A cell counts by |target − probability| to the power of an exponent, which a soft target takes from
    between both: the quality focal loss (Li et al. 2020, https://arxiv.org/abs/2006.04388). For hard
    labels one exponent is the focal loss (Lin et al. 2017, https://arxiv.org/abs/1708.02002), a larger
    one of the absent classes the asymmetric loss without its margin (Ridnik et al. 2021,
    https://arxiv.org/abs/2009.14119).
    """
    known, given, logit = ~torch.isnan(target), torch.nan_to_num(target), logit.float()
    of_class = (-1, *[1] * (logit.ndim - 2))  # frames come after classes
    positive, negative = exponents.positive.view(of_class), exponents.negative.view(of_class)
    exponent = given * positive + (1 - given) * negative
    wrong = (given - torch.sigmoid(logit)).abs().clamp(min=1e-6)  # of 0 a small power has no gradient
    of_cells = binary_cross_entropy_with_logits(logit, given, reduction="none")
    return (wrong**exponent * of_cells * known).mean()


def soft_auc(logit: Tensor, target: Tensor, exponents: Exponents) -> Tensor:
    """For each class, how far pairs of a present and an absent chunk are from being in order.

    A pair costs softplus(absent − present), as in RankNet (Burges et al. 2005, ICML); over ln 2 that
    is a bound of 1 − AUC. A soft target is present by its value and absent by the rest. Classes without
    a pair in the batch don't count.
    """
    known, logit = (~torch.isnan(target)).float(), logit.float()
    present = torch.nan_to_num(target) * known
    absent = (1 - torch.nan_to_num(target)) * known
    of_pair = present[:, None] * absent[None]
    cost = (of_pair * softplus(logit[None] - logit[:, None])).sum(dim=(0, 1))
    weight = of_pair.sum(dim=(0, 1))
    has_pairs = weight > 0
    # Chosen by `where`: to pick classes by a mask a GPU would be waited for.
    of_classes = torch.where(has_pairs, cost / weight.clamp(min=1e-6), 0.0)
    return of_classes.sum() / has_pairs.sum().clamp(min=1)


def bce_and_soft_auc(logit: Tensor, target: Tensor, exponents: Exponents) -> Tensor:
    """Their sum: order alone leaves the logits' level open."""
    return bce(logit, target, exponents) + soft_auc(logit, target, exponents)


def cross_entropy(logit: Tensor, target: Tensor, exponents: Exponents) -> Tensor:
    """Softmax over the known classes against the targets, whose sum counts as 1 where it is larger.

    A mean over cells, as BCE is, so that both are of one size. Inference takes the sigmoid of the same
    logits; softmax leaves a chunk's level free, from which macro-AUC, an order of chunks, may suffer.
    """
    known, given = ~torch.isnan(target), torch.nan_to_num(target)
    log_shares = logit.float().masked_fill(~known, -1e4).log_softmax(dim=1)
    return -(given / given.sum(dim=1, keepdim=True).clamp(min=1.0) * log_shares).mean()


def mixmax(mix: Answers, first: Answers, second: Answers, fit: Fit) -> Tensor:
    """BCE of what is said of mixes against the maximum of what is said of their two parts.

    A mix holds what is in either part, so a model that hears well says of it the maximum. The parts
    are the target and get no gradient: the mix is to be heard as the clean parts are.

    Parameters
    ----------
    mix, first, second : clipwise probabilities (mixes, classes), and framewise logits (mixes, classes,
        frames), of the mixes and of their two parts
    """
    clipwise, framewise = (
        torch.maximum(one.detach(), other.detach()).float()
        for one, other in zip(first, second, strict=True)
    )
    logit = framewise.amax(dim=2)
    on_clipwise = clipwise_loss(mix[0], clipwise.clamp(0.0, 1.0), as_logits=False)
    on_segmentwise = binary_cross_entropy_with_logits(mix[1].float().amax(dim=2), logit.sigmoid())
    return fit.clipwise_weight * on_clipwise + (1.0 - fit.clipwise_weight) * on_segmentwise


LOSSES: dict[str, Loss] = {
    "bce": bce,
    "focal": focal,
    "auc": soft_auc,
    "bce+auc": bce_and_soft_auc,
    "cross_entropy": cross_entropy,
}


def _known_bce(logit: Tensor, target: Tensor, known: Tensor) -> Tensor:
    return binary_cross_entropy_with_logits(logit.float(), torch.nan_to_num(target), known.float())
