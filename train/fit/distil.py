"""Distillation of a teacher's embeddings: a linear projection of the encoder's features learns them.

The projection is a part of the training alone. It is no part of the model, of its checkpoint, or of
what is exported.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity


class Projection(nn.Module):
    """What the encoder made of a log-mel → an embedding of the teacher's size.

    (batch, features, mels, frames) → (batch, embedding), from the mean over mels and frames.
    """

    def __init__(self, n_features: int, n_embedding: int) -> None:
        super().__init__()
        self.linear = nn.Linear(n_features, n_embedding)

    def forward(self, encoded: Tensor) -> Tensor:
        projected: Tensor = self.linear(encoded.mean(dim=(2, 3)))
        return projected


def cosine_loss(embedding: Tensor, target: Tensor) -> Tensor:
    """Mean of 1 − cosine over the rows of two tensors (batch, embedding).

    A row of the target with NaN in it is unknown and doesn't count; without a known row the loss is 0.
    """
    known = ~torch.isnan(target).any(dim=1)
    target = torch.where(known[:, None], target, 1.0)  # a zero vector would have no direction
    distance = 1.0 - cosine_similarity(embedding.float(), target.float())
    return (distance * known).sum() / known.sum().clamp(min=1)
