"""What one model file says of a recording's windows, whether it hears windows or whole stretches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from birdkit.contract import WINDOW_OUTPUTS, Contract
from birdkit.engines.engine import Answers, Engine
from birdkit.errors import UserError
from birdkit.grid import cut_inputs, frame_middles, n_stretches, onto_rows
from birdkit.scoring.pooling import pool, sigmoid

# Member → output → (windows, classes) probabilities
WindowScores = dict[str, dict[str, NDArray[np.float32]]]


def window_scores(
    name: str,
    engine: Engine,
    waveform: NDArray[np.float32],
    count: int,
    *,
    outputs: Sequence[str] = WINDOW_OUTPUTS,
    shift: float = 0.0,
    pooling: str = "plain",
) -> WindowScores:
    """Score the first `count` windows of a recording with each member of a model file.

    Parameters
    ----------
    name : of the member, where the file holds one
    waveform : (samples,) float32 in [-1, 1] at the contract's rate
    shift : how much earlier what the model hears begins: in windows, or in stretches
    """
    contract = engine.contract
    answered = engine(cut_inputs(waveform, count, contract, shift))
    scores: WindowScores = {}
    for member in contract.members or (name,):
        own = contract.of_member(answered, member)
        if contract.stretch_s:
            scores[member] = _pooled(own, contract, waveform.size, count, outputs, shift, pooling)
        else:
            rows = {output: probabilities(own, output) for output in outputs}
            scores[member] = {o: onto_rows(of, shift) if shift else of for o, of in rows.items()}
    return scores


def _pooled(
    answered: Answers,
    contract: Contract,
    n_samples: int,
    count: int,
    outputs: Sequence[str],
    shift: float,
    pooling: str,
) -> dict[str, NDArray[np.float32]]:
    """Output → (count, classes), of framewise answers (stretches, frames, classes)."""
    # Seven arguments: half of `window_scores`, which is where they are described.
    (stretches, n_frames, _) = answered["framewise"].shape
    in_stretch = frame_middles(n_frames, contract)
    kept = in_stretch[in_stretch < max(contract.stretch_s, in_stretch[0] + 1e-9)]
    starts_s = (np.arange(stretches) - shift) * contract.stretch_s
    middles_s = (starts_s[:, None] + kept).reshape(-1)
    frames = {
        name: values[:, : kept.size].reshape(middles_s.size, -1) for name, values in answered.items()
    }
    end_s = n_samples / contract.sample_rate
    return {
        output: pool(frames, middles_s, end_s, count, contract.window_s, output, pooling)
        for output in outputs
    }


def windows_heard(contract: Contract, count: int, shift: float = 0.0) -> int:
    """How many windows' sound a model computes on to score so many; its time goes with that."""
    if contract.stretch_s:
        return contract.stretch_windows * n_stretches(count, contract, shift)
    return count + bool(shift)


def probabilities(outputs: Mapping[str, NDArray[np.float32]], output: str) -> NDArray[np.float32]:
    """One output of a model as probabilities of its shape: clipwise holds them, the others logits.

    Raises
    ------
    UserError
        Where the model has no such output.
    """
    if output not in outputs:
        raise UserError(f"output '{output}' is not among the model's: {', '.join(outputs)}")
    values = outputs[output]
    if output == "clipwise":
        return np.asarray(np.clip(values, 0.0, 1.0), dtype=np.float32)
    return sigmoid(values)
