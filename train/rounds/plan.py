"""The plan of a run: its rounds, their models and folders."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from birdkit.contract import Contract
from birdkit.errors import UserError
from birdkit.kaggle import mounts
from train.config import recipe as recipes
from train.config.job import Job, job_of
from train.config.settings import OutsideTeacher, Recipe, Round
from train.data.dataset import Dataset
from train.models import checkpoint, pretrained
from train.models.sed import Predictor

RUNS = Path(__file__).resolve().parents[2] / "runs"


@dataclass(frozen=True)
class Member:
    """A model that a round trains."""

    name: str
    job: Job
    folder: Path
    start: Path | None = None  # the checkpoint that it goes on from

    @property
    def final(self) -> Path:
        return self.folder / checkpoint.FINAL_NAME


@dataclass(frozen=True)
class Stage:
    """A round, its folder and its models."""

    index: int
    round: Round
    folder: Path
    members: tuple[Member, ...]

    @property
    def draws_soundscapes(self) -> bool:
        """Whether pseudo-labelled windows are among the samples of some model."""
        return any(self.draws(member) for member in self.members)

    def draws(self, member: Member) -> bool:
        """Whether pseudo-labelled windows are among the samples of a model."""
        return bool(self.round.teacher) and member.job.pseudo.share > 0

    def teachers(self, before: Stage | None) -> list[Member]:
        """The models of the round before that teach this one."""
        members = before.members if before else ()
        return [member for member in members if member.name in self.round.teacher]

    def outside(self, before: Stage | None) -> list[str]:
        """The names of the teachers from outside that teach it."""
        models = {member.name for member in self.teachers(before)}
        return [name for name in self.round.teacher if name not in models]


def stages(recipe: Recipe, out: Path) -> list[Stage]:
    """The rounds of a run in `out`. Raises `UserError` for settings that a model can't have."""
    every: list[Stage] = []
    for index, this_round in enumerate(recipes.rounds_of(recipe)):
        folder = out / checkpoint.ROUND_NAME.format(index)
        starts = {m.name: m.final for m in every[-1].members} if every and this_round.warm else {}
        members = tuple(
            Member(name, job_of(recipe, index, name), folder / name, starts.get(name))
            for name in this_round.models
        )
        every.append(Stage(index, this_round, folder, members))
        _know_classes(every)
    return every


def wanted_teachers(recipe: Recipe, every: Sequence[Stage]) -> dict[str, OutsideTeacher]:
    """The teachers from outside that some round names, or whose embeddings some model learns."""
    used: set[str] = set()
    for stage, before in zip(every, [None, *every], strict=False):
        used |= set(stage.outside(before)) if stage.draws_soundscapes else set()
        used |= {member.job.fit.distil_from for member in stage.members}
    return {name: own for name, own in recipes.teachers_of(recipe).items() if name in used}


def _know_classes(every: Sequence[Stage]) -> None:
    """Raise `UserError` where a teacher of the last of these rounds has learnt embeddings alone."""
    stage, before = every[-1], every[-2] if every[1:] else None
    for teacher in stage.teachers(before) if stage.draws_soundscapes else ():
        if teacher.job.fit.distil_weight == 1.0:
            raise UserError(
                f"round {stage.index}: its teacher {teacher.name} learns embeddings alone and no class "
                "(fit.distil_weight = 1); name one of [[teachers]], or set pseudo.share = 0"
            )


def without_soundscapes(
    recipe: Recipe, every: list[Stage], dataset: Dataset
) -> tuple[Recipe, list[Stage], list[str]]:
    """The recipe and its stages as far as data without soundscapes allows, and a line on the others.

    Where there is a folder of soundscapes every round stays.
    """
    if any(mounts.train_soundscapes(root).is_dir() for root in dataset.competition.roots):
        return recipe, every, []
    for stage in every:
        validating = stage.round.pseudo.validating
        if stage.draws_soundscapes and not dataset.soundscapes(validating=validating):
            names = ", ".join(str(later.index) for later in every[stage.index :])
            why = f"there are no unlabelled soundscapes ({mounts.TRAIN_SOUNDSCAPES[0]}/) to label"
            kept = tuple(recipes.rounds_of(recipe)[: stage.index])
            if not kept:
                raise UserError(f"round 0: {why}; add them, or remove the round's teacher")
            left_out = [f"round {names} of the recipe is left out: {why}"]
            return replace(recipe, rounds=kept), every[: stage.index], left_out
    return recipe, every, []


def build_models(jobs: Sequence[Job], *, weights: bool) -> None:
    """Build the models of these jobs, so that no mistake in one shows after hours.

    Parameters
    ----------
    weights : whether to load their first weights, too, which may download them
    """
    for job in {(job.frontend, replace(job.model, name="")): job for job in jobs}.values():
        # Any class does here, so that the data need not be read first.
        contract = Contract(job.frontend.sample_rate, job.data.chunk_s, job.data.window_s, ("any",))
        with torch.device("cpu" if weights else "meta"):  # which has shapes and no values
            predictor = Predictor(job.frontend, job.model, contract)
        if weights:
            pretrained.start(predictor, job.model)


def latest_run() -> Path:
    """The run of runs/ that was finished last. Raises `UserError` where there is none."""
    finished = sorted(RUNS.glob(f"*/{checkpoint.RECIPE_NAME}"), key=lambda path: path.stat().st_mtime)
    if not finished:
        raise UserError(f"{RUNS}: no finished run; train one with train/run.py")
    return finished[-1].parent


def is_finished(run: Path) -> bool:
    """Whether a run was finished: its recipe is written last."""
    return (run / checkpoint.RECIPE_NAME).is_file()


def finished(folder: Path) -> Stage:
    """The last round of a finished run, or the round whose folder is given.

    Raises `UserError` where the run is not finished.
    """
    is_round = re.fullmatch(checkpoint.ROUND_NAME.format(r"\d+"), folder.name) is not None
    run = folder.parent if is_round else folder
    path = run / checkpoint.RECIPE_NAME
    if not is_finished(run):
        raise UserError(
            f"{run}: no {checkpoint.RECIPE_NAME}, so no finished run; finish it with "
            "train/run.py, or give another RUN_DIR"
        )
    every = stages(recipes.from_json(path.read_text(), str(path)), run)
    if not is_round:
        return every[-1]
    matching = [stage for stage in every if stage.folder.name == folder.name]
    if not matching:
        raise UserError(f"{folder}: the run's recipe has {len(every)} rounds, the first of them 0")
    return matching[0]
