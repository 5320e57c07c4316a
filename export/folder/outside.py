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
from birdkit.outside.member import MappedEngine, Membership
from birdkit.outside.model import open_with
from birdkit.outside.runners import with_output
from birdkit.scoring.ensemble import Spec, common_contract
from birdkit.tables import read_csv
from export.models import onnx
from train.config.job import Job
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


def job_of(folder: Path, spec: Spec) -> Job:
    """What the first of the kit's own models of a folder was trained with."""
    path = folder / f"{spec.stems[0]}.onnx"
    table = next((of["job"] for of in onnx.made_by(path).values() if of.get("job")), None)
    if table is None:
        raise UserError(f"{path}: does not say what it was trained with; export it again")
    return Job.from_table(table, str(path))


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


def mapped(
    card: Card, names: Mapping[str, str], synonyms: Sequence[tuple[str, str]], *, learns: bool
) -> ClassMap:
    """The labels of each class. Raises `UserError` where the model knows none and learns none."""
    classes = match(card.labels, names, synonyms)
    if not (classes.known.any() or learns):
        raise UserError(f"{card.name}: {classes}; give the scientific names of its labels")
    return classes


def write(folder: Path, name: str, file: Path, member: Membership) -> None:
    """Copy a model into a folder, with its card, probe and golden answers; it has to run here."""
    path = card_of(folder, name)
    target = model_file(path, member.card.kind)
    if member.probe is not None and member.card.kind == "tflite":
        # A submission has nothing that could make an output of a tensor inside the graph.
        target.write_bytes(with_output(file, member.card.embedding))
    else:
        shutil.copyfile(file, target)
    probed = member.probe is not None
    model = open_with(member.card, target, one_stream(1), RECORDED_IN[member.card.kind], probed)
    member.save(path)
    golden.record(folder, name, "f32", MappedEngine(model, member))
