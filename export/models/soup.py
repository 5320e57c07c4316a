"""Soups: members that went on from one model become one, with the mean of their weights.

Weights that a training reached from a common start mostly lie in one basin, where their mean is as
good as their ensemble and costs one member's time (Wortsman et al. 2022, Model soups,
https://arxiv.org/abs/2203.05482). Means of trainings that share no more than an encoder's first weights
are worth nothing, so those are never mixed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from birdkit.errors import UserError
from export.models.members import Checkpoints
from train.models import checkpoint
from train.models.checkpoint import Final
from train.rounds.runner import START

HOW = ("mean", "greedy")
Score = Callable[[Final], float]


def cook(checkpoints: Checkpoints, score: Score | None) -> tuple[Checkpoints, list[str]]:
    """The members with each family of them as one soup, and a line on each soup.

    Parameters
    ----------
    score : macro-AUC of a model; with it a soup is greedy: from the best member on, each further one
        stays where the mean ranks as well or better. None mixes all.

    Raises `UserError` where no two members can be mixed.
    """
    finals, paths, soups, lines = dict(checkpoints.finals), dict(checkpoints.paths), {}, []
    for family in _families(checkpoints):
        mixed, says = (family, "") if score is None else _greedy(checkpoints, family, score)
        name = f"{family[0]}-soup"
        soup = mean([finals[member] for member in mixed])
        origin = f"soup of {', '.join(mixed)}; {soup.weights_from}"
        soups[name] = {member: checkpoint.sha256(paths[member]) for member in mixed}
        lines.append(f"{name}: mean of the weights of {', '.join(mixed)}{says}")
        finals[name], paths[name] = replace(soup, weights_from=origin), paths[mixed[0]]
        for member in family:
            del finals[member], paths[member]
    if not soups:
        raise UserError(
            "--soup: no two members are of one architecture and went on from one another or from one "
            "model; give several rounds of a warm run (RUN_DIR/round0 RUN_DIR/round1), or leave it out"
        )
    return replace(checkpoints, finals=finals, paths=paths, soups=soups), lines


def mean(finals: Sequence[Final]) -> Final:
    """The model with the mean of all weights, and otherwise that of the first.

    The statistics of batch norm are averaged as well, as those of the moving average in training are;
    counts of batches are the first one's. No tensor is shared with an ingredient.
    """
    first = finals[0]
    state = {key: _mean([final.state[key] for final in finals]) for key in first.state}
    trained_on = frozenset[str]().union(*(final.trained_on for final in finals))
    return replace(first, state=state, metrics={}, trained_on=tuple(sorted(trained_on)))


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    if not tensors[0].is_floating_point():
        return tensors[0].clone()
    return torch.stack([tensor.double() for tensor in tensors]).mean(dim=0).to(tensors[0].dtype)


def _greedy(checkpoints: Checkpoints, family: Sequence[str], score: Score) -> tuple[list[str], str]:
    """The members that the greedy soup keeps, and what to say of their scores."""
    finals = checkpoints.finals
    alone = {name: score(finals[name]) for name in family}
    best_first = sorted(family, key=lambda name: -alone[name])
    kept, best = best_first[:1], alone[best_first[0]]
    for name in best_first[1:]:
        together = score(mean([finals[member] for member in [*kept, name]]))
        if together >= best:
            kept, best = [*kept, name], together
    left_out = [name for name in family if name not in kept]
    says = f"; macro-AUC {best:.4f}, alone {', '.join(f'{n} {alone[n]:.4f}' for n in best_first)}"
    return kept, says + (f"; left out: {', '.join(left_out)}" if left_out else "")


def _families(checkpoints: Checkpoints) -> Iterator[list[str]]:
    """Names of members that can be mixed, two or more at a time, in order."""
    families: list[tuple[list[str], set[str]]] = []
    for name, final in checkpoints.finals.items():
        kin = _kin(checkpoints, name)
        related = [f for f in families if f[1] & kin and _alike(checkpoints.finals[f[0][0]], final)]
        names = [member for members, _ in related for member in members]
        families = [f for f in families if f not in related]
        families.append(([*names, name], kin.union(*(of for _, of in related))))
    order = list(checkpoints.finals)
    yield from (sorted(names, key=order.index) for names, _ in families if len(names) > 1)


def _kin(checkpoints: Checkpoints, name: str) -> set[str]:
    """Hashes of a checkpoint and of those whose whole network it began with."""
    parents = checkpoints.finals[name].made_by["parents"]
    started = {digest for parent, digest in parents.items() if _is_whole_start(parent)}
    return {checkpoint.sha256(checkpoints.paths[name]), *started}


def _is_whole_start(parent: str) -> bool:
    return parent == START or parent.endswith(checkpoint.FINAL_NAME)


def _alike(one: Final, other: Final) -> bool:
    """Whether two models differ in their weights alone."""
    shapes = [{key: value.shape for key, value in of.state.items()} for of in (one, other)]
    jobs = [(of.job.frontend, of.job.model.encoder, of.contract) for of in (one, other)]
    return shapes[0] == shapes[1] and jobs[0] == jobs[1]
