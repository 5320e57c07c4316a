"""Checkpoints: states that a run resumes from, and final weights with all that rebuilds the model.

A checkpoint is a dict of tensors and plain values. It is read with `weights_only=True`, so that no
foreign pickle code is ever run.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from birdkit.contract import Contract
from birdkit.errors import UserError
from birdkit.files import replacing
from birdkit.files import sha256 as sha256
from train.config.job import Job, from_version_3
from train.models.sed import Predictor, over_stretches

VERSION = 4  # 3 is read, too: it held a recipe with one model where this one holds a job
STATE_NAME = "state.pt"
FINAL_NAME = "final.pt"
HISTORY_NAME = "history.json"  # losses and figures of each epoch
RECIPE_NAME = "recipe.json"  # the run's recipe, written once all its models are final
ROUND_NAME = "round{}"  # folder of a round in a run
COMMIT_NAME = "commit.txt"  # in a bundle, which is no checkout
ROOT = Path(__file__).resolve().parents[2]


def made_by(job: Job, data: str, parents: Mapping[str, str]) -> dict[str, Any]:
    """The inputs that a checkpoint depends on.

    Parameters
    ----------
    data : fingerprint of the competition folders
    parents : name of any other input → its sha256
    """
    return {"job": job.table(), "data": data, "parents": dict(parents)}


@dataclass(frozen=True)
class Final:
    """A trained model as it is exported: the averaged weights, and all that rebuilds it."""

    contract: Contract
    made_by: dict[str, Any]
    weights_from: str
    commit: str
    metrics: dict[str, dict[str, float]]  # set of data → output → macro-AUC
    state: dict[str, Tensor]
    trained_on: tuple[str, ...] = ()  # soundscapes, by file name
    taught_by: tuple[str, ...] = ()  # teachers from outside, its own and its teachers', with licences

    @property
    def job(self) -> Job:
        return Job.from_table(self.made_by["job"], "checkpoint")

    def save(self, path: Path) -> None:
        write(path, {"version": VERSION, **asdict(self)})

    @classmethod
    def load(cls, path: Path) -> Final:
        """Raises `UserError` for a file that is absent, unreadable or of another version."""
        content = read(path)
        try:
            contract = dict(content["contract"])
            contract["classes"] = tuple(contract["classes"])
            contract["outputs"] = tuple(contract["outputs"])
            return cls(
                contract=Contract(**contract),
                made_by=content["made_by"],
                weights_from=content["weights_from"],
                commit=content["commit"],
                metrics=content["metrics"],
                state=content["state"],
                trained_on=tuple(content["trained_on"]),
                taught_by=tuple(content.get("taught_by", ())),  # kits before it had no such teachers
            )
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}: not a final checkpoint ({error!r}); train it again") from error

    def only(self, classes: Sequence[str]) -> Final:
        """The model cut to some of its classes, in their own order; the others lose their rows."""
        kept = [row for row, name in enumerate(self.contract.classes) if name in set(classes)]
        contract = replace(self.contract, classes=tuple(self.contract.classes[row] for row in kept))
        state = {key: v[kept] if ".att_block." in key else v for key, v in self.state.items()}
        return replace(self, contract=contract, state=state)

    def over_stretches(self, stretch_s: float | None = None) -> Final:
        """The same model where it hears stretches.

        Parameters
        ----------
        stretch_s : None takes the job's own, by which it was validated; 0 hears a window at a time
        """
        stretch_s = self.job.postprocess.stretch_s if stretch_s is None else stretch_s
        if not stretch_s:
            return replace(self, contract=self.contract.windowed)
        job, windowed = self.job, self.contract.windowed
        return replace(self, contract=over_stretches(job.frontend, job.model, windowed, stretch_s))

    def predictor(self) -> Predictor:
        """The model in eval mode, rebuilt from its job and loaded strictly."""
        job = self.job
        predictor = Predictor(job.frontend, job.model, self.contract)
        predictor.load_state_dict(self.state, strict=True)
        return predictor.eval()


def write(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint atomically: a kill at any moment leaves the old file or the whole new one."""
    with replacing(path) as file:
        torch.save(content, file)


def read(path: Path) -> dict[str, Any]:
    """A checkpoint's content; version 3 is converted. Raises `UserError` for any other file."""
    if not path.is_file():
        raise UserError(f"{path}: no checkpoint there; train one with train/run.py")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and torch each fail in their own way
        raise UserError(f"{path}: not a checkpoint ({type(error).__name__}); train it again") from error
    version = content.get("version") if isinstance(content, dict) else None
    if version not in (3, VERSION):
        raise UserError(
            f"{path}: checkpoint version {version}, this kit reads 3 and {VERSION}; train it again"
        )
    try:
        origin = content["made_by"] if version == VERSION else _of_version_3(content["made_by"])
        return content | {"made_by": origin | {"job": _of_today(origin["job"])}}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: does not say what made it ({error!r}); train it again") from error


def _of_version_3(origin: Mapping[str, Any]) -> dict[str, Any]:
    job, removed = from_version_3(json.loads(origin["recipe"]))
    converted = {"job": job, "data": origin["data"], "parents": origin["parents"]}
    return converted | ({"removed settings": removed} if removed else {})


def _of_today(job: dict[str, Any]) -> dict[str, Any]:
    """A job's table with the defaults of settings that are newer than the checkpoint."""
    try:
        return Job.from_table(job, "checkpoint").table()
    except UserError:  # its kit had other settings, so it differs from any job of today
        return job


def commit() -> str:
    """The commit of the checkout or bundle, marked where it had changes; "unknown" outside of both."""
    if (ROOT / COMMIT_NAME).is_file():
        return (ROOT / COMMIT_NAME).read_text().strip()
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
