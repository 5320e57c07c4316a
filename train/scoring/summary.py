"""A run's figures by round: each model and the ensemble, per class, and gains with their intervals.

Models are scored like a submission, with birdkit's grid, decoding and post-processing.
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

from birdkit.errors import UserError
from birdkit.files import write_whole
from birdkit.log import LOG
from birdkit.scoring.ensemble import Ensemble, Spec, combine
from train.config.provenance import as_json, can_be_kept
from train.config.settings import Postprocess
from train.models.checkpoint import Final
from train.scoring.auc import Difference, MacroAuc, macro_auc, paired_bootstrap
from train.scoring.evaluate import TruthSet, engines_for, member_scores
from train.scoring.truth import Truth

SUMMARY_NAME, PER_CLASS_NAME = "summary.csv", "per_class.csv"
ENSEMBLE = "ensemble"  # the mean of a round's models
KEYS = ("round", "model", "set", "output")  # of a row
DRAWS = 500


@dataclass(frozen=True)
class Header:
    """The inputs of saved scores on one set; other inputs make them out of date."""

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
        """Gain in macro-AUC over the model of the same name in an earlier round."""
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
            # As numbers, since arrays of text objects can't be read back without pickle.
            groups=pd.factorize(self.truth.groups)[0],
        )
        write_whole(path, content.getvalue())

    @classmethod
    def load(cls, path: Path) -> Scored:
        """Raises `UserError` for a damaged file."""
        try:
            with np.load(path) as content:
                header = json.loads(str(content["facts"]))
                lists = {k: tuple(v) for k, v in header.items() if isinstance(v, list)}
                truth = Truth(content["truth"], content["decided"], content["groups"])
                return cls(Header(**(header | lists)), content["scores"], truth)
        except Exception as error:  # zip, zlib and numpy each fail in their own way
            raise UserError(
                f"{path}: damaged ({type(error).__name__}); train/run.py makes it again"
            ) from error


def scores_path(folder: Path, set_name: str) -> Path:
    return folder / f"scores-{set_name}.npz"


def scored_sets(folder: Path) -> list[str]:
    """Names of the sets that a round was scored on."""
    return sorted(path.stem.partition("-")[2] for path in folder.glob(scores_path(folder, "*").name))


def score_round(
    finals: Mapping[str, Final],
    hashes: Mapping[str, str],
    truth_set: TruthSet,
    postprocess: Postprocess,
    device: torch.device,
    folder: Path,
) -> Scored:
    """Score all models of a round on a set, or load saved scores that have the same inputs."""
    path = scores_path(folder, truth_set.name)
    contract = next(iter(finals.values())).contract
    models = (*finals, ENSEMBLE)
    header = Header(truth_set.name, contract.outputs, models, contract.classes, dict(hashes))
    saved = _saved(path)
    if (
        saved is not None
        and can_be_kept(asdict(header), as_json(asdict(saved.header)))
        and saved.truth.same_as(truth_set.truth)
    ):
        return saved
    predictors = {name: final.predictor() for name, final in finals.items()}
    stretches = {name: final.job.postprocess.stretch_s for name, final in finals.items()}
    engines = engines_for(predictors, stretches, device, truth_set)
    spec = Spec(
        dict.fromkeys(finals, 1.0), smoothing=postprocess.smoothing, pooling=postprocess.pooling
    )
    by_output = member_scores(Ensemble(engines, spec), truth_set)
    alone = [
        replace(spec, members={n: float(n == name) for n in spec.members}) for name in spec.members
    ]
    tables = [
        [truth_set.rows(combine(files, weighted)) for weighted in (*alone, spec)]
        for files in by_output.values()
    ]
    scored = Scored(header, np.array(tables), truth_set.truth)
    scored.save(path)
    return scored


def _saved(path: Path) -> Scored | None:
    """Saved scores; None where there are none, or a damaged file, which is named."""
    try:
        return Scored.load(path) if path.is_file() else None
    except UserError as error:
        LOG.warning(error)
        return None


@dataclass(frozen=True)
class Tables:
    """A round's rows of `summary.csv` and of `per_class.csv`."""

    models: pd.DataFrame
    classes: pd.DataFrame


def of_round(index: int, scored: Sequence[Scored], before: Sequence[Scored]) -> Tables:
    """A row for each model, set and output, with its gain over the round `before`, and one a class.

    `gain_low` and `gain_high` are the 90 % interval of a paired bootstrap over files.
    """
    last = {on_set.header.name: on_set for on_set in before}
    models, classes = [], []
    for on_set in scored:
        header, positives = on_set.header, on_set.truth.n_positive
        for model, output in product(header.models, header.outputs):
            auc = on_set.auc(output, model)
            where = dict(zip(KEYS, (index, model, header.name, output), strict=True))
            gain = _gain(on_set, last.get(header.name), output, model)
            models.append(where | {"macro_auc": auc.macro, "n_scored": auc.n_scored} | gain)
            classes += [
                where | {"class": header.classes[i], "n_positive": int(positives[i]), "auc": value}
                for i, value in auc.per_class.items()
            ]
    # Without any set the tables have their header alone.
    return Tables(
        pd.DataFrame(models, columns=None if models else [*KEYS, "macro_auc", "n_scored"]),
        pd.DataFrame(classes, columns=None if classes else [*KEYS, "class", "n_positive", "auc"]),
    )


def _gain(scored: Scored, last: Scored | None, output: str, model: str) -> dict[str, float]:
    if last is None or model not in last.header.models or not scored.truth.same_as(last.truth):
        return {}
    gain = scored.gain(last, output, model)
    low, high = gain.interval
    return {"gain": gain.estimate, "gain_low": low, "gain_high": high}


def write(rounds: Sequence[Tables], out: Path) -> None:
    """`summary.csv` and `per_class.csv` of a run so far."""
    for name, parts in (
        (SUMMARY_NAME, [one_round.models for one_round in rounds]),
        (PER_CLASS_NAME, [one_round.classes for one_round in rounds]),
    ):
        text = pd.concat(parts).to_csv(index=False, float_format="%.5f")
        write_whole(out / name, text.encode())


def lines(models: pd.DataFrame) -> list[str]:
    """The lines of a round's log: one for each model and set, with the gains."""
    if models.empty:
        return [
            "no figures: no recording is held out (data.fold = -1; --set data.fold=0 does that), and "
            "neither labelled soundscapes nor --validation is there to score"
        ]
    texts = []
    for (index, model, name), rows in models.groupby(["round", "model", "set"], sort=False):
        parts = []
        for row in rows.itertuples():
            part = f"{row.output} {row.macro_auc:.4f}"
            if not np.isnan(getattr(row, "gain", np.nan)):
                part += f" ({row.gain:+.4f}, 90 % {row.gain_low:+.4f} … {row.gain_high:+.4f})"
            parts.append(part)
        texts.append(f"round {index}, {model}, on {name}: {', '.join(parts)}")
    return texts
