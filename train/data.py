"""Recordings → training batches. Every batch is a function of the seed and its step alone.

So a run that was killed goes on with the batches it would have seen, and the number of loader
processes changes nothing.
"""

from __future__ import annotations

import warnings
from collections import Counter, OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor
from torch.utils.data import Dataset

from birdkit import audio
from birdkit.contract import Contract
from birdkit.errors import UserError
from train.augment import add_noise, mix, noise_bank, to_full_scale
from train.competition import Recording
from train.recipe import Augment, Data, Recipe

# Of decoded audio that a process keeps, so that a small competition is decoded once.
CACHE_BYTES = 1 << 30


def split(
    recordings: Sequence[Recording], data: Data, seed: int
) -> tuple[list[Recording], list[Recording], str]:
    """Training and held-out recordings: StratifiedGroupKFold by author, and a line on what it did.

    A class whose every recording would be held out keeps them in training.
    """
    if data.fold < 0:
        return list(recordings), [], "all recordings train, none is held out"
    if not data.fold < data.n_folds:
        raise UserError(f"data.fold {data.fold} is not below data.n_folds {data.n_folds}")
    labels = [recording.primary for recording in recordings]
    authors = [recording.author for recording in recordings]
    most = min(len(set(authors)), max(Counter(labels).values()))
    if most < data.n_folds:
        raise UserError(
            f"data.n_folds {data.n_folds} is more than these recordings bear ({most}: authors, or "
            "recordings of a class); lower it, or set data.fold=-1 to train on everything"
        )
    folds = StratifiedGroupKFold(data.n_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # Of classes with fewer recordings than folds: they are in some folds only, as said above.
        warnings.filterwarnings("ignore", "The least populated class")
        held = set(list(folds.split(labels, labels, authors))[data.fold][1].tolist())
    trained = {labels[i] for i in range(len(labels)) if i not in held}
    rescued = {i for i in held if labels[i] not in trained}
    train = [r for i, r in enumerate(recordings) if i not in held or i in rescued]
    held_out = [r for i, r in enumerate(recordings) if i in held and i not in rescued]
    line = f"fold {data.fold} of {data.n_folds} by author: {len(train)} train, {len(held_out)} held out"
    if rescued:
        line += f" ({len(rescued)} kept in training: their classes have no others)"
    return train, held_out, line


def crop_notes(recordings: Sequence[Recording], data: Data) -> list[str]:
    """What cropping does to recordings that are longer or shorter than it would like."""
    longer = sum(recording.duration_s > data.first_s for recording in recordings)
    shorter = sum(recording.duration_s < data.chunk_s for recording in recordings)
    notes = []
    if longer:
        notes.append(
            f"{longer} recordings are longer than data.first_s = {data.first_s:g} s: what comes "
            "later is left out"
        )
    if shorter:
        notes.append(f"{shorter} recordings are shorter than a chunk of {data.chunk_s:g} s: repeated")
    return notes


def target_matrix(
    recordings: Sequence[Recording], classes: Sequence[str], secondary: float
) -> NDArray[np.float32]:
    """(recordings, classes): 1 for the primary label, `secondary` for the others."""
    column = {name: index for index, name in enumerate(classes)}
    targets = np.zeros((len(recordings), len(classes)), dtype=np.float32)
    for row, recording in enumerate(recordings):
        targets[row, [column[name] for name in recording.secondary]] = secondary
        targets[row, column[recording.primary]] = 1.0
    return targets


def sampling_weights(recordings: Sequence[Recording], balance: float) -> NDArray[np.float64]:
    """Chance of each recording to be drawn: a class of n is drawn in proportion to n**balance."""
    counts = Counter(recording.primary for recording in recordings)
    weights = np.array([counts[recording.primary] ** (balance - 1.0) for recording in recordings])
    return weights / weights.sum()


class Waveforms:
    """Decoded recordings, the latest of them kept in memory."""

    def __init__(self, sample_rate: int, first_s: float, cache_bytes: int = CACHE_BYTES) -> None:
        self.sample_rate = sample_rate
        self.first_s = first_s
        self._free = cache_bytes
        self._kept: OrderedDict[Path, NDArray[np.float32]] = OrderedDict()

    def __call__(self, path: Path) -> NDArray[np.float32]:
        if path in self._kept:
            self._kept.move_to_end(path)
            return self._kept[path]
        waveform = audio.read(path, self.sample_rate, max_s=self.first_s)
        self._free -= waveform.nbytes
        self._kept[path] = waveform
        while self._free < 0:
            _, oldest = self._kept.popitem(last=False)
            self._free += oldest.nbytes
        return waveform


def random_crop(
    waveform: NDArray[np.float32], n_samples: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """A random stretch of a recording; one shorter than that is repeated, begun at random."""
    if waveform.size < n_samples:
        turned = np.roll(waveform, rng.integers(waveform.size))
        return np.resize(turned, n_samples)
    start = rng.integers(waveform.size - n_samples + 1)
    return waveform[start : start + n_samples]


class Batches(Dataset[tuple[Tensor, Tensor]]):
    """Item `step` is a whole training batch: waveforms (batch, samples), targets (batch, classes)."""

    def __init__(self, recordings: Sequence[Recording], contract: Contract, recipe: Recipe) -> None:
        self.recordings = recordings
        self.contract = contract
        self.batch = recipe.fit.batch
        self.seed = recipe.fit.seed
        self.augment: Augment = recipe.augment
        self.targets = target_matrix(recordings, contract.classes, recipe.data.secondary_target)
        self.weights = sampling_weights(recordings, recipe.data.balance)
        self.waveforms = Waveforms(contract.sample_rate, recipe.data.first_s)
        self.noise = noise_bank(contract.sample_rate, self.seed)

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([self.seed, step])
        items = [self._item(rng) for _ in range(self.batch)]
        chunks, targets = zip(*items, strict=True)
        return torch.from_numpy(np.stack(chunks)), torch.from_numpy(np.stack(targets))

    def _item(self, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        chunk, target = self._draw(rng)
        if rng.random() < self.augment.mixup:
            other, other_target = self._draw(rng)
            chunk = mix(chunk, other, self.augment.mixup_gain_db, rng)
            target = np.maximum(target, other_target)
        if rng.random() < self.augment.noise:
            chunk = add_noise(chunk, self.noise, self.augment.noise_snr_db, rng)
        return to_full_scale(chunk), target

    def _draw(self, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        index = rng.choice(len(self.recordings), p=self.weights)
        waveform = self.waveforms(self.recordings[index].path)
        return random_crop(waveform, self.contract.chunk_samples, rng), self.targets[index]
