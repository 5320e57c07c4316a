"""A probe learns what its samples say, and from no cell that is unknown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import scale

from birdkit.engines.layout import Layout
from birdkit.errors import UserError
from birdkit.outside.model import open_model
from birdkit.outside.probe import directions
from tests.submission.outside import stand_in
from train.config import recipe as recipes
from train.config.job import Job, job_of
from train.outside import probe as probes
from train.rounds.class_table import names_of


@pytest.fixture(scope="module")
def job() -> Job:
    recipe = recipes.load("demo")
    return job_of(recipe, 0, recipe.models[0].name or "tf_efficientnet_lite0")


def embeddings_of(there: np.ndarray, seed: int) -> np.ndarray:
    """(samples, 8): a direction of its own for each class, under noise."""
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(np.random.default_rng(9).standard_normal((8, 8)))[0][:3]
    noise = 0.1 * rng.standard_normal((len(there), 8))
    return np.asarray((there @ directions + noise) * rng.uniform(1, 9, (len(there), 1)), np.float32)


def test_it_tells_classes_apart_in_samples_that_it_has_not_heard() -> None:
    rng = np.random.default_rng(0)
    there, others = (np.eye(3, dtype=np.float32)[rng.integers(0, 3, n)] for n in (90, 60))
    probe = probes.fit(embeddings_of(there, 1), there, 0.5)
    logits = probe(embeddings_of(others, 2))
    assert (logits.argmax(axis=1) == others.argmax(axis=1)).all()
    assert probe.share == 0.5


def test_unknown_cells_teach_nothing_and_a_class_in_no_sample_was_not_taught() -> None:
    rng = np.random.default_rng(0)
    there = np.eye(3, dtype=np.float32)[rng.integers(0, 3, 90)]
    embeddings, targets = embeddings_of(there, 1), there.copy()
    hidden = rng.random(90) < 0.3
    targets[hidden, 0] = np.nan
    logits = probes.fit(embeddings, targets, 0.5)(embeddings)
    inputs = scale(directions(embeddings).astype(np.float64))
    by_hand = LogisticRegression(C=probes.C, max_iter=1000).fit(inputs[~hidden], there[~hidden, 0])
    np.testing.assert_allclose(logits[:, 0], by_hand.decision_function(inputs), atol=1e-3)
    targets[:, 2] = 0.0
    assert list(probes.fit(embeddings, targets, 0.5).known) == [True, True, False]


def test_it_hears_the_samples_of_a_training_run_and_no_labelled_soundscape(
    competition: Path, job: Job, tmp_path: Path
) -> None:
    classes = tuple(names_of([competition]).index)
    batches = probes.samples(competition, job, classes, 5.0, tmp_path)
    assert batches.truth is None
    assert batches.pseudo is None
    longer = probes.samples(competition, job, classes, 10.0, tmp_path)
    assert longer[0][0].shape[1] == 2 * batches[0][0].shape[1]
    path = stand_in.write(tmp_path, stand_in.card_of(("Speech",)))
    model = open_model(path, Layout(1, 1, 4), embeddings=True)
    probe = probes.train(model, batches, 2 * len(batches.own) - 1, 0.25)
    chunks, targets = zip(*(batches[step] for step in range(2)), strict=True)
    heard = [stand_in.answers(stand_in_inputs(each.numpy()), 1)[0] for each in chunks]
    again = probes.fit(np.concatenate(heard), np.concatenate([each.numpy() for each in targets]), 0.25)
    np.testing.assert_array_equal(probe.known, again.known)
    np.testing.assert_allclose(probe.weights, again.weights, atol=1e-2 * np.abs(again.weights).max())
    with pytest.raises(UserError, match=rf"has {len(classes)} classes, not the 1 of the model folder"):
        probes.samples(competition, job, ("another",), 5.0, tmp_path)


def stand_in_inputs(chunks: np.ndarray) -> np.ndarray:
    """Chunks as Perch hears them: without their mean, the peak at 0.25."""
    centred = chunks - chunks.mean(axis=1, keepdims=True)
    return np.asarray(0.25 * centred / np.abs(centred).max(axis=1, keepdims=True), np.float32)
