"""Compares rounds of runs: macro-AUC before and after, and the gain over the seeds of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from tqdm import tqdm

from birdkit.errors import UserError
from train.data.progress import bar
from train.models import checkpoint
from train.rounds import plan
from train.scoring import summary
from train.scoring.auc import TAIL, Difference
from train.scoring.summary import ENSEMBLE, Scored

MEAN = "mean of the models"


@dataclass(frozen=True)
class Pair:
    """The last round of a run, and the round that it is compared with, on one set of files."""

    first: Scored
    last: Scored


@dataclass(frozen=True)
class Gain:
    """Macro-AUC in one output before and after, of one model or the mean of several, by run."""

    model: str
    output: str
    before: tuple[float, ...]  # (runs,)
    after: tuple[float, ...]  # (runs,)
    mean: Difference  # mean over the runs; files and runs are resampled

    @property
    def by_run(self) -> str:
        """What each run gained."""
        gained = zip(self.before, self.after, strict=True)
        return ", ".join(f"{after - before:+.3f}" for before, after in gained)

    @property
    def verdict(self) -> str:
        """What can be said of the mean, and what gain could have been seen."""
        return f"{self.mean.verdict} (detectable: {self.mean.detectable:.3f})"


def pair(run: Path, set_name: str, against: Path | None = None) -> Pair:
    """A run's last round beside that of another run, or beside its own round 0.

    Raises `UserError` where a round is missing, or has no scores on the set.
    """
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
        there = ", ".join(f"--set {name}" for name in summary.scored_sets(folder)) or "no set"
        raise UserError(
            f"{path}: not found; the round has scores on {there} (for validation, run train/run.py "
            "again with --validation DIR)"
        )
    return Scored.load(path)


def gains(pairs: Sequence[Pair]) -> list[Gain]:
    """Gains of every model that is in both rounds, of their mean, and of the ensembles.

    Raises `UserError` where the pairs differ in truth or models.
    """
    _require_alike(pairs)
    before, after = pairs[0].first.header, pairs[0].last.header
    singles = [name for name in after.models if name in before.models and name != ENSEMBLE]
    rows = {name: [name] for name in singles}
    if len(singles) > 1:
        rows[MEAN] = singles
    # An ensemble of one model is that model, which stands there already if both rounds have it.
    if max(len(before.models), len(after.models)) > 2 or not rows:
        rows[ENSEMBLE] = [ENSEMBLE]
    asked = [(row, models, output) for row, models in rows.items() for output in after.outputs]
    return [_gain(pairs, *of_row) for of_row in tqdm(asked, **bar("pairing"))]


def _require_alike(pairs: Sequence[Pair]) -> None:
    reference = pairs[0]
    for pair in pairs:
        for scored in (pair.first, pair.last):
            if not scored.truth.same_as(reference.last.truth):
                raise UserError("these runs were scored on different sets; score them on one")
        if _models(pair) != _models(reference):
            raise UserError("these runs differ in models; compare seeds of one recipe")


def _models(pair: Pair) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return pair.first.header.models, pair.last.header.models


def _gain(pairs: Sequence[Pair], row: str, models: Sequence[str], output: str) -> Gain:
    # The bootstrap of every run draws the same files, so that draws may be averaged one by one.
    differences = [[p.last.gain(p.first, output, model) for model in models] for p in pairs]
    mean = Difference(
        float(np.mean([[difference.estimate for difference in of_run] for of_run in differences])),
        over_runs(np.mean([[d.draws for d in of_run] for of_run in differences], axis=1)),
    )

    def figures(rounds: Sequence[Scored]) -> tuple[float, ...]:
        return tuple(
            float(np.mean([scored.auc(output, model).macro for model in models])) for scored in rounds
        )

    return Gain(row, output, figures([p.first for p in pairs]), figures([p.last for p in pairs]), mean)


def over_runs(draws: NDArray[np.float64], seed: int = 0) -> NDArray[np.float64]:
    """The mean over runs of each resample, whose runs are resampled, too: seeds differ as files do.

    A few runs are too alike in a resample, and tell little of how runs spread. So their deviations are
    stretched by √(n / (n − 1)) (Rao and Wu 1988, JASA 83), and by how much wider Student's interval of
    so many is than the normal one. One run stays as it is: nothing tells how seeds differ.

    Parameters
    ----------
    draws : (runs, resamples)
    """
    n_runs, n_draws = draws.shape
    if n_runs == 1:
        return draws[0]
    picked = np.random.default_rng(seed).integers(n_runs, size=(n_runs, n_draws))
    mean = draws.mean(axis=0)
    deviation = np.take_along_axis(draws, picked, axis=0).mean(axis=0) - mean
    student = float(stats.t.ppf(TAIL, n_runs - 1) / stats.norm.ppf(TAIL))
    return np.asarray(mean + deviation * student * np.sqrt(n_runs / (n_runs - 1)))


def markdown(gains: Sequence[Gain], before: str = "round 0") -> str:
    """The table of gains; `before` heads the column of the round that is compared with."""
    n_runs = len(gains[0].before)
    lines = [
        f"| model | output | {before} | last round | gain, {n_runs} seeds | mean gain | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    for gain in gains:
        spreads = f"{spread(gain.before)} | {spread(gain.after)}"
        gained = f"{gain.by_run} | {gain.mean} | {gain.verdict}"
        lines.append(f"| {gain.model} | {gain.output} | {spreads} | {gained} |")
    return "\n".join(lines).replace("-0", "−0")


def spread(values: Sequence[float]) -> str:
    """Mean, lowest and highest."""
    return f"{np.mean(values):.3f} ({min(values):.3f}–{max(values):.3f})"
