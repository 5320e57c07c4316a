"""The stop rule: a round that must gain and does not ends the run with the round before it.

What judges is what export chooses on: labelled soundscapes that train nothing, or held-out recordings
where there are none, and never `--validation`. The scores are kept, so a rerun decides alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from birdkit.errors import UserError
from birdkit.log import LOG
from train.data.dataset import Dataset
from train.rounds.plan import Stage
from train.scoring.auc import Difference, paired_bootstrap
from train.scoring.evaluate import HELD_OUT, LABELLED
from train.scoring.summary import DRAWS, ENSEMBLE, Scored


def refuse_unjudged(stages: Sequence[Stage], dataset: Dataset) -> None:
    """Raise `UserError` where a round must gain, and nothing can tell whether it does."""
    if dataset.validating:
        return
    for stage, before in zip(stages[1:], stages, strict=False):
        folds = _folds(stage, dataset)
        if stage.round.must_gain and not (folds and folds == _folds(before, dataset)):
            raise UserError(
                f"rounds.{stage.index}.must_gain: no labelled soundscapes validate, and this round and "
                "the one before don't hold out the same recordings; hold some out in both, as with "
                "--set data.fold=0, or set must_gain to false"
            )


def _folds(stage: Stage, dataset: Dataset) -> set[tuple[int, int]]:
    """The folds that the round's models hold out."""
    of = [member.job.data for member in stage.members if dataset.recordings_of(member.job.data)[1]]
    return {(data.n_folds, data.fold) for data in of}


def goes_on(index: int, before: Sequence[Scored], now: Sequence[Scored]) -> bool:
    """Whether the round of this index gained on the round before; what is said names the figures."""
    gained = gain(before, now)
    names = " and ".join(scored.header.name for scored in _judging(now))
    says = f"round {index} must gain on {names}: {gained} ({gained.verdict})"
    if gained.estimate > 0:
        LOG.info(f"{says}; it is kept")
        return True
    LOG.info(
        f"{says}; it does not, so the run ends with round {index - 1}, which is what export takes "
        f"(round {index} stays in its folder)"
    )
    return False


def gain(before: Sequence[Scored], now: Sequence[Scored]) -> Difference:
    """Gain of the ensemble in macro-AUC, each round in its own better output, as export chooses it.

    The estimate decides and not its interval: a few dozen soundscapes show no gain of a round for
    certain. Over several folds of held-out recordings it is the mean.
    """
    earlier = {scored.header.name: scored for scored in before}
    gains = [_gain(earlier[scored.header.name], scored) for scored in _judging(now)]
    draws = np.mean([each.draws for each in gains], axis=0)
    return Difference(float(np.mean([each.estimate for each in gains])), draws)


def _judging(scored: Sequence[Scored]) -> list[Scored]:
    labelled = [of for of in scored if of.header.name == LABELLED]
    return labelled or [of for of in scored if of.header.name.startswith(HELD_OUT)]


def _gain(before: Scored, now: Scored) -> Difference:
    return paired_bootstrap(now.truth, _best_table(before), _best_table(now), draws=DRAWS)


def _best_table(scored: Scored) -> NDArray[np.float32]:
    best = max(scored.header.outputs, key=lambda output: scored.auc(output, ENSEMBLE).macro)
    return scored.table(best, ENSEMBLE)
