"""What a run's folder holds for its report; what is absent or damaged becomes a note."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from birdkit.errors import UserError, first_line
from train.config import recipe as recipes
from train.config.settings import Pseudo, Recipe
from train.models import checkpoint
from train.rounds import class_table, plan, pseudo_labels
from train.rounds.alarms import alarms
from train.rounds.plan import Member, Stage
from train.scoring import summary
from train.scoring.summary import KEYS, Scored

ROUND = re.compile(checkpoint.ROUND_NAME.format(r"(\d+)"))
# Columns of the tables that the report reads, and those that hold text whatever they look like.
COLUMNS = {
    summary.SUMMARY_NAME: [*KEYS, "macro_auc", "n_scored"],
    summary.PER_CLASS_NAME: [*KEYS, "class", "n_positive", "auc"],
    class_table.NAME: ["class", "n_recordings", "n_windows", *class_table.NAMES],
}
TEXTS: Any = dict.fromkeys(("model", "set", "output", "class", *class_table.NAMES), str)
# Only an empty cell of a number is none: a class may be called NaN.
NUMBERS = ("macro_auc", "n_scored", "gain", "gain_low", "gain_high", "n_positive", "auc")
EMPTY = {name: [""] for name in (*NUMBERS, "n_recordings", "n_windows")}
Read = TypeVar("Read")
View = tuple[str, str]  # set and output


@dataclass(frozen=True)
class Model:
    """A model of a round; what is not there yet is empty."""

    name: str
    folder: Path
    encoder: str
    teachers: tuple[str, ...]  # models of the round before
    warm: bool
    progress: dict[str, Any]  # losses and epochs, as `train.fit.loop.Progress` has them
    origin: dict[str, Any]  # of its final checkpoint: made_by, commit, weights_from
    sha256: str  # of its final checkpoint


@dataclass(frozen=True)
class Labels:
    """The pseudo labels of a round."""

    summary: pseudo_labels.Summary
    alarms: list[str]
    failures: dict[str, str]  # soundscape → why it has no labels


@dataclass(frozen=True)
class Round:
    """A round of a run; its settings of pseudo labels are None where the run is not finished."""

    index: int
    models: list[Model]
    pseudo: Pseudo | None
    labels: Labels | None
    scored: dict[str, Scored]  # set → scores


@dataclass(frozen=True)
class Run:
    """A run with its tables; `notes` say what is absent and what makes it."""

    folder: Path
    name: str
    recipe: Recipe | None  # None where the run is not finished
    rounds: list[Round]
    models: pd.DataFrame  # summary.csv
    classes: pd.DataFrame  # per_class.csv
    names: pd.DataFrame | None  # classes.csv; kits before it wrote none
    notes: list[str]
    without_gain: tuple[int, ...] = ()  # rounds that had to gain and did not: the run ends before them

    def auc(self, index: int, model: str, view: View) -> dict[str, float]:
        """A row of summary.csv; empty where that model was not scored on that set and output."""
        table = self.models
        rows = table[(table["round"] == index) & (table["model"] == model)]
        rows = rows[(rows["set"] == view[0]) & (rows["output"] == view[1])]
        return dict(rows.iloc[0]) if len(rows) else {}


def read(folder: Path) -> Run:
    """Read a run, finished or not. Raises `UserError` for a folder without anything of a run."""
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; give the RUN_DIR of a run, as train/run.py names it"
        )
    indices = {int(found[1]) for path in folder.iterdir() if (found := ROUND.fullmatch(path.name))}
    if not indices:
        raise UserError(f"{folder}: holds no run; train one with train/run.py, or give its RUN_DIR")
    notes: list[str] = []
    recipe = _noted(notes, folder, _recipe)
    stages = {stage.index: stage for stage in plan.stages(recipe, folder)} if recipe else {}
    rounds: list[Round] = []
    for index in sorted(indices | set(stages)):
        path = folder / checkpoint.ROUND_NAME.format(index)
        rounds.append(_round(path, index, stages.get(index), rounds, notes))
    tables = {name: _noted(notes, folder / name, _table) for name in COLUMNS}
    if not (folder / class_table.NAME).is_file():
        notes.pop()  # the section on classes says so
    models, classes = (
        pd.DataFrame(columns=COLUMNS[name]) if table is None else table
        for name in (summary.SUMMARY_NAME, summary.PER_CLASS_NAME)
        for table in [tables[name]]
    )
    # What was scored, and is no round of the recipe that the run was finished with.
    without_gain = tuple(sorted(set(models["round"]) - set(stages))) if recipe else ()
    if without_gain:
        notes.append(
            f"round {without_gain[0]} is no part of the finished run, which ends with round "
            f"{len(stages) - 1}: a round that must gain (rounds.must_gain) and does not ends it"
        )
    names = tables[class_table.NAME]
    return Run(
        folder, folder.resolve().name, recipe, rounds, models, classes, names, notes, without_gain
    )


def read_all(folders: Sequence[Path]) -> list[Run]:
    """Read runs; where folders have one name, the folder above tells them apart.

    Raises `UserError` as `read` does, and for a run that is given twice.
    """
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UserError(f"{folders[0]}: given twice; name another run to compare it with")
    runs = [read(folder) for folder in folders]
    if len({run.name for run in runs}) == len(runs):
        return runs
    return [replace(r, name=f"{r.folder.resolve().parent.name}-{r.name}") for r in runs]


def _noted(notes: list[str], path: Path, of: Callable[[Path], Read]) -> Read | None:
    """What is read of a path, or None and a note why not."""
    try:
        return of(path)
    except UserError as error:
        notes.append(str(error))
    except (OSError, ValueError, KeyError, TypeError) as error:  # as files cut short or edited fail
        notes.append(f"{path}: can't be read ({type(error).__name__}: {first_line(error)})")
    return None


def _recipe(folder: Path) -> Recipe:
    path = folder / checkpoint.RECIPE_NAME
    if not path.is_file():
        raise UserError(
            f"{folder}: not finished, it has no {checkpoint.RECIPE_NAME}; the same train/run.py "
            "command goes on where it stopped, and until then teachers, alarms and "
            "settings are not shown"
        )
    try:
        return recipes.from_json(path.read_text(), str(path))
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({first_line(error)}); run train/run.py again") from error


def _table(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise UserError(
            f"{path.name}: not stored; the run's train/run.py command writes it and trains no "
            "finished model again"
        )
    try:
        table = pd.read_csv(path, dtype=TEXTS, keep_default_na=False, na_values=EMPTY)
    except ValueError as error:
        raise UserError(f"{path}: no table ({first_line(error)}); train/run.py writes it") from error
    if missing := [name for name in COLUMNS[path.name] if name not in table]:
        raise UserError(f"{path}: lacks the column {missing[0]}; train/run.py writes it")
    return table


def _round(
    folder: Path, index: int, stage: Stage | None, before: Sequence[Round], notes: list[str]
) -> Round:
    members = {member.name: member for member in stage.members} if stage else {}
    names = list(members) or sorted(p.name for p in folder.iterdir() if _holds_model(p))
    teachers = stage.round.teacher if stage and stage.draws_soundscapes else ()
    models = [_model(folder / name, members.get(name), teachers, notes) for name in names]
    pseudo = stage.round.pseudo if stage else None
    labels = _noted(notes, folder, partial(_labels, pseudo=pseudo, before=before))
    sets = {name: summary.scores_path(folder, name) for name in summary.scored_sets(folder)}
    scored = {name: _noted(notes, path, Scored.load) for name, path in sets.items()}
    return Round(index, models, pseudo, labels, {k: v for k, v in scored.items() if v is not None})


def _holds_model(folder: Path) -> bool:
    return any(
        (folder / name).is_file()
        for name in (checkpoint.STATE_NAME, checkpoint.FINAL_NAME, checkpoint.HISTORY_NAME)
    )


def _model(folder: Path, member: Member | None, teachers: tuple[str, ...], notes: list[str]) -> Model:
    origin: dict[str, Any] = {}
    sha256 = ""
    if (path := folder / checkpoint.FINAL_NAME).is_file():
        content = _noted(notes, path, checkpoint.read) or {}
        sha256 = checkpoint.sha256(path)
        origin = {k: content[k] for k in ("made_by", "commit", "weights_from") if k in content}
    job = origin.get("made_by", {}).get("job", {})
    encoder = member.job.model.encoder if member else job.get("model", {}).get("encoder", folder.name)
    warm = member is not None and member.start is not None
    progress = _progress(folder, notes)
    return Model(folder.name, folder, encoder, teachers, warm, progress, origin, sha256)


def _progress(folder: Path, notes: list[str]) -> dict[str, Any]:
    """The losses and figures of a training, of one that was interrupted, too."""
    if (path := folder / checkpoint.HISTORY_NAME).is_file():
        return _noted(notes, path, lambda path: dict(json.loads(path.read_text()))) or {}
    if (path := folder / checkpoint.STATE_NAME).is_file():
        return _noted(notes, path, lambda path: dict(checkpoint.read(path)["progress"])) or {}
    return {}


def _labels(folder: Path, *, pseudo: Pseudo | None, before: Sequence[Round]) -> Labels | None:
    """A round's labels as it summed them up; None in a round without any."""
    path, table_path = folder / pseudo_labels.SUMMARY_NAME, folder / pseudo_labels.NAME
    if not path.is_file() and not (table_path.is_file() and pseudo):
        return None
    table = pseudo_labels.read(table_path) if table_path.is_file() else None
    if path.is_file():
        now = _summary(path)
    else:
        assert table is not None
        assert pseudo is not None
        now = pseudo_labels.summarise(table, pseudo)
    last = next((r.labels.summary for r in reversed(before) if r.labels), None)
    raised = alarms(now, last, pseudo.alarms) if pseudo else []
    return Labels(now, raised, table.failures if table else {})


def _summary(path: Path) -> pseudo_labels.Summary:
    try:
        return pseudo_labels.Summary(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{path}: damaged ({first_line(error)}); train/run.py makes it again"
        ) from error
