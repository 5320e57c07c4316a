"""The order in which a submission spends its time, chosen on labelled soundscapes.

First come the members, of which the first ones stay where time is short, then further passes. Both are
chosen one by one, each beside those before it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from birdkit.engines.layout import Layout
from birdkit.scoring.ensemble import SHIFTS, Ensemble, Spec, combine
from export.gates.weights import DOUBT
from train.scoring.auc import macro_auc, paired_bootstrap
from train.scoring.evaluate import TruthSet, member_scores

Members = tuple[str, ...]


def members_in_order(
    spec: Spec, scores: Sequence[NDArray[np.float32]], labelled: TruthSet
) -> tuple[dict[str, float], str]:
    """The members with their weights, the most useful first, and a line on the order.

    Parameters
    ----------
    scores : of each file (members, windows, classes), in the spec's order
    """
    names = list(spec.members)
    if len(names) == 1:
        return spec.members, ""

    def auc(members: Members) -> float:
        chosen = [name in members for name in names]
        return labelled.auc(combine([of_file[chosen] for of_file in scores], spec.only(members))).macro

    ordered, aucs = greedy(names, auc)
    steps = ", ".join(f"{'+' if i else ''}{m} {aucs[i]:.4f}" for i, m in enumerate(ordered))
    members = {name: spec.members[name] for name in ordered}
    return members, f"members kept where the time is short, the first ones: macro-AUC {steps}"


def greedy(names: Sequence[str], auc: Callable[[Members], float]) -> tuple[list[str], list[float]]:
    """Order names so that each adds the most to those before it.

    Returns
    -------
    The names in order, and what the first one, the first two and so on give
    """
    ordered: list[str] = []
    aucs: list[float] = []
    while left := [name for name in names if name not in ordered]:
        with_each = {name: auc((*ordered, name)) for name in left}
        best = max(left, key=lambda name: with_each[name])
        ordered.append(best)
        aucs.append(with_each[best])
    return ordered, aucs


def further_passes(
    loaded: Ensemble,
    spec: Spec,
    plain: Sequence[NDArray[np.float32]],
    labelled: TruthSet,
    layout: Layout,
) -> tuple[tuple[float, ...], str]:
    """Choose the time shifts that are worth a pass, by adding one after another.

    Over windows, those that do not lower macro-AUC. Over stretches one pass already hears shifted
    windows, and a further one takes twice its time: those whose gain is beyond doubt.
    """
    shifted = {
        shift: member_scores(loaded, labelled, layout.streams, shift)[spec.output] for shift in SHIFTS
    }

    @functools.cache
    def rows(shifts: tuple[float, ...]) -> NDArray[np.float32]:
        passes = [plain, *(shifted[shift] for shift in shifts)]
        mean = [np.mean(np.stack(of), axis=0) for of in zip(*passes, strict=True)]
        return labelled.rows(combine(mean, spec))

    @functools.cache
    def auc(shifts: tuple[float, ...]) -> float:
        return macro_auc(labelled.truth, rows(shifts)).macro

    def worth(chosen: tuple[float, ...], shift: float) -> bool:
        if not loaded.hears_stretches:
            return auc((*chosen, shift)) >= auc(chosen)
        gain = paired_bootstrap(labelled.truth, rows(chosen), rows((*chosen, shift)))
        return gain.bound(DOUBT) > 0

    chosen, tried = added_one_by_one(SHIFTS, auc, worth)
    passes = ", ".join(f"{shift:g}" for shift in chosen) or "none"
    return (
        chosen,
        f"time shifts worth a pass, in windows or stretches: {passes}; macro-AUC {', '.join(tried)}",
    )


def added_one_by_one(
    shifts: Sequence[float],
    auc: Callable[[tuple[float, ...]], float],
    worth: Callable[[tuple[float, ...], float], bool],
) -> tuple[tuple[float, ...], list[str]]:
    """The shifts that are worth a pass beside those chosen before, and what was tried, in words.

    The one with the best `auc` alone is tried first.
    """
    chosen: tuple[float, ...] = ()
    tried = [f"plain {auc(chosen):.4f}"]
    for shift in sorted(shifts, key=lambda shift: -auc((shift,))):
        tried.append(f"+{shift:g} {auc((*chosen, shift)):.4f}")
        if worth(chosen, shift):
            chosen = *chosen, shift
    return chosen, tried
