"""Fuses models that share a front end into one graph, which computes the log-mel once.

Fused in torch, before export: weights and averaging stay in `ensemble.json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn

from birdkit.contract import Contract
from train.models.checkpoint import Final
from train.models.sed import Predictor, SedNetwork

FUSED_STEM = "fused"


class Fused(nn.Module):
    """Waveform (batch, samples) → the log-mel, then each member's outputs in order.

    All members have the front end and the chunk of the first. One member is a graph like any other.
    """

    def __init__(self, predictors: Sequence[Predictor]) -> None:
        super().__init__()
        self.front_end = predictors[0].front_end
        self.networks = nn.ModuleList(predictor.network for predictor in predictors)
        self.contract = predictors[0].contract

    def forward(self, waveform: Tensor) -> tuple[Tensor, ...]:
        log_mel = self.front_end.of(waveform, self.contract)
        outputs = [log_mel]
        for network in self.networks:
            assert isinstance(network, SedNetwork)
            outputs += network.answers(log_mel, self.contract)
        return tuple(outputs)


def group(finals: Mapping[str, Final], fuse: bool) -> dict[str, list[str]]:
    """Stem of a model file → the members it holds: those that share front end and contract."""
    if not fuse:
        return {name: [name] for name in finals}
    shared: dict[tuple[object, Contract], list[str]] = {}
    for name, final in finals.items():
        shared.setdefault((final.job.frontend, final.contract), []).append(name)
    stems: dict[str, list[str]] = {}
    for members in shared.values():
        count = sum(stem.startswith(FUSED_STEM) for stem in stems)
        stem = f"{FUSED_STEM}{count + 1 if count else ''}" if len(members) > 1 else members[0]
        stems[stem] = members
    return stems


def contract_of(finals: Mapping[str, Final], members: Sequence[str]) -> Contract:
    """The contract of a model file that holds these members."""
    contract = finals[members[0]].contract
    return replace(contract, members=tuple(members)) if len(members) > 1 else contract
