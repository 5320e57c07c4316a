"""The gate: an exported model answers as its torch original does, or it is not written.

Inputs are noise, a chirp, digital silence, a -80 dB signal, a clipped one and real audio, in batches
of 1, 5 and 12; of a model that hears stretches, every frame, in batches of 1 and 2. They must spread
the answers, or agreement would prove nothing: where they spread them little, as in a model that was
trained for a few steps, differences are magnified before the judgement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from birdkit import audio
from birdkit.activations import sigmoid
from birdkit.contract import Contract
from birdkit.engines.engine import Answers, Engine
from birdkit.engines.golden import SATURATED_LOGIT, rounding_scale
from birdkit.errors import UserError
from birdkit.grid import MINUTE_S, cut_inputs, n_windows
from birdkit.scoring.pooling import of_span
from birdkit.scoring.window_scores import probabilities
from train.data.progress import bar

BATCHES = (1, 5, 12)
STRETCH_BATCHES = (1, 2)
# In f32 the engines agree with torch to about 1e-6; a much larger error means another model.
PROBABILITY_TOLERANCE = 1e-4
LOGIT_TOLERANCE = 1e-3  # where probabilities are not saturated; larger logits round by more
# Clipwise values come out small, so they are held to their own size; below the floor is rounding.
CLIPWISE_RELATIVE_TOLERANCE = 1e-3
CLIPWISE_FLOOR = 1e-6
# Differences are judged as if the inputs moved the probabilities by this much, where it is less.
FULL_SPREAD = 0.1
# Magnified more than a thousandfold, rounding would be judged.
MIN_SPREAD = 1e-4
N_SIGNALS = 8
HEARD_S = MINUTE_S  # of a recording, which may last for hours

Outputs = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Parity:
    """The largest differences of an engine from torch over all inputs."""

    engine: str
    probability: float  # magnified by `magnification(spread)`
    logit: float  # over `_logit_scale`
    clipwise_relative: float
    rank_flips: int  # pairs of windows, ordered by torch with a margin, that the engine swaps
    spread: float  # of sigmoid(segmentwise) over the inputs, in the class that moves most
    n_inputs: int

    def faults(self) -> list[str]:
        limits = (
            ("probabilities differ by", self.probability, PROBABILITY_TOLERANCE),
            ("logits differ by", self.logit, LOGIT_TOLERANCE),
            ("clipwise differs, relative to itself, by", self.clipwise_relative,
             CLIPWISE_RELATIVE_TOLERANCE),
        )  # fmt: skip
        # Written so that NaN is a fault.
        faults = [f"{text} {value:.1e} > {at}" for text, value, at in limits if not value <= at]
        if self.rank_flips:
            faults.append(f"{self.rank_flips} pairs of windows change their order")
        if not self.spread >= MIN_SPREAD:
            audio_too = ", or give real audio with --data" if self.n_inputs == N_SIGNALS else ""
            faults.append(
                f"the inputs move the answers by {self.spread:.1e} < {MIN_SPREAD} only, so nothing "
                f"is proven: train longer{audio_too}"
            )
        return faults

    def __str__(self) -> str:
        return (
            f"{self.engine:<12} |Δp| {self.probability:.1e}  |Δlogit| {self.logit:.1e}  "
            f"clipwise {self.clipwise_relative:.1e}  rank flips {self.rank_flips}  "
            f"spread {self.spread:.2g}  {'FAILS' if self.faults() else 'ok'}"
        )


def magnification(spread: float) -> float:
    """The factor, 1 or more, that makes of a spread of the probabilities `FULL_SPREAD`."""
    return max(1.0, FULL_SPREAD / max(spread, MIN_SPREAD))


def probe_inputs(contract: Contract, recordings: Sequence[Path] = ()) -> NDArray[np.float32]:
    """(inputs, input_samples): the synthetic signals, then what a model hears of the recordings."""
    n, rate = contract.input_samples, contract.sample_rate
    length_s = n / rate
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(n)
    t = np.arange(n) / rate
    sweep = np.sin(2 * np.pi * (200 * t + (0.45 * rate - 200) * t**2 / (2 * length_s)))
    pulses = np.sin(2 * np.pi * 4000 * t) * (np.sin(2 * np.pi * 7 * t) > 0)
    signals = [
        0.1 * noise,
        0.5 * sweep,
        np.zeros(n),
        1e-4 * noise,
        np.clip(4.0 * sweep, -1, 1),
        0.3 * pulses + 0.01 * noise,
        np.where(t < length_s / 2, 0.3 * sweep, 0.0),
        0.5 * np.sin(2 * np.pi * 1000 * t),
    ]
    inputs = [np.array(signals, dtype=np.float32)]
    for path in recordings:
        waveform = audio.read(path, contract.sample_rate, max_s=HEARD_S)
        inputs.append(cut_inputs(waveform, n_windows(waveform.size, contract), contract))
    return np.concatenate(inputs)


def answers(engine: Engine, inputs: NDArray[np.float32]) -> Answers:
    """All inputs' answers, asked for in batches of several sizes in turn."""
    batches = STRETCH_BATCHES if engine.contract.stretch_s else BATCHES
    parts: list[Outputs] = []
    start = 0
    with tqdm(total=len(inputs), **bar("comparing")) as answered:
        while start < len(inputs):
            batch = inputs[start : start + batches[len(parts) % len(batches)]]
            parts.append(engine(batch))
            start += len(batch)
            answered.update(len(batch))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def refuse(report: Mapping[str, Sequence[Parity]], consequence: str) -> None:
    """Raise `UserError` with every fault of every member, by name, where there is any."""
    faults = [
        f"{member} in {comparison.engine}: {fault}"
        for member, compared in report.items()
        for comparison in compared
        for fault in comparison.faults()
    ]
    if faults:
        raise UserError(f"parity refused, {consequence}: {'; '.join(faults)}")


