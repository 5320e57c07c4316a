"""Writes ONNX files with the contract and the origin of each member in their metadata."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch

from birdkit.contract import INPUT_NAME, LOG_MEL_NAME, Contract
from birdkit.errors import UserError
from export.models.fuse import Fused, contract_of
from export.models.members import Checkpoints
from train.models.sed import Predictor

OPSET = 18
MADE_BY_KEY = "birdkit.made_by"  # metadata of a model file: member → what made it


def write_members(checkpoints: Checkpoints, names: Sequence[str], path: Path) -> None:
    """One file of one or more members of a run, with the metadata that belongs to them."""
    predictors = [checkpoints.finals[name].predictor() for name in names]
    contract = contract_of(checkpoints.finals, names)
    provenance = {name: checkpoints.made_by(name) for name in names}
    metadata = {**contract.to_metadata(), MADE_BY_KEY: json.dumps(provenance)}
    write(predictors, contract, path, metadata)


def write(
    predictors: Sequence[Predictor], contract: Contract, path: Path, metadata: Mapping[str, str]
) -> None:
    """One file of one or more members: dynamic batch, weights inside, `metadata` as its properties.

    Raises `UserError` where torch can't export the network, as with some attention.
    """
    # The exporter would take a batch of one for a constant.
    example = torch.zeros(2, contract.input_samples)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own exporter raises them
        try:
            torch.onnx.export(
                Fused(predictors).eval(),
                (example,),
                path,
                input_names=[INPUT_NAME],
                output_names=[LOG_MEL_NAME, *contract.tensors],
                dynamic_shapes={INPUT_NAME: {0: torch.export.Dim("batch", min=1)}},
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise UserError(
                f"{path.stem}: torch can't export this network to ONNX; train a convolutional encoder"
            ) from error
    model = onnx.load(path)
    refuse_training_mode(model, path.name)
    # The log-mel was an output only to get a name; an engine would copy it in every call.
    assert model.graph.output[0].name == LOG_MEL_NAME
    del model.graph.output[0]
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.save(model, path)


def refuse_training_mode(model: onnx.ModelProto, name: str) -> None:
    """Raise `UserError` for a BatchNorm in training mode, which OpenVINO would accept silently."""
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "training_mode" and attribute.i == 1:
                raise UserError(f"{name}: {node.op_type} is in training mode; export in eval mode")


def read_metadata(path: Path) -> dict[str, str]:
    """The properties of an ONNX file."""
    model = onnx.load(path, load_external_data=False)
    return {entry.key: entry.value for entry in model.metadata_props}


def made_by(path: Path) -> dict[str, dict[str, Any]]:
    """Member → what made it, from an ONNX file's metadata; empty where an older file does not say."""
    return dict(json.loads(read_metadata(path).get(MADE_BY_KEY, "{}")))


def trained_on(folder: Path, stems: Sequence[str]) -> frozenset[str] | None:
    """Names of the soundscapes that trained some member; None where an older file does not say."""
    names: set[str] = set()
    for stem in stems:
        members = made_by(folder / f"{stem}.onnx")
        if not members or not all("trained_on" in of for of in members.values()):
            return None
        names.update(*(of["trained_on"] for of in members.values()))
    return frozenset(names)


def front_end_alone(folder: Path, stem: str, scratch: Path) -> Path:
    """The part of a file's graph from waveform to log-mel, as an ONNX file in `scratch`."""
    target = scratch / f"{folder.name}-{stem}-front-end.onnx"
    source = folder / f"{stem}.onnx"
    onnx.utils.extract_model(str(source), str(target), [INPUT_NAME], [LOG_MEL_NAME])
    return target
