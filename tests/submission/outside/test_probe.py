"""A probe's answers beside those of the model's own labels, and its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from birdkit.activations import logit, sigmoid
from birdkit.errors import UserError
from birdkit.outside.probe import Probe, directions, joined

PROBABILITIES = arrays(np.float32, (3, 4), elements=st.floats(2**-12, 1 - 2**-12, width=32))
UNKNOWN = arrays(np.bool_, 4)


def a_probe(share: float = 0.25) -> Probe:
    rng = np.random.default_rng(0)
    bias = np.array([-1.0, np.nan, 0.5], np.float32)
    return Probe(rng.standard_normal((6, 3)).astype(np.float32), bias, share)


@given(PROBABILITIES, PROBABILITIES, UNKNOWN, UNKNOWN, st.floats(0.0, 1.0))
def test_two_answers_are_a_mean_of_logits_and_one_where_the_other_does_not_know(
    own: np.ndarray, probed: np.ndarray, lacked: np.ndarray, untaught: np.ndarray, share: float
) -> None:
    own[:, lacked], probed[:, untaught] = np.nan, np.nan
    mean = joined(own, probed, share)
    both = ~lacked & ~untaught
    expected = sigmoid((1 - share) * logit(own) + share * logit(probed))
    np.testing.assert_allclose(mean[:, both], expected[:, both], rtol=1e-5)
    np.testing.assert_array_equal(mean[:, lacked], probed[:, lacked])
    only_own = untaught & ~lacked
    np.testing.assert_array_equal(mean[:, only_own], own[:, only_own])


def test_a_share_of_nothing_leaves_the_labels_answers_and_adds_the_class_that_they_lack() -> None:
    embeddings = np.random.default_rng(1).standard_normal((2, 6)).astype(np.float32)
    own = np.array([[0.2, 0.3, np.nan], [0.9, 0.1, np.nan]], np.float32)
    answer = a_probe(0.0).beside(own, embeddings)
    np.testing.assert_allclose(answer[:, :2], own[:, :2], rtol=1e-5)
    np.testing.assert_allclose(answer[:, 2], sigmoid(a_probe()(embeddings)[:, 2]))


def test_it_hears_the_direction_of_an_embedding_and_not_its_length() -> None:
    probe = a_probe()
    embeddings = np.random.default_rng(1).standard_normal((5, 6)).astype(np.float32)
    logits = probe(embeddings)
    np.testing.assert_allclose(probe(embeddings * 7), logits, rtol=1e-4)
    by_hand = embeddings[2] / np.linalg.norm(embeddings[2]) @ probe.weights[:, 2] + probe.bias[2]
    np.testing.assert_allclose(logits[2, 2], by_hand, rtol=1e-5)
    assert np.isnan(logits[:, 1]).all()
    assert list(probe.known) == [True, False, True]
    assert np.isfinite(directions(np.zeros((1, 6), np.float32))).all()  # of silence


def test_a_file_gives_back_the_probe_and_a_bad_one_is_named(tmp_path: Path) -> None:
    path, probe = tmp_path / "bird.probe.npz", a_probe()
    probe.save(path)
    read = Probe.load(path)
    np.testing.assert_array_equal(read.weights, probe.weights)
    np.testing.assert_array_equal(read.bias, probe.bias)
    assert read.share == probe.share
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"bird\.probe\.npz: can't be read as a probe"):
        Probe.load(path)
    with pytest.raises(UserError, match="can't be read as a probe"):
        Probe.load(tmp_path / "none.npz")
    Probe(probe.weights, probe.bias[:2], 0.5).save(path)
    with pytest.raises(UserError, match=r"shape \(6, 3\) and \(2,\) biases"):
        Probe.load(path)
