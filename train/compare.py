"""What rounds of pseudo labels gained, over the seeds of a recipe.

    python train/compare.py RUN [RUN …] [--against RUN [RUN …]] [--set validation] [--into FILE]

Each RUN is a finished run of the same recipe with another seed. Its last round is compared with its
round 0, or with the last round of a run of another recipe, of the same seed: each model that is in
both, single against single, the mean of those figures, and the ensembles.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":  # in place of this folder, whose rooms have names of packages
    sys.path[0:1] = [str(ROOT), str(ROOT / "submission")]

import numpy as np

from birdkit.errors import UserError, run_command
from train.fit import curves
from train.models import checkpoint
from train.rounds import plan
from train.scoring import summary
from train.scoring.auc import Difference
from train.scoring.summary import ENSEMBLE, Scored

MEAN = "mean of the models"


@dataclass(frozen=True)
class Pair:
    """What is compared with the last round of a run, and that, on one set."""

    first: Scored
    last: Scored


@dataclass(frozen=True)
class Gain:
    """One output over all runs, of one model or the mean of several: macro-AUC, before and after."""

    model: str
    output: str
    before: tuple[float, ...]
    after: tuple[float, ...]
    mean: Difference  # over the runs, of one resampling of the files for all of them


def pair(run: Path, set_name: str, against: Path | None = None) -> Pair:
    """A run's last round beside that of another run, or beside its own round 0."""
    last = plan.finished(run)
    if against is not None:
        return Pair(_scored(plan.finished(against).folder, set_name), _scored(last.folder, set_name))
    if last.index == 0:
        raise UserError(f"{run}: has one round only; compare it --against another run")
    first = last.folder.with_name(checkpoint.ROUND_NAME.format(0))
    return Pair(_scored(first, set_name), _scored(last.folder, set_name))


def _scored(folder: Path, set_name: str) -> Scored:
    path = summary.scores_path(folder, set_name)
    if not path.is_file():
        raise UserError(f"{path}: not found; run train/run.py again, with --validation DIR")
    return Scored.load(path)


def gains(pairs: Sequence[Pair]) -> list[Gain]:
    """Of every model that is in both rounds, of their mean, and of the ensembles."""
    first = pairs[0]
    for each in (of for pair in pairs for of in (pair.first, pair.last)):
        if not each.truth.same_as(first.last.truth):
            raise UserError("these runs were scored on different sets; score them on one")
    for pair in pairs[1:]:
        if (pair.first.facts.models, pair.last.facts.models) != (
            first.first.facts.models,
            first.last.facts.models,
        ):
            raise UserError("these runs differ in models; compare seeds of one recipe")
    singles = [
        name
        for name in first.last.facts.models
        if name in first.first.facts.models and name != ENSEMBLE
    ]
    rows = {name: [name] for name in singles}
    if len(singles) > 1:
        rows[MEAN] = singles
    if max(len(each.facts.models) for each in (first.first, first.last)) > 2:  # or it is one model
        rows[ENSEMBLE] = [ENSEMBLE]
    outputs = first.last.facts.outputs
    return [_gain(pairs, row, models, output) for row, models in rows.items() for output in outputs]


def _gain(pairs: Sequence[Pair], row: str, models: Sequence[str], output: str) -> Gain:
    # Each run's bootstrap draws the same files, so that the runs' draws may be averaged one by one.
    each = [p.last.gain(p.first, output, model) for p in pairs for model in models]
    mean = Difference(
        float(np.mean([gain.estimate for gain in each])),
        np.mean([gain.draws for gain in each], axis=0),
    )

    def figures(rounds: Sequence[Scored]) -> tuple[float, ...]:
        return tuple(
            float(np.mean([each.auc(output, model).macro for model in models])) for each in rounds
        )

    return Gain(row, output, figures([p.first for p in pairs]), figures([p.last for p in pairs]), mean)


def markdown(found: Sequence[Gain], before: str = "round 0") -> str:
    """The table; `before` heads the column of what is compared with."""
    n_runs = len(found[0].before)
    lines = [
        f"| model | output | {before} | last round | gain, {n_runs} seeds | mean gain |",
        "|---|---|---|---|---|---|",
    ]
    for gain in found:
        each = ", ".join(
            f"{after - before:+.3f}" for before, after in zip(gain.before, gain.after, strict=True)
        )
        lines.append(
            f"| {gain.model} | {gain.output} | {_spread(gain.before)} | {_spread(gain.after)} | {each} "
            f"| {gain.mean} |"
        )
    return "\n".join(lines).replace("-0", "−0")


def _spread(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f} ({min(values):.3f}–{max(values):.3f})"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="What rounds of pseudo labels gained.")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument(
        "--against",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="of another recipe, seed by seed",
    )
    parser.add_argument("--set", default="validation", dest="set_name", help="or soundscapes")
    parser.add_argument("--into", type=Path, help="put the table there, between its marks")
    parser.add_argument("--mark", help="of the table in that file (default: the recipe's name)")
    args = parser.parse_args(argv)
    others = args.against or [None] * len(args.runs)
    if len(others) != len(args.runs):
        raise UserError(f"--against: {len(others)} runs for {len(args.runs)}; give one for each")
    pairs = [pair(run, args.set_name, of) for run, of in zip(args.runs, others, strict=True)]
    text = markdown(gains(pairs), "other recipe" if args.against else "round 0")
    print(text)
    if args.into:
        name = plan.finished(args.runs[0]).members[0].job.recipe
        curves.put_between_marks(args.into, f"rounds {args.mark or name}", text)
    return 0


if __name__ == "__main__":
    run_command(main)
