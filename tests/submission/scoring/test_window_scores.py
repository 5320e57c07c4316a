"""Windows of a recording from framewise answers: pooling, stretches, padding, mixed members."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from birdkit import grid
from birdkit.activations import sigmoid
from birdkit.contract import Contract
from birdkit.engines.engine import Answers
from birdkit.scoring.ensemble import Ensemble, Spec
from birdkit.scoring.parts import PART_WINDOWS, SoundFile
from birdkit.scoring.passes import Pass
from birdkit.scoring.pooling import POOLINGS, Frames, pool
from birdkit.scoring.predict import predict
from birdkit.scoring.window_scores import window_scores

Array = NDArray[np.float32]

RATE = 8
WINDOWED = Contract(RATE, 5.0, 5.0, ("low", "high"))
MINUTE = WINDOWED.over_stretches(60.0, 0.5)  # ten frames a window
LENGTHS_S = [0.3, 5.0, 59.9, 61.0, 600.0]


class Listens:
    """Answers with each frame's mean, so that every score is known; silence has the largest of all."""

    def __init__(self, contract: Contract) -> None:
        self.contract = contract
        self.heard: list[int] = []

    def __call__(self, inputs: Array) -> Answers:
        self.heard += [len(inputs)]
        contract = self.contract
        if not contract.stretch_s:
            loudest = self.logits(inputs.reshape(len(inputs), -1, RATE // 2)).max(axis=1)
            return {"clipwise": sigmoid(loudest), "segmentwise": loudest}
        frames = inputs.reshape(len(inputs), -1, round(contract.frame_s * RATE))
        logits = self.logits(frames)
        return {"framewise": logits, "attention": np.tanh(logits)}

    @staticmethod
    def logits(frames: Array) -> Array:
        mean = frames.mean(axis=-1)
        mean = np.where((frames == 0).all(axis=-1), 50.0, mean)
        return np.stack([mean, -mean], axis=-1).astype(np.float32)


def sound(seconds: float, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    return rng.standard_normal(max(1, round(seconds * RATE))).astype(np.float32)


def scores(engine: Listens, waveform: Array, count: int, **named: object) -> dict[str, Array]:
    return window_scores(engine, waveform, count, **named)[""]  # type: ignore[arg-type]


def slowly(frames: Frames, end_s: float, index: int, output: str, pooling: str) -> Array:
    """One window's probabilities, term by term."""
    logits, attention, middles = frames.logits, frames.attention, frames.middles_s
    total, share = np.zeros(logits.shape[1]), 0.0
    for moved, weight in POOLINGS[pooling]:
        start = 5.0 * (index + moved)
        inside = [i for i, t in enumerate(middles) if start <= t < start + 5.0 and 0 <= t < end_s]
        if inside:
            p = [1 / (1 + np.exp(-logits[i].astype(np.float64))) for i in inside]
            w = [np.exp(attention[i].astype(np.float64)) for i in inside]
            mean = sum(a * b for a, b in zip(w, p, strict=True)) / sum(w)
            total += weight * (np.max(p, axis=0) if output == "segmentwise" else mean)
            share += weight
    return np.asarray(total / share, dtype=np.float32)


@given(
    st.integers(0, 1000),
    st.integers(1, 6),
    st.floats(0.2, 2.4),
    st.sampled_from(["clipwise", "segmentwise"]),
    st.sampled_from(sorted(POOLINGS)),
)
def test_pooling_is_its_definition(
    seed: int, count: int, frame_s: float, output: str, pooling: str
) -> None:
    rng = np.random.default_rng(seed)
    contract = replace(MINUTE, frame_s=frame_s)
    middles = grid.frame_middles(round(5.0 * count / frame_s) + 2, contract)
    logits = rng.normal(-2, 3, (middles.size, 3)).astype(np.float32)
    attention = np.tanh(rng.standard_normal((middles.size, 3))).astype(np.float32)
    end_s = 5.0 * count - rng.uniform(0, 2)
    frames = Frames(logits, attention, middles)
    found = pool(frames, end_s, count, 5.0, output, pooling)
    for index in range(count):
        expected = slowly(frames, end_s, index, output, pooling)
        np.testing.assert_allclose(found[index], expected, rtol=1e-5, atol=1e-7)


def test_soft_counts_a_window_the_less_the_further_it_is_moved() -> None:
    assert POOLINGS["soft"] == ((-0.5, 0.5), (-0.25, 0.75), (0.0, 1.0), (0.25, 0.75), (0.5, 0.5))
    assert POOLINGS["plain"] == ((0.0, 1.0),)


@pytest.mark.parametrize("pooling", sorted(POOLINGS))
@pytest.mark.parametrize("seconds", LENGTHS_S)
@pytest.mark.parametrize("output", ["clipwise", "segmentwise"])
def test_padding_answers_for_nothing(seconds: float, output: str, pooling: str) -> None:
    """The engine is sure of every class where it hears silence."""
    waveform = sound(seconds)
    count = grid.n_windows(waveform.size, MINUTE)
    found = scores(Listens(MINUTE), waveform, count, pooling=pooling)[output]
    assert found.shape == (count, 2)
    assert found.max() < 0.99
    longer = scores(Listens(MINUTE), np.append(waveform, sound(70.0, 1)), count, pooling=pooling)[
        output
    ]
    np.testing.assert_allclose(found[: count - 2], longer[: count - 2], atol=1e-6)


@pytest.mark.parametrize("pooling", sorted(POOLINGS))
def test_a_window_beyond_the_recording_has_the_answer_to_silence(pooling: str) -> None:
    """As of models that hear a window at a time; a call at the end is in no row behind it."""
    found = scores(Listens(MINUTE), sound(12.0), 12, pooling=pooling)
    for output in ("clipwise", "segmentwise"):
        assert found[output][:3].max() < 0.99
        assert found[output][3:, 0].min() > 0.99  # this engine is sure of what it hears in silence


def test_a_recording_that_reaches_into_a_window_by_less_than_half_a_frame_is_what_it_answers_for() -> (
    None
):
    waveform = sound(5.2)
    found = scores(Listens(MINUTE), waveform, 2)["segmentwise"]
    padded = np.append(waveform[40:], np.zeros(2, np.float32))[None]
    np.testing.assert_allclose(found[1], sigmoid(Listens.logits(padded)[0]), atol=1e-6)


@pytest.mark.parametrize("shift", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("seconds", [5.0, 61.0, 600.0])
def test_stretches_that_begin_earlier_score_the_same_rows(seconds: float, shift: float) -> None:
    """Of an engine that hears each frame by itself, nothing changes."""
    waveform = sound(seconds)
    count = grid.n_windows(waveform.size, MINUTE)
    engine = Listens(MINUTE)
    plain = scores(engine, waveform, count)
    shifted = scores(engine, waveform, count, shift=shift)
    for output, of in plain.items():
        np.testing.assert_allclose(shifted[output], of, atol=1e-6)
    assert engine.heard == [-(-count // 12), -(-(5 * count + round(60 * shift)) // 60)]


def test_the_frames_that_overhang_a_stretch_are_left_out() -> None:
    """Such a frame hears padding, and the next stretch has its sound."""
    contract = replace(MINUTE, frame_s=60 / 78.5)
    middles = grid.frame_middles(79, contract)
    assert middles[77] < 60.0 < middles[78]

    class Counts(Listens):
        def __call__(self, inputs: Array) -> Answers:
            framewise = np.full((len(inputs), 79, 2), -3.0, dtype=np.float32)
            framewise[:, 78] = 3.0
            return {"framewise": framewise, "attention": np.zeros_like(framewise)}

    found = scores(Counts(contract), sound(120.0), 24, pooling="soft")
    assert found["segmentwise"].max() == pytest.approx(1 / (1 + np.exp(3.0)), rel=1e-5)


@pytest.mark.parametrize("shift", [0.0, 0.5])
@pytest.mark.parametrize("seconds", LENGTHS_S)
def test_members_by_window_answer_as_those_that_hear_windows(seconds: float, shift: float) -> None:
    """The last frame of each window overhangs it and says what is in none."""
    waveform = sound(seconds)
    count = grid.n_windows(waveform.size, MINUTE)

    class Windows(Listens):
        def __call__(self, inputs: Array) -> Answers:
            own = super().__call__(inputs)["framewise"].reshape(len(inputs), 12, 10, 2)
            overhang = np.full((len(inputs), 12, 1, 2), 9.0, dtype=np.float32)
            framewise = np.concatenate([own, overhang], axis=2).reshape(len(inputs), -1, 2)
            return {"framewise": framewise, "attention": np.zeros_like(framewise)}

    by_window = Windows(replace(MINUTE, by_window=("",)))
    found = scores(by_window, waveform, count, pooling="soft", shift=shift)
    expected = scores(Listens(MINUTE), waveform, count, pooling="plain", shift=shift)
    np.testing.assert_allclose(found["segmentwise"], expected["segmentwise"], atol=1e-6)


def test_members_of_windows_and_of_stretches_stand_in_one_ensemble() -> None:
    engines = {"windows": Listens(WINDOWED), "minutes": Listens(MINUTE)}
    spec = Spec({"minutes": 1.0, "windows": 1.0}, "segmentwise")
    both = Ensemble(engines, spec)
    found = both.score(sound(60.0), 12)
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)  # half a second is a frame for both
    assert both.contract == WINDOWED
    assert both.windows_heard(13) == 24
    assert both.windows_heard(12, 0.5) == 24
    alone = Ensemble({"windows": engines["windows"]}, Spec({"windows": 1.0}, "segmentwise"))
    assert alone.windows_heard(13, 0.5) == 14


@pytest.mark.parametrize("pooling", sorted(POOLINGS))
@pytest.mark.parametrize("n_windows", [PART_WINDOWS, PART_WINDOWS + 1, 3 * PART_WINDOWS + 5])
def test_the_parts_of_a_recording_change_nothing(n_windows: int, pooling: str, tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    waveform = np.clip(0.2 * sound(5.0 * n_windows), -1, 1)
    soundfile.write(path, waveform, RATE, "FLOAT")
    ensemble = Ensemble({"m": Listens(MINUTE)}, Spec({"m": 1.0}, "segmentwise", pooling=pooling))
    (found,) = predict([SoundFile(path, n_windows)], ensemble.score, ensemble.contract).scores
    assert found is not None
    np.testing.assert_allclose(found, ensemble.score(waveform, n_windows), atol=1e-6)


@pytest.mark.parametrize(("n_windows", "shift"), [(12, 0.0), (25, 0.0), (70, 0.0), (70, 0.5)])
def test_a_pass_is_planned_with_all_that_it_hears(n_windows: int, shift: float, tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    soundfile.write(path, 0.1 * sound(5.0 * n_windows), RATE, "FLOAT")
    engine = Listens(MINUTE)
    ensemble = Ensemble({"m": engine}, Spec({"m": 1.0}, "segmentwise"))
    file = SoundFile(path, n_windows)
    predict([file], partial(ensemble.score, shift=shift), ensemble.contract)
    assert Pass(shift).cost([file], ensemble) == 12 * sum(engine.heard)
    if not shift:  # a later part takes no stretch more than the first
        assert max(engine.heard) == engine.heard[0]
