"""A small ONNX file of Perch v2's signature, and the same numbers in NumPy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from birdkit.outside.card import CARD_SUFFIX, Card
from birdkit.outside.presets import perch_v2

DIMS, PIECES = 1536, 10
LABELS = ("Parus major", "Turdus merula", "Hyla arborea", "Speech")


def card_of(labels: tuple[str, ...] = LABELS, **changes: Any) -> Card:
    return replace(perch_v2(labels), **changes)


def weights(n_labels: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    onto_embedding = rng.standard_normal((PIECES, DIMS)).astype(np.float32)
    return onto_embedding, rng.standard_normal((DIMS, n_labels)).astype(np.float32)


def answers(inputs: NDArray[np.float32], n_labels: int) -> tuple[NDArray[np.float32], ...]:
    """(n, samples) → embeddings (n, DIMS) and logits (n, labels), as the file answers."""
    onto_embedding, onto_labels = weights(n_labels)
    loudness = np.abs(inputs.reshape(len(inputs), PIECES, -1)).mean(axis=2)
    embeddings = loudness @ onto_embedding
    return embeddings, embeddings @ onto_labels


def write(folder: Path, card: Card, stem: str = "perch", *, scale: float = 1.0) -> Path:
    """Write the model file and its card; returns the card's path. `scale` NaN makes NaN answers."""
    onto_embedding, onto_labels = weights(len(card.labels))
    samples = 160_000
    values = {"e": onto_embedding, "l": onto_labels * np.float32(scale)}
    shape = np.array([-1, PIECES, samples // PIECES])
    nodes = [
        helper.make_node("Reshape", ["inputs", "shape"], ["pieces"]),
        helper.make_node("Abs", ["pieces"], ["loud"]),
        helper.make_node("ReduceMean", ["loud", "last"], ["loudness"], keepdims=0),
        helper.make_node("MatMul", ["loudness", "e"], ["embedding"]),
        helper.make_node("MatMul", ["embedding", "l"], ["label"]),
    ]
    tensors = [numpy_helper.from_array(of, name) for name, of in values.items()]
    tensors += [numpy_helper.from_array(shape, "shape"), numpy_helper.from_array(np.array([2]), "last")]
    graph = helper.make_graph(
        nodes,
        "stand-in",
        [helper.make_tensor_value_info("inputs", TensorProto.FLOAT, ["batch", samples])],
        [
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", DIMS]),
            helper.make_tensor_value_info("label", TensorProto.FLOAT, ["batch", len(card.labels)]),
        ],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, folder / f"{stem}.onnx")
    path = folder / f"{stem}{CARD_SUFFIX}"
    card.save(path)
    return path
