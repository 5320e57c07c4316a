"""Scores an exported ensemble on labelled soundscapes, and chooses its settings on them.

Soundscapes that trained a member never judge. What is chosen here (output, weights, averaging) is
chosen on few others: the figures are a little kind to it. `--validation` of train/run.py, never chosen
on, is for reporting.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from birdkit.contract import Contract
from birdkit.engines.layout import Layout, usable_cores
from birdkit.scoring import ensemble
from birdkit.scoring.averaging import LINEAR_AVERAGINGS, average
from birdkit.scoring.ensemble import Ensemble, Spec, combine
from birdkit.scoring.pooling import POOLINGS
from export.gates import weights
from export.gates.order import further_passes, members_in_order
from export.gates.steady import steady_groups
from train.data.competition import class_groups, read_labelled
from train.models.checkpoint import Final
from train.scoring.auc import MacroAuc, macro_auc, paired_bootstrap
from train.scoring.evaluate import (
    TorchEngine,
    TruthSet,
    evaluate,
    member_scores,
    soundscape_set,
)

NAME = "evaluation.json"
ASKED_FOR = "asked for with --output"


@dataclass(frozen=True)
class Judgement:
    """An ensemble's macro-AUC on labelled soundscapes that trained no member, where there are any."""

    n_soundscapes: int  # 0: nothing was scored
    n_windows: int
    n_scored: int  # classes
    outputs: dict[str, float]  # of the ensemble, as submitted but for the output
    groups: dict[str, tuple[float, int]]  # class group → macro-AUC, classes scored
    chosen: list[str]  # a line on each choice
    note: str = ""  # why soundscapes were left out, or nothing was scored

    @classmethod
    def of(
        cls,
        spec: Spec,
        scores: Mapping[str, Sequence[NDArray[np.float32]]],
        judging: Labelled,
        classes: Sequence[str],
        groups: Mapping[str, str],
        chosen: list[str],
    ) -> Judgement:
        """That of a spec by its members' scores: output → for each file (members, windows, classes).

        `groups` maps a class to its group in the taxonomy.
        """
        labelled = judging.truth_set
        assert labelled is not None
        aucs = {output: labelled.auc(combine(of, spec)) for output, of in scores.items()}
        auc = aucs[spec.output]
        return cls(
            n_soundscapes=len(labelled.files),
            n_windows=len(labelled.truth),
            n_scored=auc.n_scored,
            outputs={output: of.macro for output, of in aucs.items()},
            groups=_by_group(auc, classes, groups),
            chosen=chosen,
            note=judging.note,
        )

    def save(self, folder: Path) -> None:
        (folder / NAME).write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Judgement | None:
        path = folder / NAME
        return cls(**json.loads(path.read_text())) if path.is_file() else None


def untested(
    finals: Mapping[str, Final],
    stems: Mapping[str, Sequence[str]],
    note: str,
    output: str | None = None,
) -> tuple[Spec, Judgement]:
    """Equal weights, and the output asked for, or that ranked better in training's own validation.

    The write-up of the 6th place of BirdCLEF+ 2025 does not say which output its submission used. At
    the stage that it reports, clipwise ranked better, so clipwise is the choice without labelled
    soundscapes. Of models that were taught every frame, segmentwise has ranked better in every training
    of docs/experiments.md, so it is the choice for them.
    """
    trained = any(final.trained_on and final.job.pseudo.validating for final in finals.values())
    as_validated = all(f.contract.stretch_s == f.job.postprocess.stretch_s for f in finals.values())
    mean = _mean_of_members(finals, "soundscapes") if as_validated and not trained else {}
    if output:
        why = f"output {output}: {ASKED_FOR}"
    elif mean:
        output = max(mean, key=lambda output: mean[output])
        why = f"output {output}: mean macro-AUC in training's own validation {_listed(mean)}"
    else:
        output = "segmentwise" if _by_frames(finals) else "clipwise"
        why = f"output {output}: nothing to choose on, since {note}; --output names another"
        if not as_validated:
            why += " (training validated models that hear something else at once than these)"
        if held_out := _mean_of_members(finals, "held_out"):
            why += f" (held-out recordings say little of soundscapes: {_listed(held_out)})"
    postprocess = next(iter(finals.values())).job.postprocess
    stretches = any(final.contract.stretch_s for final in finals.values())
    spec = Spec(
        dict.fromkeys(finals, 1.0),
        output,
        postprocess.smoothing,
        files={stem: list(names) for stem, names in stems.items()},
    )
    if (
        stretches
    ):  # a second pass over them brought hardly anything, and takes twice the first one's time
        spec = replace(spec, shifts=(), pooling=postprocess.pooling)
    return spec, Judgement(0, 0, 0, {}, {}, [why], note)


