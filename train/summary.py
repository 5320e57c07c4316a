"""A run's figures round by round: every model and the ensemble, per class, and how sure a gain is.

Models are scored as a submission is: by birdkit's grid, decoding and post-processing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from birdkit.contract import Contract
from birdkit.ensemble import Ensemble, Spec, combine
from train.evaluate import TorchEngine, TruthSet, member_scores
from train.metrics import Difference, MacroAuc, macro_auc, paired_bootstrap
from train.model import Predictor

SUMMARY_NAME, PER_CLASS_NAME = "summary.csv", "per_class.csv"
ENSEMBLE = "ensemble"  # the mean of a round's models
DRAWS = 500


@dataclass(frozen=True)
class Facts:
    """Of a set of data, for as long as scores on it are kept."""

    name: str
    outputs: tuple[str, ...]
    models: tuple[str, ...]  # and ENSEMBLE as the last
    classes: tuple[str, ...]
    made_by: dict[str, str]  # model → sha256 of its checkpoint


@dataclass(frozen=True)
class Scored:
    """A round's models on one set: `scores` is (outputs, models, rows, classes)."""

    facts: Facts
    scores: NDArray[np.float32]
    truth: NDArray[np.bool_]
    decided: NDArray[np.bool_]
    groups: NDArray[np.int64]

    def table(self, output: str, model: str) -> NDArray[np.float32]:
        return self.scores[self.facts.outputs.index(output), self.facts.models.index(model)]

    def auc(self, output: str, model: str) -> MacroAuc:
        return macro_auc(self.truth, self.table(output, model), ~self.decided)

    def gain(self, before: Scored, output: str, model: str, of: str | None = None) -> Difference:
        """Over the model of an earlier round that has the same name, or is named `of`."""
        return paired_bootstrap(
            self.truth, before.table(output, of or model), self.table(output, model), self.groups,
            ~self.decided, draws=DRAWS,
        )  # fmt: skip

    def save(self, path: Path) -> None:
        partial = path.with_name("partial-" + path.name)
        np.savez_compressed(
            partial,
            facts=json.dumps(asdict(self.facts)),
            scores=self.scores,
            truth=self.truth,
            decided=self.decided,
            groups=self.groups,
        )
        os.replace(partial, path)

    @classmethod
    def load(cls, path: Path) -> Scored:
        with np.load(path) as kept:
            facts = json.loads(str(kept["facts"]))
            lists = {k: tuple(v) for k, v in facts.items() if isinstance(v, list)}
            return cls(
                Facts(**(facts | lists)),
                kept["scores"], kept["truth"], kept["decided"], kept["groups"],
            )  # fmt: skip


def score_round(
    predictors: Mapping[str, Predictor],
    hashes: Mapping[str, str],
    truth_set: TruthSet,
    smoothing: Sequence[float],
    device: torch.device,
    folder: Path,
) -> Scored:
    """Every model of a round on a set; kept in the round's folder, and at once where it was kept."""
    path = folder / f"scores-{truth_set.name}.npz"
    contract = next(iter(predictors.values())).contract
    facts = _facts(predictors, hashes, truth_set, contract)
    if path.is_file():
        kept = Scored.load(path)
        same_truth = kept.truth.shape == truth_set.truth.shape and (kept.truth == truth_set.truth).all()
        if kept.facts == facts and same_truth:
            return kept
    engines = {name: TorchEngine(each.to(device), device) for name, each in predictors.items()}
    spec = Spec(dict.fromkeys(predictors, 1.0), smoothing=tuple(smoothing))
    found = member_scores(Ensemble(engines, spec), truth_set)
    alone = [
        replace(spec, members={n: float(n == name) for n in spec.members}) for name in spec.members
    ]
    tables = [
        [truth_set.rows(combine(files, each)) for each in (*alone, spec)] for files in found.values()
    ]
    scored = Scored(facts, np.array(tables), truth_set.truth, truth_set.decided, truth_set.groups)
    scored.save(path)
    return scored


def _facts(
    predictors: Mapping[str, Predictor],
    hashes: Mapping[str, str],
    truth_set: TruthSet,
    contract: Contract,
) -> Facts:
    models = (*predictors, ENSEMBLE)
    return Facts(truth_set.name, contract.outputs, models, contract.classes, dict(hashes))


def summary(rounds: Sequence[Sequence[Scored]]) -> pd.DataFrame:
    """A row for each round, model, set and output: macro-AUC, and the gain over the round before.

    `gain_low` and `gain_high` hold 90 % of a paired bootstrap over files.
    """
    rows = []
    for index, sets in enumerate(rounds):
        before = {each.facts.name: each for each in rounds[index - 1]} if index else {}
        for scored in sets:
            for model in scored.facts.models:
                for output in scored.facts.outputs:
                    auc = scored.auc(output, model)
                    row = {
                        "round": index, "model": model, "set": scored.facts.name, "output": output,
                        "macro_auc": auc.macro, "n_scored": auc.n_scored,
                    }  # fmt: skip
                    last = before.get(scored.facts.name)
                    if last is not None and model in last.facts.models:
                        gain = scored.gain(last, output, model)
                        row |= {
                            "gain": gain.estimate,
                            "gain_low": gain.bound(0.05),
                            "gain_high": gain.bound(0.95),
                        }
                    rows.append(row)
    return pd.DataFrame(rows)


def per_class(rounds: Sequence[Sequence[Scored]]) -> pd.DataFrame:
    """A row for each round, model, set, output and class that can be scored: its AUC."""
    rows = []
    for index, sets in enumerate(rounds):
        for scored in sets:
            positives = (scored.truth & scored.decided).sum(axis=0)
            for model in scored.facts.models:
                for output in scored.facts.outputs:
                    for column, auc in scored.auc(output, model).per_class.items():
                        where = (index, model, scored.facts.name, output, scored.facts.classes[column])
                        rows.append((*where, int(positives[column]), auc))
    names = ["round", "model", "set", "output", "class", "n_positive", "auc"]
    return pd.DataFrame(rows, columns=names)


def write(rounds: Sequence[Sequence[Scored]], out: Path) -> pd.DataFrame:
    """`summary.csv` and `per_class.csv` of a run; returns the summary."""
    table = summary(rounds)
    for name, each in ((SUMMARY_NAME, table), (PER_CLASS_NAME, per_class(rounds))):
        partial = out / (name + ".partial")
        each.to_csv(partial, index=False, float_format="%.5f")
        os.replace(partial, out / name)
    return table


def lines(table: pd.DataFrame, index: int) -> list[str]:
    """What a round's log says: a line a model and set, with the gains."""
    found = []
    of_round = table[table["round"] == index]
    for (model, name), rows in of_round.groupby(["model", "set"], sort=False):
        parts = []
        for row in rows.itertuples():
            part = f"{row.output} {row.macro_auc:.4f}"
            if index and not np.isnan(getattr(row, "gain", np.nan)):
                part += f" ({row.gain:+.4f}, 90 % {row.gain_low:+.4f} … {row.gain_high:+.4f})"
            parts.append(part)
        found.append(f"round {index}, {model}, on {name}: {', '.join(parts)}")
    return found
