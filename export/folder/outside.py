"""Members from outside in a model folder: their files, cards and golden answers."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from birdkit.contract import Contract
from birdkit.detections.species import TAXONOMY_NAME
from birdkit.engines import golden
from birdkit.engines.layout import one_stream
from birdkit.errors import UserError
from birdkit.outside.card import Card, card_of, model_file
from birdkit.outside.labels import ClassMap, match
from birdkit.outside.member import MappedEngine, contract_for, save_member
from birdkit.outside.model import open_with
from birdkit.scoring.ensemble import Spec, common_contract
from birdkit.tables import read_csv
from export.models import onnx
from train.rounds import class_table

# Where a file runs in several engines, the one whose answers are recorded: as for the kit's models.
RECORDED_IN = {"onnx": "onnxruntime", "tflite": "litert"}


def contract_of(folder: Path, spec: Spec) -> Contract:
    """What the kit's own models of a folder share."""
    if not spec.stems:
        raise UserError(f"{folder}: holds no model of the kit's own; export one with export/to_onnx.py")
    metadata = {stem: onnx.read_metadata(folder / f"{stem}.onnx") for stem in spec.stems}
    return common_contract({stem: Contract.from_metadata(of, stem) for stem, of in metadata.items()})


def trained_on(folder: Path, spec: Spec) -> frozenset[str] | None:
    """Names of the soundscapes that trained one of the kit's own models."""
    return onnx.trained_on(folder, spec.stems)


def names_of(folder: Path, data: Path | None, classes: Sequence[str]) -> dict[str, str]:
    """Class → scientific name, from the data folder, else from what the model folder keeps of one."""
    own = folder / TAXONOMY_NAME
    if data is not None:
        named = class_table.names_of([data])["scientific_name"].fillna("").to_dict()
    elif own.is_file():
        table = read_csv(own)
        named = dict(zip(table["primary_label"], table["scientific_name"], strict=True))
    else:
        raise UserError(f"{folder}: has no {TAXONOMY_NAME} with scientific names; give --data DIR")
    return {name: str(named.get(name, "")) for name in classes}


def mapped(card: Card, names: Mapping[str, str], synonyms: Sequence[tuple[str, str]]) -> ClassMap:
    """The labels of each class. Raises `UserError` where the model knows none of them."""
    classes = match(card.labels, names, synonyms)
    if not classes.known.any():
        raise UserError(f"{card.name}: {classes}; give the scientific names of its labels")
    return classes


def write(  # six arguments: a member has a name, a file, and what is known of it
    folder: Path, name: str, card: Card, file: Path, classes: ClassMap, kit: Contract
) -> None:
    """Copy a model into a folder, with its card and its golden answers; it has to run here."""
    path = card_of(folder, name)
    target = model_file(path, card.kind)
    model = open_with(card, file, one_stream(1), RECORDED_IN[card.kind])
    contract = contract_for(card, kit)
    shutil.copyfile(file, target)
    save_member(path, card, classes, contract)
    golden.record(folder, name, "f32", MappedEngine(model, classes, contract))
