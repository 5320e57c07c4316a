"""A run's figures round by round: every model and the ensemble, per class, and how sure a gain is.

Models are scored as a submission is: by birdkit's grid, decoding and post-processing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from birdkit.files import write_whole
from birdkit.scoring.ensemble import Ensemble, Spec, combine
from train.config.provenance import as_json, can_be_kept
from train.models.checkpoint import Final
from train.scoring.auc import Difference, MacroAuc, macro_auc, paired_bootstrap
from train.scoring.evaluate import TorchEngine, TruthSet, member_scores
from train.scoring.truth import Truth

SUMMARY_NAME, PER_CLASS_NAME = "summary.csv", "per_class.csv"
ENSEMBLE = "ensemble"  # the mean of a round's models
DRAWS = 500


@dataclass(frozen=True)
class Header:
    """What kept scores on a set of data are of, and what made them."""

    name: str
    outputs: tuple[str, ...]
    models: tuple[str, ...]  # and ENSEMBLE as the last
    classes: tuple[str, ...]
    made_by: dict[str, str]  # model → sha256 of its checkpoint


@dataclass(frozen=True)
class Scored:
    """A round's models on one set: `scores` is (outputs, models, rows, classes)."""

    header: Header
    scores: NDArray[np.float32]
    truth: Truth

    def table(self, output: str, model: str) -> NDArray[np.float32]:
        return self.scores[self.header.outputs.index(output), self.header.models.index(model)]

    def auc(self, output: str, model: str) -> MacroAuc:
        return macro_auc(self.truth, self.table(output, model))

    def gain(self, before: Scored, output: str, model: str) -> Difference:
        """Over the model of an earlier round that has the same name."""
        return paired_bootstrap(
            self.truth, before.table(output, model), self.table(output, model), draws=DRAWS
        )

    def save(self, path: Path) -> None:
        content = BytesIO()
        np.savez_compressed(
            content,
            facts=json.dumps(asdict(self.header)),
            scores=self.scores,
            truth=self.truth.labels,
            decided=self.truth.decided,
            groups=self.truth.groups,
        )
        write_whole(path, content.getvalue())

    @classmethod
    def load(cls, path: Path) -> Scored:
        with np.load(path) as kept:
            facts = json.loads(str(kept["facts"]))
            lists = {k: tuple(v) for k, v in facts.items() if isinstance(v, list)}
            truth = Truth(kept["truth"], kept["decided"], kept["groups"])
            return cls(Header(**(facts | lists)), kept["scores"], truth)


def scores_path(folder: Path, set_name: str) -> Path:
    return folder / f"scores-{set_name}.npz"


def score_round(
    finals: Mapping[str, Final],
    hashes: Mapping[str, str],
    truth_set: TruthSet,
    smoothing: Sequence[float],
    device: torch.device,
    folder: Path,
) -> Scored:
    """Every model of a round on a set; kept in the round's folder, and at once where it was kept."""
    path = scores_path(folder, truth_set.name)
    contract = next(iter(finals.values())).contract
    models = (*finals, ENSEMBLE)
    header = Header(truth_set.name, contract.outputs, models, contract.classes, dict(hashes))
    if path.is_file():
        kept = Scored.load(path)
        if can_be_kept(asdict(header), as_json(asdict(kept.header))) and kept.truth.same_as(
            truth_set.truth
        ):
            return kept
    engines = {n: TorchEngine(final.predictor().to(device), device) for n, final in finals.items()}
    spec = Spec(dict.fromkeys(finals, 1.0), smoothing=tuple(smoothing))
    found = member_scores(Ensemble(engines, spec), truth_set)
    alone = [
        replace(spec, members={n: float(n == name) for n in spec.members}) for name in spec.members
    ]
    tables = [
        [truth_set.rows(combine(files, each)) for each in (*alone, spec)] for files in found.values()
    ]
    scored = Scored(header, np.array(tables), truth_set.truth)
    scored.save(path)
    return scored


@dataclass(frozen=True)
class Tables:
    """A round's rows of `summary.csv` and of `per_class.csv`."""

    models: pd.DataFrame
    classes: pd.DataFrame


def of_round(index: int, scored: Sequence[Scored], before: Sequence[Scored]) -> Tables:
    """A row for each model, set and output, with its gain over the round `before`; and for each class.

    `gain_low` and `gain_high` hold 90 % of a paired bootstrap over files.
    """
    last = {each.header.name: each for each in before}
    models, classes = [], []
    for each in scored:
        header, positives = each.header, each.truth.n_positive
        for model, output in product(header.models, header.outputs):
            auc = each.auc(output, model)
            where = {"round": index, "model": model, "set": header.name, "output": output}
            gain = _gain(each, last.get(header.name), output, model)
            models.append(where | {"macro_auc": auc.macro, "n_scored": auc.n_scored} | gain)
            classes += [
                where | {"class": header.classes[i], "n_positive": int(positives[i]), "auc": value}
                for i, value in auc.per_class.items()
            ]
    return Tables(pd.DataFrame(models), pd.DataFrame(classes))


def _gain(scored: Scored, last: Scored | None, output: str, model: str) -> dict[str, float]:
    if last is None or model not in last.header.models:
        return {}
    gain = scored.gain(last, output, model)
    return {
        "gain": gain.estimate,
        "gain_low": gain.bound(0.05),
        "gain_high": gain.bound(0.95),
    }


def write(rounds: Sequence[Tables], out: Path) -> None:
    """`summary.csv` and `per_class.csv` of a run so far."""
    for name, parts in (
        (SUMMARY_NAME, [each.models for each in rounds]),
        (PER_CLASS_NAME, [each.classes for each in rounds]),
    ):
        text = pd.concat(parts).to_csv(index=False, float_format="%.5f")
        write_whole(out / name, text.encode())


def lines(models: pd.DataFrame) -> list[str]:
    """What a round's log says: a line a model and set, with the gains."""
    if models.empty:
        return []
    found = []
    for (index, model, name), rows in models.groupby(["round", "model", "set"], sort=False):
        parts = []
        for row in rows.itertuples():
            part = f"{row.output} {row.macro_auc:.4f}"
            if not np.isnan(getattr(row, "gain", np.nan)):
                part += f" ({row.gain:+.4f}, 90 % {row.gain_low:+.4f} … {row.gain_high:+.4f})"
            parts.append(part)
        found.append(f"round {index}, {model}, on {name}: {', '.join(parts)}")
    return found
