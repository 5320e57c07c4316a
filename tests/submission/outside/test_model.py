"""Models from outside on the kit's windows: what they hear, what they answer, and bad files."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from birdkit import audio
from birdkit.activations import logit, sigmoid, softmax
from birdkit.engines.layout import Layout
from birdkit.errors import UserError
from birdkit.outside import card as cards
from birdkit.outside import presets
from birdkit.outside.model import cut, open_model, open_with, own_starts, scaled
from birdkit.outside.runners import with_output
from tests.conftest import write_sound
from tests.submission.outside import stand_in
from tests.submission.outside.stand_in import LABELS, card_of

ENGINES = ("openvino", "onnxruntime")


def noise(seconds: float, rate: int = 32_000) -> NDArray[np.float32]:
    return (0.1 * np.random.default_rng(1).standard_normal(round(seconds * rate))).astype(np.float32)


@pytest.mark.parametrize("engine", ENGINES)
def test_each_window_is_scaled_scored_and_embedded_as_the_model_wants_it(
    tmp_path: Path, engine: str
) -> None:
    path = stand_in.write(tmp_path, card_of())
    waveform = noise(11) + np.float32(0.05)
    heard = open_model(path, Layout(1, 1, 2), engine=engine, embeddings=True).hear(waveform, 32_000, 3)
    windows = np.zeros((3, 160_000), dtype=np.float32)
    windows.reshape(-1)[: waveform.size] = waveform
    windows -= windows.mean(axis=1, keepdims=True)
    windows *= 0.25 / np.abs(windows).max(axis=1, keepdims=True)
    embeddings, logits = stand_in.answers(windows, len(LABELS))
    assert heard.embeddings is not None
    np.testing.assert_allclose(heard.embeddings, embeddings, atol=1e-4)
    np.testing.assert_allclose(heard.scores, softmax(logits), atol=1e-4)
    assert heard.scores.shape == (3, len(LABELS))


def test_a_recording_at_another_rate_is_resampled(tmp_path: Path) -> None:
    model = open_model(stand_in.write(tmp_path, card_of()), Layout(1, 1, 2))
    sound = write_sound(tmp_path / "a.wav", 12, rate=48_000)
    from_file = model.read(sound, 3).scores
    from_samples = model.hear(audio.read(sound, 48_000), 48_000, 3).scores
    np.testing.assert_allclose(from_file, from_samples, atol=1e-3)


def test_silence_stays_silent_and_windows_beyond_the_end_are_silence(tmp_path: Path) -> None:
    model = open_model(stand_in.write(tmp_path, card_of()), Layout(1, 1, 4), embeddings=True)
    heard = model.hear(np.zeros(1, dtype=np.float32), 32_000, 30)
    assert heard.embeddings is not None
    np.testing.assert_array_equal(heard.embeddings, 0.0)
    np.testing.assert_allclose(heard.scores, 1 / len(LABELS), atol=1e-6)


@pytest.mark.parametrize(
    ("own_s", "starts"),
    [(3.0, [0, 1, 2]), (4.0, [0, 1]), (5.0, [0.0]), (2.0, [0, 0.6, 1.2, 1.8, 2.4, 3]), (10.0, [-2.5])],
)
def test_own_windows_cover_a_window_of_the_grid(own_s: float, starts: list[float]) -> None:
    np.testing.assert_allclose(own_starts(5.0, own_s), starts)
    assert own_starts(5.0, own_s)[-1] + own_s >= 5.0


def test_a_window_takes_the_best_score_and_the_mean_embedding_of_those_within_it(
    tmp_path: Path,
) -> None:
    card = card_of(sample_rate=40_000, window_s=4.0, scaling="none", activation="sigmoid")
    model = open_model(stand_in.write(tmp_path, card), Layout(1, 1, 2), embeddings=True)
    waveform = noise(10, 40_000) * np.linspace(0, 1, 400_000, dtype=np.float32)
    heard = model.hear(waveform, 40_000, 2)
    inputs = cut(waveform, [0, 1, 5, 6], card)
    embeddings, logits = stand_in.answers(inputs, len(LABELS))
    np.testing.assert_allclose(heard.scores, sigmoid(logits.reshape(2, 2, -1).max(axis=1)), atol=1e-4)
    assert heard.embeddings is not None
    np.testing.assert_allclose(heard.embeddings, embeddings.reshape(2, 2, -1).mean(axis=1), atol=1e-4)


def test_a_cut_before_the_start_is_padded_with_silence() -> None:
    card = card_of(sample_rate=10, window_s=1.0)
    waveform = np.arange(1, 16, dtype=np.float32)
    inputs = cut(waveform, [-0.5, 0.2, 1.2, 9.0], card)
    np.testing.assert_array_equal(inputs[0], [0] * 5 + [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(inputs[1], np.arange(3, 13))
    np.testing.assert_array_equal(inputs[2], [13, 14, 15, *[0] * 7])
    np.testing.assert_array_equal(inputs[3], np.zeros(10))
    np.testing.assert_allclose(np.abs(scaled(inputs, card)).max(axis=1), [0.25, 0.25, 0.25, 0])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output": "logits"}, "has no tensor logits, but .*label"),
        ({"input": "waveform"}, "has no input waveform, but inputs"),
        (
            {"sample_rate": 48_000},
            r"takes 160000 samples, and its card says 240000 \(5 s at 48000 Hz\)",
        ),
        ({"window_s": 3.0}, "takes 160000 samples, and its card says 96000"),
    ],
)
def test_a_file_that_is_not_as_its_card_says_is_a_named_error(
    tmp_path: Path, engine: str, changes: dict[str, Any], message: str
) -> None:
    path = stand_in.write(tmp_path, card_of(**changes))
    with pytest.raises(UserError, match=message):
        open_model(path, Layout(1, 1, 2), engine=engine)


def test_an_embedding_that_is_missing_is_a_named_error(tmp_path: Path) -> None:
    path = stand_in.write(tmp_path, card_of(embedding="features"))
    with pytest.raises(UserError, match="has no tensor features"):
        open_model(path, embeddings=True)
    with pytest.raises(UserError, match="names no embedding"):
        open_model(stand_in.write(tmp_path, card_of(embedding="")), embeddings=True)


def test_nan_answers_and_other_numbers_of_labels_are_named_errors(tmp_path: Path) -> None:
    broken = open_model(stand_in.write(tmp_path, card_of(), scale=np.nan), Layout(1, 1, 2))
    with pytest.raises(UserError, match=r"perch\.onnx: answers with NaN"):
        broken.hear(noise(5), 32_000, 1)
    path = stand_in.write(tmp_path, card_of())
    card_of(labels=LABELS[:2]).save(path)
    with pytest.raises(UserError, match="answers 4 scores, and its card has 2 labels"):
        open_model(path, Layout(1, 1, 2)).hear(noise(5), 32_000, 1)


def test_a_file_that_no_engine_reads_is_named_with_what_each_said(tmp_path: Path) -> None:
    path = stand_in.write(tmp_path, card_of())
    (tmp_path / "perch.onnx").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"no engine runs it .*openvino: .*onnxruntime: "):
        open_model(path)
    (tmp_path / "perch.onnx").unlink()
    with pytest.raises(UserError, match=r"perch\.onnx: not found"):
        open_model(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "torch"}, "kind 'torch' is none of onnx, tflite"),
        ({"scaling": "rms"}, "scaling 'rms' is none of"),
        ({"activation": "tanh"}, "activation 'tanh' is none of"),
        ({"version": 9}, "version '9' is none of 1"),
        ({"sample_rate": 0}, "sample_rate 0"),
        ({"labels": []}, "labels names nothing"),
    ],
)
def test_a_bad_card_is_a_named_error(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "a.outside.json"
    path.write_text(json.dumps(asdict(card_of()) | changes))
    with pytest.raises(UserError, match=message):
        cards.load(path)


def test_a_card_that_is_none_is_a_named_error(tmp_path: Path) -> None:
    path = tmp_path / "a.outside.json"
    for text, message in [("[]", "no JSON object"), ("{", "can't be read"), ("{}", "is no card")]:
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            cards.load(path)
    card_of().save(path, more=1)
    assert cards.load(path) == card_of()


def test_a_logit_is_finite_and_leads_back() -> None:
    p = np.array([0, 1e-9, 0.3, 0.999, 1, np.nan], dtype=np.float32)
    assert np.isfinite(logit(p)[:-1]).all()
    np.testing.assert_allclose(sigmoid(logit(p)), p, atol=2e-6)


@pytest.mark.slow  # takes seconds, and BirdNET
def test_birdnet_hears_and_its_scores_follow_from_its_embedding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ai_edge_litert.interpreter")
    try:
        card, file = presets.birdnet()
    except UserError:
        pytest.skip("BirdNET is not installed")
    waveform = noise(10, 48_000)
    plain = open_with(card, file, Layout(1, 1, 2)).hear(waveform, 48_000, 2)
    both = open_with(card, file, Layout(1, 1, 2), embeddings=True).hear(waveform, 48_000, 2)
    np.testing.assert_allclose(both.scores, plain.scores, atol=1e-5)
    assert plain.embeddings is None
    assert both.embeddings is not None
    assert both.embeddings.shape == (2, 1024)
    assert both.embeddings.std() > 0
    # What a model folder holds answers with the embedding by itself: a submission has no flatbuffers.
    (tmp_path / "with.tflite").write_bytes(with_output(file, card.embedding))
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    kept = open_with(card, tmp_path / "with.tflite", Layout(1, 1, 2), embeddings=True)
    again = kept.hear(waveform, 48_000, 2).embeddings
    assert again is not None
    np.testing.assert_allclose(again, both.embeddings, atol=1e-5)
    with pytest.raises(UserError, match="no engine runs it"):
        open_with(card, file, Layout(1, 1, 2), embeddings=True)
