"""Writes OpenVINO IR. Whether it still answers as its source does is for `export/gates` to say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from birdkit.contract import Contract
from birdkit.engines.openvino_graphs import contract_of, import_openvino
from birdkit.scoring import ensemble

openvino = import_openvino()


def write_ir(source: Path, target: Path) -> None:
    """An ONNX file as an IR of the same numbers."""
    save(read(source), target)


def read(path: Path) -> Any:
    """An ONNX file or an IR as an OpenVINO graph."""
    return openvino.Core().read_model(path)


def save(model: Any, target: Path) -> None:
    """Without compression to fp16, which OpenVINO does by default."""
    openvino.save_model(model, target, compress_to_fp16=False)


def common_contract(folder: Path, stems: Sequence[str]) -> Contract:
    """The contract of a folder's IRs; that of the longest chunk where they differ in it."""
    return ensemble.common_contract(
        {stem: contract_of(read(folder / f"{stem}.xml"), stem) for stem in stems}
    )
