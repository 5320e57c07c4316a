"""A job: all the settings that one model of one round is trained with.

Trainer, batches, checkpoint, plan and export take a job, and never search a whole recipe.
Settings of other models and rounds are no part of it, so changing them does not retrain this model.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

from birdkit.contract import whole_windows
from birdkit.errors import UserError
from train.config.build import build, without_removed
from train.config.recipe import member_names, rounds_of
from train.config.settings import (
    Alarms,
    Augment,
    Data,
    Fit,
    FrontEnd,
    Model,
    Postprocess,
    Pseudo,
    Recipe,
    Round,
)
from train.config.settings.ranges import LARGEST_SEED

Section = TypeVar("Section", FrontEnd, Data, Augment, Fit, Pseudo, Postprocess)

# Distance between the seeds of rounds that go on from one another.
SEEDS_APART = 1000
# Settings that have one value for all models, because they share the data and the teacher's labels.
FOR_THE_RUN = {
    "frontend": ("sample_rate",),
    "data": ("window_s", "skip_bad", "duplicates", "classes", "labelled", "cache"),
    "fit": (),
    "augment": (),
    "postprocess": ("smoothing", "pooling"),
    "pseudo": ("output", "shifts", "out_of_fold", "validating", "alarms"),
}


@dataclass(frozen=True)
class Job:
    """Settings of one model of one round. `pseudo` counts in rounds with pseudo labels only."""

    recipe: str  # its name
    frontend: FrontEnd = field(default_factory=FrontEnd)
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    augment: Augment = field(default_factory=Augment)
    fit: Fit = field(default_factory=Fit)
    pseudo: Pseudo = field(default_factory=Pseudo)
    postprocess: Postprocess = field(default_factory=Postprocess)
    warm: bool = False
    # Models among which the soundscapes are divided, where pseudo labels are out of fold.
    folds_among: tuple[str, ...] = ()

    @property
    def seed(self) -> int:
        """Seed for one model: members of equal settings must not become equal weights."""
        return zlib.crc32(f"{self.fit.seed} {self.model.name}".encode())

    def table(self) -> dict[str, Any]:
        """The job as a table of JSON values."""
        return dict(json.loads(json.dumps(asdict(self))))

    @classmethod
    def from_table(cls, table: Mapping[str, Any], where: str) -> Job:
        """Read back what `table` gave. Raises `UserError` for unknown or removed settings."""
        return build(cls, table, where)


def job_of(recipe: Recipe, index: int, name: str) -> Job:
    """The job of a model in a round. Raises `UserError` for settings that a model can't have alone."""
    entry = recipe.models[member_names(recipe).index(name)]
    where = f"models.{name}"
    _refuse_settings_of_the_run(entry.__dict__, where)
    this_round, of_round = rounds_of(recipe)[index], f"rounds.{index}"
    _refuse_settings_of_the_run({"data": this_round.data}, of_round)
    job = Job(
        recipe=recipe.name,
        frontend=_override(recipe.frontend, entry.frontend, where),
        model=entry.model(name),
        data=_override(_override(recipe.data, entry.data, where), this_round.data, of_round),
        augment=_override(recipe.augment, entry.augment, where),
        fit=_override(_override(recipe.fit, entry.fit, where), this_round.fit, of_round),
        postprocess=_override(recipe.postprocess, entry.postprocess, where),
    )
    stretch_s, window_s = job.postprocess.stretch_s, job.data.window_s
    if stretch_s and not whole_windows(stretch_s, window_s):
        raise UserError(
            f"{where}: postprocess.stretch_s {stretch_s:g} is no multiple of data.window_s {window_s:g}"
        )
    return job if index == 0 else _later(job, this_round, index, entry.pseudo)


def _later(job: Job, this_round: Round, index: int, own_pseudo: Mapping[str, Any]) -> Job:
    """The same job in a round that has a teacher."""
    # Alarms look at the labels and change nothing in a student.
    pseudo = replace(_override(this_round.pseudo, own_pseudo, "models"), alarms=Alarms())
    fit = job.fit
    if this_round.warm:  # another seed, or the student would see the batches of its first weights again
        fit = replace(fit, seed=(fit.seed + SEEDS_APART * index) % (LARGEST_SEED + 1))
    among = this_round.models if pseudo.out_of_fold else ()
    return replace(job, pseudo=pseudo, fit=fit, warm=this_round.warm, folds_among=among)


def _override(section: Section, overrides: Mapping[str, Any], where: str) -> Section:
    """The section with some of its settings changed."""
    if not overrides:
        return section
    return build(type(section), asdict(section) | dict(overrides), where)


def _refuse_settings_of_the_run(entry: Mapping[str, Any], where: str) -> None:
    for section, keys in FOR_THE_RUN.items():
        for key in keys:
            if key in entry.get(section, {}):
                of_all = "the round's pseudo settings" if section == "pseudo" else f"[{section}]"
                raise UserError(
                    f"{where}.{section}.{key}: has one value for all models; set it in {of_all}"
                )


def from_version_3(recipe: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The job's table of a checkpoint of version 3, which held a recipe with one model and one round.

    Returns
    -------
    The table, and the removed settings that had an effect.
    """
    (model,), (own_round,) = recipe["models"], recipe["rounds"]
    pseudo, removed = without_removed("Pseudo", own_round["pseudo"])
    table = {key: recipe[key] for key in ("frontend", "data", "augment", "fit", "postprocess")}
    among = own_round["models"] if pseudo.get("out_of_fold") else []
    table |= {"recipe": recipe["name"], "model": model, "pseudo": pseudo}
    return table | {"warm": own_round.get("warm", False), "folds_among": among}, removed
