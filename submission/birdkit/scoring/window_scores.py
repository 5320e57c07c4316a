"""What one model file says of a recording's windows, whether it hears windows or whole stretches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from birdkit.activations import sigmoid
from birdkit.contract import ALONE, FRAME_OUTPUTS, WINDOW_OUTPUTS, Contract
from birdkit.engines.engine import Answers, Engine
from birdkit.errors import UserError
from birdkit.grid import cut_inputs, frame_middles, n_stretches, onto_rows
from birdkit.scoring.pooling import Frames, pool

# Member of a file, or "" where it holds one alone → output → (windows, classes) probabilities.
WindowScores = dict[str, dict[str, NDArray[np.float32]]]


def window_scores(
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
    waveform : (samples,) float32 in [-1, 1] at the contract's rate
    shift : how much earlier what the model hears begins: in windows, or in stretches
    """
    contract = engine.contract
    answers = engine(cut_inputs(waveform, count, contract, shift))
    scores: WindowScores = {}
    for member in contract.members or (ALONE,):
        own = contract.of_member(answers, member)
        if contract.stretch_s:
            by_window, end_s = member in contract.by_window, waveform.size / contract.sample_rate
            frames = _frames(own, contract, shift, by_window)
            how = "plain" if by_window else pooling  # its windows know nothing of one another
            scores[member] = {
                output: pool(frames, end_s, count, contract.window_s, output, how) for output in outputs
            }
        else:
            rows = {output: probabilities(own, output) for output in outputs}
            scores[member] = {o: onto_rows(of, shift) if shift else of for o, of in rows.items()}
    return scores


def refuse_nan(scores: WindowScores) -> None:
    """Raise `ValueError` where a score is NaN or infinite."""
    arrays = (values for outputs in scores.values() for values in outputs.values())
    if not all(np.isfinite(values).all() for values in arrays):
        raise ValueError("the model answered with NaN or infinite scores")


def _frames(answers: Answers, contract: Contract, shift: float, by_window: bool) -> Frames:
    """The frames of stretches (stretches, frames, classes), one after another.

    A last frame whose middle lies beyond what was heard at once, the stretch or a window of it, is left
    out, since most of it is padding.
    """
    n_stretches, n_frames, n_classes = answers["framewise"].shape
    a_stretch, length_s = (
        (contract.stretch_windows, contract.window_s) if by_window else (1, contract.stretch_s)
    )
    in_one = frame_middles(n_frames // a_stretch, contract)
    kept = max(1, int((in_one < length_s).sum()))
    starts_s = np.arange(n_stretches * a_stretch) * length_s - shift * contract.stretch_s
    logits, attention = (
        answers[name].reshape(starts_s.size, -1, n_classes)[:, :kept].reshape(-1, n_classes)
        for name in FRAME_OUTPUTS
    )
    return Frames(logits, attention, (starts_s[:, None] + in_one[:kept]).reshape(-1))


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