def compare(reference: Outputs, candidate: Outputs, engine: str) -> Parity:
    """Worst differences of two sets of answers.

    Each output is (inputs, classes), or (inputs, frames, classes) of a model that hears stretches.
    """
    attention_off = 0.0
    if "framewise" in reference:
        attention_off = float(np.abs(reference["attention"] - candidate["attention"]).max())
        reference, candidate = _of_frames(reference), _of_frames(candidate)
    clipwise, segmentwise = reference["clipwise"], reference["segmentwise"]
    of_reference = probabilities(reference, "segmentwise")
    of_candidate = probabilities(candidate, "segmentwise")
    clipwise_off = np.abs(clipwise - candidate["clipwise"])
    scale = _logit_scale(segmentwise, candidate["segmentwise"])
    logit_off = np.abs(segmentwise - candidate["segmentwise"]) / scale
    spread = float(np.ptp(of_reference, axis=0).max())
    factor = magnification(spread)
    margin = PROBABILITY_TOLERANCE / factor
    return Parity(
        engine=engine,
        probability=factor * float(max(np.abs(of_reference - of_candidate).max(), clipwise_off.max())),
        logit=float(np.maximum(logit_off.max(), attention_off)),
        clipwise_relative=float((clipwise_off / (np.abs(clipwise) + CLIPWISE_FLOOR)).max()),
        rank_flips=_rank_flips(of_reference, of_candidate, margin)
        + _rank_flips(clipwise, candidate["clipwise"], margin),
        spread=spread,
        n_inputs=len(clipwise),
    )


def _logit_scale(reference: NDArray[np.float32], candidate: NDArray[np.float32]) -> NDArray[np.float32]:
    """(inputs, classes), 1 or more: how much further apart two logits may be.

    As far as its input's largest one rounds; and a logit that is saturated in both, by its own size: a
    network that was trained for a few steps magnifies its first layers' rounding, and its probability
    is 0 or 1 all the same.
    """
    smaller = np.minimum(np.abs(reference), np.abs(candidate))
    saturated = (smaller > SATURATED_LOGIT) & (np.sign(reference) == np.sign(candidate))
    return np.maximum(rounding_scale(reference), np.where(saturated, smaller, 1.0))


def _of_frames(outputs: Outputs) -> Outputs:
    """Every frame as if it were a window's segmentwise, and a stretch's clipwise."""
    framewise, weights = outputs["framewise"], np.exp(outputs["attention"])
    stretches = zip(sigmoid(framewise), weights, strict=True)
    clipwise = np.stack([of_span(of_frames, own) for of_frames, own in stretches])
    return {"clipwise": clipwise, "segmentwise": framewise.reshape(-1, framewise.shape[-1])}


def _rank_flips(reference: NDArray[np.float32], candidate: NDArray[np.float32], margin: float) -> int:
    """Pairs of inputs, class by class, more than `margin` apart in one and the other way round in
    the other."""
    flips = 0
    for ours, theirs in zip(reference.T, candidate.T, strict=True):
        above = ours[:, None] - ours[None, :] > margin
        # Not `<=`: NaN must count as a flip.
        flips += int((above & ~(theirs[:, None] > theirs[None, :])).sum())
    return flips
