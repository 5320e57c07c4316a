"""How far the answers of a setup are from torch's, and how much arithmetic they take."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from birdkit.grid import WINDOWS_A_MINUTE, cut_chunks
from birdkit.scoring.ensemble import Ensemble, probabilities
from export.gates import precision
from train.models.checkpoint import Final


class Agreement:
    """Torch's answers for some recordings, to compare others with."""

    def __init__(self, finals: Mapping[str, Final], waveforms: Sequence[NDArray[np.float32]]) -> None:
        self.waveforms = waveforms
        self.expected = {name: self._torch(final) for name, final in finals.items()}

    def _torch(self, final: Final) -> dict[str, NDArray[np.float32]]:
        """Output → (windows, classes) over all recordings."""
        predictor, parts = final.predictor(), []
        with torch.inference_mode():
            for waveform in self.waveforms:
                chunks = torch.from_numpy(cut_chunks(waveform, WINDOWS_A_MINUTE, final.contract))
                parts.append([output.numpy() for output in predictor(chunks)])
        whole = (np.concatenate(of) for of in zip(*parts, strict=True))
        return dict(zip(final.contract.outputs, whole, strict=True))

    def of(self, candidate: Ensemble) -> tuple[float, float]:
        """Largest |Δp| over members and outputs; mean rank correlation of segmentwise."""
        answers = [candidate.run(waveform, WINDOWS_A_MINUTE) for waveform in self.waveforms]
        furthest, correlations = 0.0, []
        for member, expected in self.expected.items():
            for output in expected:
                rows = np.concatenate([of_file[member][output] for of_file in answers])
                ours, theirs = probabilities({output: rows}, output), probabilities(expected, output)
                furthest = max(furthest, float(np.abs(ours - theirs).max()))
                if output == "segmentwise":
                    correlations.append(precision.rank_correlation(theirs, ours))
        return furthest, statistics.mean(correlations)


def network_gflop(finals: Mapping[str, Final]) -> float:
    """Operations of all networks for a minute of audio, in 1e9; a multiply-add is two."""
    total = 0
    for final in finals.values():
        predictor = final.predictor()
        with torch.no_grad():
            log_mel = predictor.front_end(torch.zeros(1, final.contract.chunk_samples))
            with FlopCounterMode(display=False) as counter:
                predictor.network(log_mel, predictor.answer_share)
        total += counter.get_total_flops()
    return WINDOWS_A_MINUTE * total / 1e9
