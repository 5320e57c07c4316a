"""Trains a probe: what a linear layer makes of a model's embedding, for the classes of this data.

It hears the samples that a model of the kit is trained with, augmented as they are: far away, mixed and
under noise, which recordings of single birds are not. Ghani et al. 2023, Global birdsong embeddings
enable superior transfer learning for bioacoustic classification.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from tqdm import tqdm

from birdkit.errors import UserError
from birdkit.log import LOG
from birdkit.outside.model import OutsideModel
from birdkit.outside.probe import Probe, directions
from train.config.job import Job
from train.config.settings import Recipe
from train.data import dataset as data
from train.data import progress
from train.data.batches import Batches

# The inverse of the penalty on the weights, of standardised directions (docs/experiments.md).
C = 0.01
MOST_STEPS = 300  # of the solver


def samples(folder: Path, job: Job, classes: Sequence[str], chunk_s: float, cache: Path) -> Batches:
    """Batches of the recordings of a data folder, as a model of this job drew them.

    Labelled soundscapes are not among them: they choose how much the probe counts.

    Parameters
    ----------
    classes : of the model folder, in order
    chunk_s : as long as what the member will hear at once

    Raises
    ------
    UserError
        For data of other classes, or what can't be read or decoded.
    """
    job = replace(
        job,
        augment=replace(job.augment, background=0.0),  # cut from soundscapes, which choose
        data=replace(job.data, chunk_s=chunk_s, fold=-1),  # no recordings judge it
    )
    recipe = Recipe(job.recipe, frontend=job.frontend, data=job.data, fit=job.fit)
    dataset, _ = data.read([folder], recipe, cache)
    if tuple(dataset.competition.classes) != tuple(classes):
        raise UserError(
            f"{folder}: has {len(dataset.competition.classes)} classes, not the {len(classes)} of the "
            "model folder; give the data that trained it"
        )
    dataset, lines = data.prepare(dataset, [job], cache, unlabelled=False)
    for line in lines:
        LOG.info(line)
    sources = replace(dataset.sources(job), truth=None)
    return Batches(sources, dataset.contract(job), job)


def train(model: OutsideModel, batches: Batches, n_samples: int, share: float) -> Probe:
    """A probe on what the model hears of so many samples, or a few more: of whole batches."""
    contract, embeddings, targets = batches.contract, [], []
    steps = math.ceil(n_samples / len(batches.own))
    for step in tqdm(range(steps), **progress.bar(f"{model.card.name} hears samples")):
        chunks, of_batch = (tensor.numpy() for tensor in batches[step][:2])
        heard = model.hear(chunks.reshape(-1), contract.sample_rate, len(chunks), contract.chunk_s)
        assert heard.embeddings is not None
        embeddings.append(heard.embeddings)
        targets.append(of_batch)
    return fit(np.concatenate(embeddings), np.concatenate(targets), share)


def fit(embeddings: NDArray[np.float32], targets: NDArray[np.float32], share: float) -> Probe:
    """A logistic regression for each class on the standardised directions of embeddings.

    Parameters
    ----------
    embeddings : (samples, dims)
    targets : (samples, classes) from 0 to 1; NaN cells are left out, and from 0.5 on a class is there
    share : what the probe is to say of itself

    Returns
    -------
    The probe; a class that is in no sample, or in all, was not taught.
    """
    inputs = directions(embeddings).astype(np.float64)
    mean, deviation = inputs.mean(axis=0), np.maximum(inputs.std(axis=0), 1e-6)
    inputs = (inputs - mean) / deviation
    weights = np.zeros((inputs.shape[1], targets.shape[1]))
    bias = np.full(targets.shape[1], np.nan)
    for column in tqdm(range(targets.shape[1]), **progress.bar("classes of the probe")):
        decided = ~np.isnan(targets[:, column])
        there = targets[decided, column] >= 0.5
        if not 0 < there.sum() < there.size:
            continue
        fitted = LogisticRegression(C=C, max_iter=MOST_STEPS).fit(inputs[decided], there)
        weights[:, column], bias[column] = fitted.coef_[0], fitted.intercept_[0]
    weights /= deviation[:, None]
    bias -= mean @ weights
    return Probe(weights.astype(np.float32), bias.astype(np.float32), share)