def _by_frames(finals: Mapping[str, Final]) -> bool:
    """Whether every member was taught by its frames more than by the loudest of them."""
    return all(final.job.fit.framewise > 0.5 for final in finals.values())


def _mean_of_members(finals: Mapping[str, Final], set_name: str) -> dict[str, float]:
    """Output → mean macro-AUC in training's own validation; empty where a member has no figures."""
    figures = [final.metrics.get(set_name, {}) for final in finals.values()]
    return {o: float(np.mean([f[o] for f in figures])) for o in figures[0]} if all(figures) else {}


def _listed(aucs: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {auc:.4f}" for name, auc in aucs.items())


@dataclass(frozen=True)
class Labelled:
    """The labelled soundscapes that may judge a model folder."""

    truth_set: TruthSet | None  # None where nothing may be scored or chosen
    note: str  # why some or all were left out, or there are none; empty where all of them judge


def labelled_set(data: Path | None, contract: Contract, trained_on: Collection[str] | None) -> Labelled:
    """The labelled soundscapes of a competition folder that trained no member.

    Parameters
    ----------
    trained_on : names of soundscapes; None where they are not known
    """
    if data is None:
        return Labelled(None, "--data was not given")
    every, lines = read_labelled(data)
    bad = f"; {lines[0]}" if lines else ""
    bad += f" (and {len(lines) - 1} more such lines)" if len(lines) > 1 else ""
    if not every:
        return Labelled(None, f"{data} has no labelled soundscapes{bad}")
    if trained_on is None:
        why = "these model files don't say which soundscapes trained them; export them again"
        return Labelled(None, why)
    chosen = [soundscape for soundscape in every if soundscape.path.name not in trained_on]
    truth_set = soundscape_set(chosen, contract)
    if truth_set is None:
        return Labelled(None, f"all {len(every)} labelled soundscapes trained a member")
    left_out = f"{len(every) - len(chosen)} of {len(every)} labelled soundscapes trained a member"
    if not macro_auc(truth_set.truth, np.zeros(truth_set.truth.labels.shape)).n_scored:
        others = f"the other {len(chosen)} have" if len(chosen) < len(every) else "they have"
        return Labelled(None, f"{left_out}, and {others} no class both present and absent")
    note = f"{left_out} and are left out" if len(chosen) < len(every) else ""
    return Labelled(truth_set, (note + bad).removeprefix("; "))


def macro_of(labelled: TruthSet, final: Final) -> float:
    """Macro-AUC of a checkpoint's better output, post-processed as its job says."""
    postprocess = final.job.postprocess
    spec = Spec({"model": 1.0}, smoothing=postprocess.smoothing, pooling=postprocess.pooling)
    engine = TorchEngine(final.predictor(), torch.device("cpu"))
    return max(auc.macro for auc in evaluate({"model": engine}, spec, labelled).values())


def judge(
    folder: Path, data: Path, judging: Labelled, fit: bool, output: str | None = None
) -> tuple[Spec, Judgement]:
    """Choose output (and with `fit` averaging and weights) of a model folder, and score it.

    Parameters
    ----------
    output : the one asked for; None chooses the one that ranks best
    """
    labelled = judging.truth_set
    assert labelled is not None
    layout = Layout(usable_cores(), 1, 4)
    loaded = ensemble.load(folder, layout, precisions=()).ensemble
    pooling, scores, chosen = _pooling(loaded, labelled, layout, output)
    loaded.spec = replace(loaded.spec, pooling=pooling)
    outputs = {output: labelled.auc(combine(scores[output], loaded.spec)) for output in scores}
    best = output or max(outputs, key=lambda output: outputs[output].macro)
    listed = _listed({output: auc.macro for output, auc in outputs.items()})
    where = f"macro-AUC on {len(labelled.files)} labelled soundscapes {listed}"
    chosen.append(f"output {best}: {f'{ASKED_FOR}; ' if output else ''}{where}")
    spec = replace(loaded.spec, output=best)
    if fit:
        spec, lines = _fit(spec, scores[best], labelled)
        chosen += lines
    classes, groups = loaded.contract.classes, class_groups(data)
    spec, lines = steady_groups(spec, scores[best], labelled, classes, groups)
    chosen += lines
    shifts, line = further_passes(loaded, spec, scores[best], labelled, layout)
    chosen.append(line)
    members, line = members_in_order(spec, scores[best], labelled)
    chosen += [line] if line else []
    judgement = Judgement.of(spec, scores, judging, classes, groups, chosen)
    # Last, for the scores are in the order that the members had.
    return replace(spec, shifts=shifts, members=members), judgement


def _pooling(
    loaded: Ensemble, labelled: TruthSet, layout: Layout, output: str | None
) -> tuple[str, dict[str, list[NDArray[np.float32]]], list[str]]:
    """Choose how windows are made of frames, by the better output or the one asked for.

    It stays as it was validated, unless the gain of another is beyond doubt.

    Returns
    -------
    The pooling, its scores by output, and a line on the choice; none where no member hears stretches
    """
    best = loaded.spec.pooling
    if not loaded.hears_stretches:
        return best, member_scores(loaded, labelled, layout.streams), []
    scores, rows, aucs = {}, {}, {}
    for pooling in POOLINGS:
        spec = replace(loaded.spec, pooling=pooling)
        scores[pooling] = member_scores(Ensemble(loaded.engines, spec), labelled, layout.streams)
        of_outputs = [output] if output else list(scores[pooling])
        tables = [labelled.rows(combine(scores[pooling][o], spec)) for o in of_outputs]
        of_tables = [macro_auc(labelled.truth, table).macro for table in tables]
        aucs[pooling] = max(of_tables)
        rows[pooling] = tables[of_tables.index(aucs[pooling])]
    for other in [pooling for pooling in POOLINGS if pooling != best]:
        gain = paired_bootstrap(labelled.truth, rows[best], rows[other])
        best = other if gain.bound(weights.DOUBT) > 0 else best
    return best, scores[best], [f"pooling {best}: macro-AUC of the better output {_listed(aucs)}"]


def _fit(
    spec: Spec, scores: Sequence[NDArray[np.float32]], labelled: TruthSet
) -> tuple[Spec, list[str]]:
    """Choose the averaging that is better with equal weights, then fit the weights under it."""
    specs = {name: replace(spec, averaging=name) for name in LINEAR_AVERAGINGS}
    aucs = {name: labelled.auc(combine(scores, of)).macro for name, of in specs.items()}
    averaging = max(aucs, key=lambda name: aucs[name])
    # Averaging and smoothing are linear in the members, so each is post-processed by itself.
    alone = [
        replace(specs[averaging], members={name: float(name == member) for name in spec.members})
        for member in spec.members
    ]
    of_members = np.stack([labelled.rows(combine(scores, of)) for of in alone])
    fitted = weights.fit(of_members, labelled.truth, _mean)
    members = dict(zip(spec.members, fitted.weights, strict=True))
    lines = [f"averaging {averaging}: macro-AUC with equal weights {_listed(aucs)}", str(fitted)]
    return replace(specs[averaging], members=members), lines


def _mean(tables: NDArray[np.float32], members: Sequence[float]) -> NDArray[np.float32]:
    return average(tables, members, "probability")


def _by_group(
    auc: MacroAuc, classes: Sequence[str], groups: Mapping[str, str]
) -> dict[str, tuple[float, int]]:
    """Class group → mean AUC of its scored classes, and how many they are."""
    aucs: dict[str, list[float]] = {}
    for index, value in auc.per_class.items():
        aucs.setdefault(groups.get(classes[index], "other"), []).append(value)
    return {name: (float(np.mean(of)), len(of)) for name, of in sorted(aucs.items())}
