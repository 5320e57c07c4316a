"""Fuses models that share a front end into one graph, which computes the log-mel once.

Fused in torch, before export: weights and averaging stay in `ensemble.json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn

from birdkit.contract import ALONE, Contract
from birdkit.errors import UserError
from train.models.checkpoint import Final
from train.models.sed import Predictor

FUSED_STEM = "fused"


class Fused(nn.Module):
    """Waveform (batch, samples) → the log-mel, then each member's outputs in order.

    All members have the front end and the chunk of the first. One member is a graph like any other.
    """

    def __init__(self, predictors: Sequence[Predictor]) -> None:
        super().__init__()
        self.members = nn.ModuleList(predictors)
        self.front_end, self.contract = predictors[0].front_end, predictors[0].contract

    def forward(self, waveform: Tensor) -> tuple[Tensor, ...]:
        log_mel = self.front_end.of(waveform, self.contract)
        outputs = [log_mel]
        for member in self.members:
            assert isinstance(member, Predictor)
            outputs += member.answers(log_mel)
        return tuple(outputs)


def sharing(finals: Mapping[str, Final]) -> dict[str, Final]:
    """The members, of which those that hear windows share the log-mel of those that hear stretches.

    They hear each window of a stretch on its own, where front end, classes and frames are alike. The
    log-mel is up to a third of the time of a small network.
    """
    heard = {
        (final.job.frontend, final.contract.windowed): final.contract
        for final in finals.values()
        if final.contract.stretch_s
    }
    return {
        name: _by_window(final, heard.get((final.job.frontend, final.contract)))
        for name, final in finals.items()
    }


def _by_window(final: Final, heard: Contract | None) -> Final:
    """A member that hears windows as part of the stretches that others hear, where that can be."""
    if heard is None or heard.chunk_s != heard.window_s:
        return final
    try:
        stretched = final.over_stretches(heard.stretch_s)
    except UserError:  # its encoder hears chunks of one length
        return final
    contract = replace(heard, by_window=(ALONE,))
    return replace(stretched, contract=contract) if stretched.contract == heard else final


def into_files(
    finals: Mapping[str, Final], fuse: bool
) -> tuple[dict[str, Final], dict[str, list[str]]]:
    """How members lie in model files: one each, or with `fuse` as few as can share a log-mel.

    Returns
    -------
    The members as their files hear, and stem of a file → names of the members that it holds.
    """
    if not fuse:
        return dict(finals), {name: [name] for name in finals}
    heard = sharing(finals)
    shared: dict[tuple[object, Contract], list[str]] = {}
    for name, final in heard.items():
        contract = replace(final.contract, by_window=())
        shared.setdefault((final.job.frontend, contract), []).append(name)
    stems: dict[str, list[str]] = {}
    for members in shared.values():
        count = sum(stem.startswith(FUSED_STEM) for stem in stems)
        stem = f"{FUSED_STEM}{count + 1 if count else ''}" if len(members) > 1 else members[0]
        stems[stem] = members
    return heard, stems


def contract_of(finals: Mapping[str, Final], members: Sequence[str]) -> Contract:
    """The contract of a model file that holds these members."""
    contract = finals[members[0]].contract
    if len(members) == 1:
        return contract
    by_window = tuple(name for name in members if finals[name].contract.by_window)
    return replace(contract, members=tuple(members), by_window=by_window)
