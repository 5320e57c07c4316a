"""Chooses the class groups that are smoothed over windows, since their sounds go on and on.

A frog or a cicada that calls in one window mostly calls in the next ones, too; a bird often calls once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from birdkit.scoring.ensemble import Spec, combine
from train.scoring.auc import paired_bootstrap
from train.scoring.evaluate import TruthSet

# A group is smoothed where at least so many of its classes are judged, and so few resamples lose by it:
# smoothing takes no time, so that doubt need not be as small as with a further pass.
LEAST_CLASSES, RESAMPLES_THAT_LOSE = 3, 0.2


def steady_groups(
    spec: Spec,
    scores: Sequence[NDArray[np.float32]],
    labelled: TruthSet,
    classes: Sequence[str],
    groups: Mapping[str, str],
) -> tuple[Spec, list[str]]:
    """Smooth the classes of each group that the labelled soundscapes rank better for it.

    Parameters
    ----------
    scores : for each file (members, windows, classes)
    groups : class → its group in the taxonomy

    Returns
    -------
    The spec, and a line on each group that was tried.
    """
    lines = []
    judged = labelled.truth.n_positive > 0
    of_columns = np.array([groups.get(name, "") for name in classes])
    for group in sorted({*of_columns} - {""}):
        columns = np.flatnonzero(of_columns == group)
        if judged[columns].sum() < LEAST_CLASSES:
            continue
        smoothed = replace(spec, steady=(*spec.steady, *map(int, columns)))
        before, after = (labelled.rows(combine(scores, each)) for each in (spec, smoothed))
        gain = paired_bootstrap(labelled.truth, before, after)
        is_kept = gain.bound(RESAMPLES_THAT_LOSE) > 0
        spec = smoothed if is_kept else spec
        verdict = "smoothed over windows" if is_kept else "not smoothed over windows"
        lines.append(f"{group} {verdict}: macro-AUC {gain}")
    return spec, lines
