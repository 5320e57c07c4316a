"""How far the answers of a setup are from torch's, and how much arithmetic they take."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from birdkit.contract import WINDOW_OUTPUTS
from birdkit.grid import MINUTE_S, WINDOWS_A_MINUTE
from birdkit.scoring.ensemble import Ensemble, Spec
from export.gates import precision
from train.models.checkpoint import Final
from train.scoring.evaluate import TorchEngine


class Agreement:
    """Torch's scores of some recordings, to compare others with."""

    def __init__(self, finals: Mapping[str, Final], waveforms: Sequence[NDArray[np.float32]]) -> None:
        cpu = torch.device("cpu")
        engines = {name: TorchEngine(final.predictor(), cpu) for name, final in finals.items()}
        self.waveforms = waveforms
        self.reference = Ensemble(engines, Spec(dict.fromkeys(finals, 1.0)))

    def _scores(self, ensemble: Ensemble) -> dict[str, NDArray[np.float32]]:
        """Member → (outputs, windows, classes) probabilities over all recordings."""
        of_files = [
            ensemble.every_score(waveform, WINDOWS_A_MINUTE, WINDOW_OUTPUTS)
            for waveform in self.waveforms
        ]
        whole = np.concatenate(of_files, axis=2)
        return {name: whole[:, index] for index, name in enumerate(ensemble.spec.members)}

    def of(self, candidate: Ensemble) -> tuple[float, float]:
        """Largest |Δp| over members and outputs; mean rank correlation of segmentwise."""
        self.reference.spec = replace(self.reference.spec, pooling=candidate.spec.pooling)
        expected, answers = self._scores(self.reference), self._scores(candidate)
        furthest = max(float(np.abs(answers[name] - of).max()) for name, of in expected.items())
        segmentwise = WINDOW_OUTPUTS.index("segmentwise")
        correlations = [
            precision.rank_correlation(of[segmentwise], answers[name][segmentwise])
            for name, of in expected.items()
        ]
        return furthest, statistics.mean(correlations)


def network_gflop(finals: Mapping[str, Final]) -> float:
    """Operations of all networks for a minute of audio, in 1e9; a multiply-add is two."""
    total = 0.0
    for final in finals.values():
        predictor, contract = final.predictor(), final.contract
        with torch.no_grad():
            log_mel = predictor.front_end.of(torch.zeros(1, contract.input_samples), contract)
            with FlopCounterMode(display=False) as counter:
                predictor.answers(log_mel)
        heard_s = contract.stretch_s or contract.window_s
        total += counter.get_total_flops() * MINUTE_S / heard_s
    return total / 1e9
