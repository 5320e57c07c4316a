"""What a run leaves on disk: states to go on from, final weights that rebuild themselves.

A checkpoint is a dict of tensors and plain values, read with `weights_only=True`: no pickle of a
stranger is ever run.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from birdkit.contract import Contract
from birdkit.errors import UserError
from birdkit.files import sha256 as sha256
from train.config import recipe as recipes
from train.config.settings import Recipe
from train.data.competition import Competition
from train.models.sed import Predictor

VERSION = 3
STATE_NAME = "state.pt"
FINAL_NAME = "final.pt"
RECIPE_NAME = "recipe.json"  # of a run, written once all its models are final
ROUND_NAME = "round{}"  # folder of a round in a run
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class MadeBy:
    """What an artefact depends on. Equal means: nothing to do again."""

    recipe: str  # of one model, resolved, as JSON
    data: str  # fingerprint of the competition folders
    parents: dict[str, str] = field(default_factory=dict)  # what else it was made of → its sha256

    def differences(self, other: MadeBy) -> str:
        """What the two were made by that is not the same, in words; "" where nothing is."""
        names = [] if _same_recipe(self.recipe, other.recipe) else ["recipe"]
        names += [] if self.data == other.data else ["data"]
        every = sorted(self.parents.keys() | other.parents.keys())
        names += [name for name in every if self.parents.get(name) != other.parents.get(name)]
        return " and ".join(names)


def _same_recipe(one: str, other: str) -> bool:
    """Equal once read: a setting that the kit has learnt since counts as its default."""
    if one == other:
        return True
    try:
        return recipes.from_dict(json.loads(one), "") == recipes.from_dict(json.loads(other), "")
    except UserError:  # of a kit whose settings had other names
        return False


@dataclass(frozen=True)
class Final:
    """A trained model as it is exported: the averaged weights, and the facts that rebuild it."""

    contract: Contract
    made_by: MadeBy
    weights_from: str
    commit: str
    metrics: dict[str, dict[str, float]]  # set of data → output → macro-AUC
    state: dict[str, Tensor]
    trained_on: tuple[str, ...] = ()  # soundscapes, by file name

    @property
    def recipe(self) -> Recipe:
        return recipes.from_dict(json.loads(self.made_by.recipe), "checkpoint")

    def save(self, path: Path) -> None:
        write(path, {"version": VERSION, **asdict(self)})

    @classmethod
    def load(cls, path: Path) -> Final:
        """Raises `UserError` for a file that is absent, unreadable or of another version."""
        facts = read(path)
        try:
            contract = dict(facts["contract"])
            contract["classes"] = tuple(contract["classes"])
            contract["outputs"] = tuple(contract["outputs"])
            return cls(
                contract=Contract(**contract),
                made_by=MadeBy(**facts["made_by"]),
                weights_from=facts["weights_from"],
                commit=facts["commit"],
                metrics=facts["metrics"],
                state=facts["state"],
                trained_on=tuple(facts["trained_on"]),
            )
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}: not a final checkpoint ({error!r}); train it again") from error

    def predictor(self) -> Predictor:
        """The model in eval mode, rebuilt from the recipe and loaded strictly."""
        recipe = self.recipe
        predictor = Predictor(recipe.frontend, recipe.models[0], self.contract)
        predictor.load_state_dict(self.state, strict=True)
        return predictor.eval()


def write(path: Path, facts: dict[str, Any]) -> None:
    """Atomic and durable: a kill at any moment leaves the old file or the whole new one."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        torch.save(facts, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path}: no checkpoint there; train one with train/run.py")
    try:
        facts = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and torch each fail in their own way
        raise UserError(f"{path}: not a checkpoint ({type(error).__name__}); train it again") from error
    version = facts.get("version") if isinstance(facts, dict) else None
    if version != VERSION:
        raise UserError(
            f"{path}: checkpoint version {version}, this kit reads {VERSION}; train it again"
        )
    return dict(facts)


def data_fingerprint(competition: Competition) -> str:
    """Of the tables and of every recording's name and size: what training reads, without decoding."""
    digest = hashlib.sha256()
    for root in competition.roots:
        for name in ("taxonomy.csv", "train.csv", "train_soundscapes_labels.csv"):
            path = root / name
            digest.update(path.read_bytes() if path.is_file() else b"absent")
    paths = [r.path for r in competition.recordings] + [s.path for s in competition.soundscapes]
    for path in paths:
        # Names below the folder: where it lies does not matter.
        below = next(path.relative_to(root) for root in competition.roots if root in path.parents)
        digest.update(f"{below} {path.stat().st_size}\n".encode())
    return digest.hexdigest()


def commit() -> str:
    """The checkout's commit, marked where it has changes; "unknown" outside a checkout."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
