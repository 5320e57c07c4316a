"""Finds the final checkpoints to export, from one finished run or from several for one ensemble."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any

from birdkit.contract import Contract
from birdkit.errors import UserError
from birdkit.kaggle import table
from birdkit.scoring.ensemble import common_contract
from train.models import checkpoint
from train.models.checkpoint import Final
from train.rounds import plan

# A member's name is a file's name too; Kaggle and the suffixes of model files allow no others.
NOT_IN_A_NAME = re.compile("[^A-Za-z0-9_+=-]+")


@dataclass(frozen=True)
class Checkpoints:
    """Member → its final checkpoint, and the file that it was read from."""

    finals: dict[str, Final]
    paths: dict[str, Path]

    @property
    def contract(self) -> Contract:
        """The contract of the member with the longest chunk."""
        return common_contract({name: final.contract for name, final in self.finals.items()})

    @property
    def trained_on(self) -> frozenset[str]:
        """Names of the soundscapes that trained some member."""
        return frozenset[str]().union(*(final.trained_on for final in self.finals.values()))

    @property
    def smoothing(self) -> tuple[float, ...]:
        """That of all members; `load` refuses others."""
        return next(iter(self.finals.values())).job.postprocess.smoothing

    def over_stretches(self, *stretches_s: float) -> Checkpoints:
        """The members where they hear so many seconds at once, or windows at 0.

        Of several lengths they take one in turn; without any each hears what it was validated on.
        """
        in_turn = zip(self.finals.items(), cycle(stretches_s or (None,)), strict=False)
        finals = {name: final.over_stretches(stretch_s) for (name, final), stretch_s in in_turn}
        return replace(self, finals=finals)


def made_by(final: Final, path: Path) -> dict[str, Any]:
    """The metadata of a model file on the checkpoint that it was exported from."""
    return {
        "job": final.job.table(),
        "commit": final.commit,
        "checkpoint_sha256": checkpoint.sha256(path),
        "weights_from": final.weights_from,
        "trained_on": list(final.trained_on),
    }


def load(runs: Sequence[Path]) -> Checkpoints:
    """The final checkpoints of all runs, in order; they can stand in one ensemble.

    A name that several runs use is prefixed with the run's. Raises `UserError` where a run is not
    finished, is named twice, or differs from the others in what an ensemble must agree on.
    """
    of_runs = [load_run(run) for run in runs]
    uses = Counter(name for members in of_runs for name in members.finals)
    finals: dict[str, Final] = {}
    paths: dict[str, Path] = {}
    for run, members in zip(runs, of_runs, strict=True):
        for name, final in members.finals.items():
            unique = name if uses[name] == 1 else f"{run_name(run)}-{name}"
            if unique in finals:
                raise UserError(
                    f"{run}: a second member is named {unique}; give each run once, and runs whose "
                    "folders have different names"
                )
            finals[unique], paths[unique] = final, members.paths[name]
    together = Checkpoints(finals, paths)
    refuse_other_smoothing(finals)
    _ = together.contract  # raises where the members differ in classes, window or sample rate
    return together


def load_run(run: Path) -> Checkpoints:
    """The final checkpoints of a run's last round, or of the round whose folder is given.

    By the recipe and not by what lies there: a member that was taken out of the recipe must not stay
    in the ensemble, and one of other settings must not pass for a new one.
    """
    finals, paths = {}, {}
    for member in plan.finished(run).members:
        paths[member.name] = member.final
        finals[member.name] = Final.load(member.final)
        if finals[member.name].job != member.job:
            raise UserError(
                f"{member.final}: made by another job than the run's {checkpoint.RECIPE_NAME}; "
                "run train/run.py to its end, then export"
            )
    return Checkpoints(finals, paths)


def run_name(run: Path) -> str:
    """The name of a run's folder, with that of the round where a round's folder is given."""
    folder = run.resolve()
    is_round = re.fullmatch(checkpoint.ROUND_NAME.format(r"\d+"), folder.name) is not None
    name = f"{folder.parent.name}-{folder.name}" if is_round else folder.name
    return NOT_IN_A_NAME.sub("-", name)


def refuse_other_smoothing(finals: Mapping[str, Final]) -> None:
    """Raise `UserError` where members were smoothed differently: an ensemble is smoothed once."""
    smoothing = {name: final.job.postprocess.smoothing for name, final in finals.items()}
    first = next(iter(smoothing))
    for name, kernel in smoothing.items():
        if kernel != smoothing[first]:
            raise UserError(
                f"members {first} and {name} differ in postprocess.smoothing "
                f"({_listed(smoothing[first])} and {_listed(kernel)}), and an "
                "ensemble is smoothed once: export them apart, or train one again"
            )


def _listed(smoothing: Sequence[float]) -> str:
    return ", ".join(f"{weight:g}" for weight in smoothing)


def for_competition(checkpoints: Checkpoints, data: Path) -> tuple[Checkpoints, str]:
    """The members cut to the classes that a competition asks for, and a line on those dropped.

    Models of several years answer for one of them so. Raises `UserError` where the competition asks for
    a class that the models don't know.
    """
    _, columns = table.asked_for(data)
    classes = checkpoints.contract.classes
    if not set(columns) <= set(classes):
        raise UserError(table.refusal(table.class_differences(classes, columns)))
    surplus = [name for name in classes if name not in set(columns)]
    if not surplus:
        return checkpoints, ""
    finals = {name: final.only(columns) for name, final in checkpoints.finals.items()}
    dropped = f"{len(surplus)} classes that {data} does not ask for are dropped"
    return replace(checkpoints, finals=finals), f"{dropped}: {', '.join(surplus[:5])}"
