"""A probe: a linear layer over a model's embedding, trained for the classes of a competition.

It answers for classes that the model's labels lack, and beside the labels for those that it knows.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from birdkit.activations import logit, sigmoid
from birdkit.errors import UserError
from birdkit.files import write_whole

SUFFIX = ".probe.npz"  # beside the card of a member


@dataclass(frozen=True)
class Probe:
    """Logits from the direction of an embedding, and how much they count beside the model's own.

    weights : (dims, classes) float32
    bias : (classes,) float32, NaN for a class that it was not taught
    share : its part of the mean of logits for a class that the model's labels name, too
    """

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    share: float

    @property
    def known(self) -> NDArray[np.bool_]:
        """(classes,): which classes it was taught."""
        return ~np.isnan(self.bias)

    def __call__(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """(windows, dims) → (windows, classes) logits, NaN for a class that it was not taught."""
        return np.asarray(directions(embeddings) @ self.weights + self.bias, dtype=np.float32)

    def beside(
        self, scores: NDArray[np.float32], embeddings: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """The model's own probabilities and the probe's as one.

        Parameters
        ----------
        scores : (windows, classes), NaN for a class that the labels lack
        embeddings : (windows, dims) of the same windows
        """
        return joined(scores, sigmoid(self(embeddings)), self.share)

    def save(self, path: Path) -> None:
        content = BytesIO()
        np.savez_compressed(content, weights=self.weights, bias=self.bias, share=self.share)
        write_whole(path, content.getvalue())

    @classmethod
    def load(cls, path: Path) -> Probe:
        """Read what `save` wrote. Raises `UserError` for a file that is absent or damaged."""
        try:
            with np.load(path) as kept:
                probe = cls(kept["weights"], kept["bias"], float(kept["share"]))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{path}: can't be read as a probe ({error}); add the member again"
            ) from error
        if probe.weights.ndim != 2 or probe.bias.shape != probe.weights.shape[1:]:
            raise UserError(
                f"{path}: has weights of shape {probe.weights.shape} and {probe.bias.shape} biases; "
                "add the member again"
            )
        return probe


def joined(own: NDArray[np.float32], probed: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    """Probabilities of two as one: the mean of their logits, and where one is NaN, the other.

    `share` is the part of `probed` in that mean.
    """
    mean = sigmoid((1.0 - share) * logit(own) + share * logit(probed))
    return np.where(np.isnan(own), probed, np.where(np.isnan(probed), own, mean))


def directions(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """(..., dims) embeddings of length 1, so that in a mean of several none counts for its length."""
    lengths = np.linalg.norm(embeddings, axis=-1, keepdims=True)
    return np.asarray(embeddings / np.maximum(lengths, 1e-9), dtype=np.float32)
