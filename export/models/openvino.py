"""Writes OpenVINO IR. `export/gates` checks that it answers as its source does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from birdkit.contract import Contract
from birdkit.engines import wheels
from birdkit.engines.openvino_graphs import contract_of
from birdkit.scoring import ensemble

openvino = wheels.obtain("openvino")


def write_ir(source: Path, target: Path) -> None:
    """An ONNX file as an IR of the same numbers."""
    save(read(source), target)


def read(path: Path) -> Any:
    """An ONNX file or an IR as an OpenVINO graph."""
    return openvino.Core().read_model(path)


def save(model: Any, target: Path) -> None:
    """Save an IR without the compression to fp16 that is OpenVINO's default."""
    openvino.save_model(model, target, compress_to_fp16=False)


def common_contract(folder: Path, stems: Sequence[str]) -> Contract:
    """The contract of a folder's IRs; that of the longest chunk where they differ in it."""
    return ensemble.common_contract(
        {stem: contract_of(read(folder / f"{stem}.xml"), stem) for stem in stems}
    )
