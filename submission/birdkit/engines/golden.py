"""Golden inputs with recorded answers: they are checked at start, so that no broken engine scores.

Export stores each model file's answers in the model folder, for every precision that ships.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from birdkit.contract import Contract
from birdkit.engines.engine import Engine
from birdkit.files import write_whole

NAME = "golden.json"
# Another CPU rounds otherwise: f32 differs in its last digits, a lower precision by what its gate
# allows. A broken or exchanged graph differs by far more.
LOGIT_TOLERANCE = {"f32": 0.01, "bf16": 0.5, "int8": 1.0}
CLIPWISE_TOLERANCE = {"f32": 0.001, "bf16": 0.05, "int8": 0.1}
DIGITS = 7
# Beyond it a probability is within 1e-4 of 0 or 1.
SATURATED_LOGIT = 9.2

CONTRACT = "contract"  # a key beside those of the precisions

Answers = Mapping[str, NDArray[np.float32]]


def question(contract: Contract) -> NDArray[np.float32]:
    """A sweep, and calls with pauses, computed alike on every machine.

    (2, chunk_samples) float32, or (1, input_samples): one stretch of both, since it takes its time.
    """
    t = np.arange(contract.input_samples) / contract.sample_rate
    end_hz, start_hz = 0.4 * contract.sample_rate, 500.0
    length_s = contract.input_samples / contract.sample_rate
    phase = start_hz * t + (end_hz - start_hz) * t**2 / (2 * length_s)
    sweep = 0.5 * np.sin(2 * np.pi * phase)
    calls = 0.3 * np.sin(2 * np.pi * 3000 * t) * (np.sin(2 * np.pi * 2 * t) > 0.5)
    signals = [np.where(t < length_s / 2, sweep, calls)] if contract.stretch_s else [sweep, calls]
    return np.stack(signals).astype(np.float32)


def record(folder: Path, stem: str, precision: str, engine: Engine) -> None:
    """Add an engine's answers to `golden.json`, for a model file in one precision."""
    path, every = folder / NAME, _read(folder)
    rounded = {
        name: [[_rounded(v) for v in row] for row in _rows(values)]
        for name, values in engine(question(engine.contract)).items()
    }
    every.setdefault(stem, {}).update({precision: rounded, CONTRACT: _stored(engine.contract)})
    write_whole(path, f"{json.dumps(every)}\n".encode())


def _rounded(value: float) -> float | None:
    """A few digits of a number; None for NaN, a class that a model does not know."""
    return None if np.isnan(value) else float(f"{value:.{DIGITS}g}")


def rounding_scale(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """(inputs, classes) → (inputs, 1), 1 or more: how much further apart engines may answer an input.

    They round relative to its largest activations. Logits of thousands, as of a network that was
    trained for a few steps, differ by 0.1 and mean the same.
    """
    largest: NDArray[np.float32] = np.nanmax(np.abs(logits), axis=1, keepdims=True)
    return np.maximum(1.0, largest / SATURATED_LOGIT)


def recorded(
    folder: Path, stems: Sequence[str], precisions: Sequence[str]
) -> tuple[Sequence[str], list[str]]:
    """The precisions that have answers for every model file, and a line for each that lacks some."""
    every = _read(folder)
    kept = [name for name in precisions if all(name in every.get(stem, {}) for stem in stems)]
    lost = [name for name in precisions if name not in kept]
    return kept, [f"{NAME} has no answers in {name}, so it is not used" for name in lost]


def fault(folder: Path, stem: str, precision: str, contract: Contract, answers: Answers) -> str:
    """How a model file differs from what was recorded; empty where it agrees or nothing was.

    Parameters
    ----------
    answers : to `question`, output → (2, classes) or (1, frames, classes)
    """
    of_stem = _read(folder).get(stem, {})
    exported, now = of_stem.get(CONTRACT, {}), _stored(contract)
    if altered := [
        f"{key} is {now[key]}, not {exported[key]}" for key in exported if exported[key] != now[key]
    ]:
        return f"its contract was altered: {'; '.join(altered)}"
    expected = of_stem.get(precision)
    if expected is None:
        return ""
    for name, values in answers.items():
        wanted, given = np.asarray(expected[name], dtype=np.float32), _rows(values)
        if (np.isnan(wanted) != np.isnan(given)).any():
            return f"golden input: {name} has answers for other classes, or NaN"
        is_logit = not name.endswith(("clipwise", "attention"))
        limits = LOGIT_TOLERANCE if is_logit else CLIPWISE_TOLERANCE
        scale = rounding_scale(wanted) if is_logit else 1.0
        off = float(np.nanmax(np.abs(wanted - given) / scale))
        if not off <= limits[precision]:
            return f"golden input: {name} is off by {off:.2g} > {limits[precision]}"
    return ""


def _rows(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Answers as (inputs or frames, classes)."""
    return values.reshape(-1, values.shape[-1])


def _read(folder: Path) -> dict[str, Any]:
    """Model file → precision → recorded answers; empty where none were recorded."""
    path = folder / NAME
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def _stored(contract: Contract) -> dict[str, Any]:
    """A contract as JSON values, without the members: a run may leave out some."""
    values = json.loads(json.dumps(asdict(contract)))
    del values["members"]
    return dict(values)
