"""The share of the mean that a member from outside gets, chosen on labelled soundscapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from birdkit.engines.layout import Layout, usable_cores
from birdkit.errors import UserError
from birdkit.scoring import ensemble
from birdkit.scoring.averaging import AVERAGINGS
from birdkit.scoring.ensemble import Spec, combine
from export.gates.selection import Judgement, Labelled
from train.data.competition import class_groups
from train.scoring.auc import macro_auc, paired_bootstrap
from train.scoring.evaluate import TruthSet, member_scores

SHARES = (0.2, 0.35, 0.5, 0.65, 0.8)
UNTESTED = 0.5  # where there is nothing to choose on


@dataclass(frozen=True)
class Asked:
    """A member from outside, and what was asked for; None is chosen."""

    name: str
    share: float | None
    averaging: str | None

    def candidates(self, spec: Spec) -> list[Spec]:
        """The spec with the member, in every way that was not ruled out."""
        shares = SHARES if self.share is None else (self.share,)
        averagings = AVERAGINGS if self.averaging is None else (self.averaging,)
        return [with_share(spec, self.name, s, averaging) for averaging in averagings for s in shares]


def with_share(spec: Spec, name: str, share: float, averaging: str) -> Spec:
    """The spec with a member last, which is the first to go where the time is short."""
    kit = sum(spec.members.values())
    if share == 1.0:
        members = dict.fromkeys(spec.members, 0.0) | {name: 1.0}
    else:
        members = spec.members | {name: kit * share / (1.0 - share)}
    return replace(spec, members=members, averaging=averaging, soft=(*spec.soft, name))


def without(spec: Spec, name: str) -> Spec:
    """The spec without an older member of this name. Raises `UserError` where it is no soft one."""
    if name in spec.members and name not in spec.soft:
        raise UserError(f"--name {name}: is a model of the folder's own; give another name")
    return spec.only([member for member in spec.members if member != name])


def add(folder: Path, spec: Spec, asked: Asked, labelled: Labelled, data: Path | None) -> str:
    """Write the spec with the member into a folder that holds its files; a line on the choice."""
    if labelled.truth_set is None or data is None:
        share, averaging = asked.share or UNTESTED, asked.averaging or spec.averaging
        with_share(spec, asked.name, share, averaging).save(folder)
        return (
            f"{asked.name}: share {share:g}, averaging {averaging}; not chosen, since {labelled.note}"
        )
    options = asked.candidates(spec)
    options[0].save(folder)
    layout = Layout(usable_cores(), 1, 4)
    loaded = ensemble.load(folder, layout, precisions=())
    if asked.name in loaded.absent:
        raise UserError(f"{folder}: {'; '.join(loaded.fallbacks)}")
    scores = member_scores(loaded.ensemble, labelled.truth_set, layout.streams)
    chosen, line = _choose(asked.name, spec, options, scores[spec.output], labelled.truth_set)
    chosen.save(folder)
    earlier = Judgement.load(folder)
    lines = [of for of in (earlier.chosen if earlier else []) if not of.startswith(f"{asked.name}: ")]
    classes, groups = loaded.ensemble.contract.classes, class_groups(data)
    Judgement.of(chosen, scores, labelled, classes, groups, [*lines, line]).save(folder)
    return line


def _choose(
    name: str,
    spec: Spec,
    options: Sequence[Spec],
    of_output: Sequence[NDArray[np.float32]],
    truth_set: TruthSet,
) -> tuple[Spec, str]:
    """The best of the options, and a line on the choice and its gain over `spec`, which lacks it."""
    before = truth_set.rows(combine([of[:-1] for of in of_output], spec))
    tables = [truth_set.rows(combine(of_output, option)) for option in options]
    aucs = [macro_auc(truth_set.truth, table).macro for table in tables]
    best = int(np.argmax(aucs))
    chosen = options[best]
    gain = paired_bootstrap(truth_set.truth, before, tables[best])
    tried = ", ".join(f"{_said(of, name)} {auc:.4f}" for of, auc in zip(options, aucs, strict=True))
    line = (
        f"{name}: {_said(chosen, name)} of the mean; macro-AUC without it "
        f"{macro_auc(truth_set.truth, before).macro:.4f}, gain {gain}, detectable "
        f"{gain.detectable:.4f}; tried: {tried}"
    )
    return chosen, line


def _said(spec: Spec, name: str) -> str:
    share = spec.members[name] / sum(spec.members.values())
    return f"{spec.averaging} {share:.2g}"
