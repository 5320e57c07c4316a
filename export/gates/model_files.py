"""Writes model files, and compares each with the model that it was made from.

An ONNX file is compared with its checkpoints in torch, an IR with its ONNX file in ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from birdkit.engines import golden
from birdkit.engines.engine import Engine, OnnxRuntimeEngine, OpenVinoEngine
from birdkit.engines.layout import one_stream, usable_cores
from birdkit.errors import UserError
from birdkit.log import timed
from export.gates import parity
from export.gates.parity import Parity
from export.models import onnx, openvino
from export.models.members import Checkpoints
from train.models.checkpoint import Final
from train.scoring.evaluate import TorchEngine

EngineClass = type[OnnxRuntimeEngine] | type[OpenVinoEngine]
ENGINES: tuple[EngineClass, ...] = (OnnxRuntimeEngine, OpenVinoEngine)


def export_stem(
    checkpoints: Checkpoints,
    stem: str,
    names: Sequence[str],
    folder: Path,
    recordings: Sequence[Path],
) -> dict[str, list[Parity]]:
    """Write the ONNX file of these members into `folder`; each member's comparison in every engine."""
    path = folder / f"{stem}.onnx"
    with timed(f"{path.name} written"):
        onnx.write_members(checkpoints, names, path)
    golden.record(folder, stem, "f32", OnnxRuntimeEngine(path, one_stream(1)))
    return against_torch({name: checkpoints.finals[name] for name in names}, path, recordings)


def convert_stem(folder: Path, stem: str, recordings: Sequence[Path]) -> dict[str, Parity]:
    """Write an IR beside an ONNX file of `folder`; each member's comparison."""
    source, target = folder / f"{stem}.onnx", folder / f"{stem}.xml"
    if not source.is_file():
        raise UserError(f"{source}: not found; run export/to_onnx.py again")
    with timed(f"{target.name} written"):
        openvino.write_ir(source, target)
    return against_onnx(source, target, recordings)


def against_torch(
    finals: Mapping[str, Final], path: Path, recordings: Sequence[Path]
) -> dict[str, list[Parity]]:
    """Compare each member of an exported file with its checkpoint, in every engine."""
    inputs = parity.probe_inputs(next(iter(finals.values())).contract, recordings)
    engines = {engine.name: _opened(engine, path) for engine in ENGINES}
    answered = {name: parity.answers(engine, inputs) for name, engine in engines.items()}
    report: dict[str, list[Parity]] = {}
    for member, final in finals.items():
        reference = parity.answers(TorchEngine(final.predictor(), torch.device("cpu")), inputs)
        report[member] = [
            parity.compare(reference, engine.contract.of_member(answered[name], member), name)
            for name, engine in engines.items()
        ]
    return report


def _opened(engine: EngineClass, path: Path) -> Engine:
    """A model file in an engine. Raises `UserError` where the engine does not take its graph."""
    try:
        return engine(path, one_stream(usable_cores()))
    except RuntimeError as error:  # of which OpenVINO says the reason last, and where in its code first
        why = str(error).strip().splitlines()[-1].strip("- ")
        raise UserError(
            f"{path.stem}: {engine.name} can't run this network ({why}); train another encoder, or one "
            "that hears more mels"
        ) from error


def against_onnx(source: Path, target: Path, recordings: Sequence[Path]) -> dict[str, Parity]:
    """Compare each member of an IR in OpenVINO with its ONNX file in ONNX Runtime."""
    layout = one_stream(usable_cores())
    original, converted = OnnxRuntimeEngine(source, layout), OpenVinoEngine(target, layout)
    contract = original.contract
    inputs = parity.probe_inputs(contract, recordings)
    reference, candidate = parity.answers(original, inputs), parity.answers(converted, inputs)
    return {
        member: parity.compare(
            contract.of_member(reference, member), contract.of_member(candidate, member), "openvino-ir"
        )
        for member in contract.members or (source.stem,)
    }
