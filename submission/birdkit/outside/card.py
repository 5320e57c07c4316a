"""The card of a model from outside: a JSON beside its file that says what it hears and answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from birdkit.errors import UserError
from birdkit.files import is_plain, write_whole
from birdkit.tables import read_json

CARD_SUFFIX = ".outside.json"
CARD_VERSION = 1
KINDS = {"onnx": ".onnx", "tflite": ".tflite"}  # kind → suffix of the model file
SCALINGS = ("none", "peak")
ACTIVATIONS = ("sigmoid", "softmax", "none")


@dataclass(frozen=True)
class Card:
    """What a model from outside hears, and what it answers.

    It hears `window_s` seconds at `sample_rate` Hz. `scaling` is "none", or "peak": the window's mean
    is removed and its peak scaled to `peak`, as Perch v2 wants it. The tensors `input`, `output` and
    `embedding` (empty where it has none) are named as in the file. `activation` makes probabilities of
    the output: "sigmoid" or "softmax" of logits, "none" where it holds them already. `labels` are the
    output's columns in order.
    """

    name: str  # what people read, such as "BirdNET 2.4"
    kind: str
    sample_rate: int
    window_s: float
    input: str
    output: str
    labels: tuple[str, ...]
    activation: str
    embedding: str = ""
    scaling: str = "none"
    peak: float = 0.25
    licence: str = "not stated"
    source: str = "not stated"
    version: int = CARD_VERSION

    @property
    def samples(self) -> int:
        """Samples of one input."""
        return round(self.window_s * self.sample_rate)

    def fault(self) -> str:
        """The first value that no model can have, by name; empty where there is none."""
        for key, value, known in (
            ("kind", self.kind, tuple(KINDS)),
            ("scaling", self.scaling, SCALINGS),
            ("activation", self.activation, ACTIVATIONS),
            ("version", self.version, (CARD_VERSION,)),
        ):
            if value not in known:
                return f"{key} '{value}' is none of {', '.join(map(str, known))}"
        if not (self.sample_rate > 0 and 0.1 <= self.window_s <= 60 and 0 < self.peak <= 1):
            return (
                f"sample_rate {self.sample_rate}, window_s {self.window_s} and peak {self.peak} must "
                "be above 0, from 0.1 to 60 and from 0 to 1"
            )
        return "" if self.labels else "labels names nothing"

    def save(self, path: Path, **more: Any) -> None:
        """Write a card, with further keys for those who read them."""
        write_whole(path, f"{json.dumps(asdict(self) | more, indent=1)}\n".encode())


def load(path: Path) -> Card:
    """Read a card. Raises `UserError` for one that is absent, unreadable or contradicts itself."""
    values = read_json(path)
    known = {field.name for field in fields(Card)}
    try:
        given = {key: value for key, value in values.items() if key in known}
        card = Card(**given | {"labels": tuple(map(str, given["labels"]))})
        fault = card.fault()
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: is no card of a model ({error}); docs/outside.md has one") from error
    if fault:
        raise UserError(f"{path}: {fault}; mend it")
    return card


def card_of(folder: Path, stem: str) -> Path:
    """The path of a model's card in a folder; it is there for models from outside alone."""
    return folder / f"{stem}{CARD_SUFFIX}"


def model_file(path: Path, kind: str) -> Path:
    """The model file beside the card at `path`."""
    return path.with_name(path.name.removesuffix(CARD_SUFFIX) + KINDS[kind])


def outside_stems(folder: Path, stems: Sequence[str]) -> list[str]:
    """Those of a folder's models that come from outside."""
    return [stem for stem in stems if is_plain(stem) and card_of(folder, stem).is_file()]
