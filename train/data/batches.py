"""Recordings → training batches. Every sample is a function of the seed, its step and its number alone.

A resumed run therefore sees the same batches, and neither the number of loader processes nor that of
the processes that share a batch changes anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from birdkit.contract import Contract
from birdkit.grid import cut_chunk
from train.config.job import Job
from train.config.settings import Augment, Data, Pseudo
from train.data.augment import (
    add_noise,
    at_speed,
    equalised,
    from_afar,
    mix,
    noise_bank,
    to_full_scale,
)
from train.data.competition import Recording
from train.data.soundscapes import LabelledSoundscape, window_truth
from train.data.speech import Stretches, without_speech
from train.data.waveforms import Source, Waveforms, to_float

# Speech is cut from a recording only where at least this much of it remains.
LEAST_WITHOUT_SPEECH_S = 1.0

Samples = NDArray[np.int16]
NO_EMBEDDING = np.zeros(0, dtype=np.float32)


class Sample(NamedTuple):
    """A chunk, its targets, and where a teacher's embeddings are learnt, that of the same audio."""

    chunk: NDArray[np.float32]  # (samples,)
    target: NDArray[np.float32]  # (classes,)
    embedding: NDArray[np.float32] = NO_EMBEDDING  # (embedding,); NaN where it is unknown


class Embeddings(Protocol):
    """A teacher's embeddings of recordings and soundscapes."""

    @property
    def size(self) -> int:
        """Numbers in an embedding."""
        ...

    def __call__(self, path: Path, start_s: float, end_s: float) -> NDArray[np.float32]:
        """The embedding of a stretch of a file, (size,); NaN where the teacher has none."""
        ...


def crop_notes(recordings: Sequence[Recording], data: Data) -> list[str]:
    """Lines on how many recordings cropping cuts or repeats."""
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
    """(recordings, classes): 1 for the primary label, `secondary` for the others, NaN where below 0."""
    column = {name: index for index, name in enumerate(classes)}
    secondary_target = secondary if secondary >= 0.0 else np.nan
    targets = np.zeros((len(recordings), len(classes)), dtype=np.float32)
    for row, recording in enumerate(recordings):
        targets[row, [column[name] for name in recording.secondary]] = secondary_target
        targets[row, column[recording.primary]] = 1.0
    return targets


def sampling_weights(recordings: Sequence[Recording], balance: float) -> NDArray[np.float64]:
    """(recordings,) probabilities of being drawn, sum 1; a class of n weighs n**balance in all."""
    counts = Counter(recording.primary for recording in recordings)
    weights = np.array([counts[recording.primary] ** (balance - 1.0) for recording in recordings])
    return weights / weights.sum()


def cumulated(chance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cumulative sums of probabilities, the last of them 1: summed once, and not at every draw."""
    sums = np.cumsum(chance)
    return np.asarray(sums / sums[-1], dtype=np.float64)


def drawn(cumulative: NDArray[np.float64], rng: np.random.Generator) -> int:
    """A random index, the one that `rng.choice` would draw by the same probabilities."""
    return int(cumulative.searchsorted(rng.random(), side="right"))


def random_crop(
    waveform: Samples, n_samples: int, rng: np.random.Generator
) -> tuple[Samples, tuple[int, int]]:
    """A random crop (n_samples,), and the first and one past the last of the samples that it holds.

    A shorter recording is repeated from a random start, and all of its samples are held.
    """
    if waveform.size < n_samples:
        turned = np.roll(waveform, rng.integers(waveform.size))
        return np.resize(turned, n_samples), (0, waveform.size)
    start = int(rng.integers(waveform.size - n_samples + 1))
    return waveform[start : start + n_samples], (start, start + n_samples)


@dataclass(frozen=True)
class LabelledWindows:
    """Windows of soundscapes with their targets: true labels, or a teacher's probabilities."""

    paths: tuple[Path, ...]
    file: NDArray[np.int64]  # (windows,) index into `paths`
    window: NDArray[np.int64]  # (windows,) on the grid of its file
    targets: NDArray[np.float32]  # (windows, classes) in 0..1, NaN cells don't count in the loss
    chance: NDArray[np.float64]  # (windows,) probability of being drawn, sum 1

    @cached_property
    def cumulative(self) -> NDArray[np.float64]:
        """(windows,) for `drawn`."""
        return cumulated(self.chance)

    def __len__(self) -> int:
        return len(self.targets)

    def over_chunks(self, contract: Contract) -> LabelledWindows:
        """The same windows with the targets of what their chunks hold: those of neighbours, too.

        A chunk that is longer than its window takes the higher target of all windows that lie in it by
        half or more. What is unknown in one stays so, unless it is 1 in another. Before a file's first
        window and behind its last there is silence; windows between that have no labels are unknown.
        """
        reach = int((contract.chunk_s - contract.window_s) / 2 / contract.window_s + 0.5)
        if not reach:
            return self
        places = list(zip(self.file.tolist(), self.window.tolist(), strict=True))
        rows, last = {place: row for row, place in enumerate(places)}, dict(sorted(places))
        targets, unknown = self.targets.copy(), np.full_like(self.targets[0], np.nan)
        for row, (file, window) in enumerate(places):
            for neighbour in range(max(0, window - reach), min(last[file], window + reach) + 1):
                other = rows.get((file, neighbour))
                targets[row] = _union(targets[row], unknown if other is None else self.targets[other])
        return replace(self, targets=targets)


def true_windows(
    soundscapes: Sequence[LabelledSoundscape], contract: Contract
) -> LabelledWindows | None:
    """The windows that label rows cover, each with the same probability of being drawn."""
    truths = [window_truth(s, contract.classes, contract.window_s) for s in soundscapes]
    file = np.concatenate([[i] * int(known.sum()) for i, (_, known) in enumerate(truths)] or [[]])
    if not file.size:
        return None
    return LabelledWindows(
        tuple(soundscape.path for soundscape in soundscapes),
        file.astype(np.int64),
        np.concatenate([np.flatnonzero(known) for _, known in truths]),
        np.concatenate([truth[known] for truth, known in truths]).astype(np.float32),
        np.full(file.size, 1.0 / file.size),
    )


@dataclass(frozen=True)
class Sources:
    """All that a model trains on."""

    recordings: Sequence[Recording]
    waveforms: Waveforms
    speech: Mapping[Path, Stretches]
    truth: LabelledWindows | None = None
    pseudo: LabelledWindows | None = None
    background: Sequence[Source] = ()
    embeddings: Embeddings | None = None
    groups: Mapping[str, str] = field(default_factory=dict)  # of classes, as the taxonomy has them

    def soundscapes(self) -> tuple[str, ...]:
        """Names of the soundscapes that are drawn from."""
        # A whole file among the backgrounds is a soundscape: of noise the first seconds are drawn.
        names = {path.name for path, first_s in self.background if first_s is None}
        for windows in (self.truth, self.pseudo):
            if windows is not None:
                names |= {windows.paths[index].name for index in windows.file[windows.chance > 0]}
        return tuple(sorted(names))


class Batches(Dataset[tuple[Tensor, ...]]):
    """Item `step` is a training batch: waveforms (batch, samples), targets (batch, classes).

    Where a teacher's embeddings are learnt, they come third: (batch, embedding).

    Parameters
    ----------
    own : the samples of each batch that this process computes, all where it is None
    """

    def __init__(
        self, sources: Sources, contract: Contract, job: Job, own: Sequence[int] | None = None
    ) -> None:
        # The sources stay as they are: other processes make batches of them, too.
        self.sources = sources
        self.truth, self.pseudo = (
            None if windows is None else windows.over_chunks(contract)
            for windows in (sources.truth, sources.pseudo)
        )
        self.contract = contract
        self.own = range(job.fit.batch) if own is None else own
        self.seed = job.seed
        self.augment: Augment = job.augment
        self.data: Data = job.data
        self.mixing: Pseudo = job.pseudo
        recordings = sources.recordings
        self.targets = target_matrix(recordings, contract.classes, job.data.secondary_target)
        self.cumulative = cumulated(sampling_weights(recordings, job.data.balance))
        self.noise = noise_bank(contract.sample_rate, self.seed)

    def __getitem__(self, step: int) -> tuple[Tensor, ...]:
        items = [self._item(np.random.default_rng([self.seed, step, sample])) for sample in self.own]
        batch = [torch.from_numpy(np.stack(column)) for column in zip(*items, strict=True)]
        return tuple(batch if self.sources.embeddings else batch[:2])

    def _item(self, rng: np.random.Generator) -> Sample:
        sample = self._draw(rng)
        if rng.random() < self.augment.mixup:
            other = self._recording(rng)
            gain_db = self.augment.mixup_gain_db
            sample = _joined(sample, other, (-gain_db, gain_db), rng)
        mixing, pseudo = self.mixing, self.pseudo
        if pseudo is not None and mixing.mixing == "mixed" and rng.random() < mixing.share:
            window = self._window(pseudo, rng)
            levels_db = (mixing.level_db - mixing.gain_db, mixing.level_db + mixing.gain_db)
            sample = _joined(sample, window, levels_db, rng)
        chunk = sample.chunk
        # What is off draws nothing, so that its setting changes no other draw.
        if self.augment.background and rng.random() < self.augment.background:
            chunk = self._over_background(chunk, rng)
        if rng.random() < self.augment.noise:
            chunk = add_noise(chunk, self.noise, self.augment.noise_snr_db, rng)
        return sample._replace(chunk=to_full_scale(chunk))

    def _draw(self, rng: np.random.Generator) -> Sample:
        """A window of a soundscape, or a recording."""
        if self.truth is not None and rng.random() < self.data.labelled_share:
            return self._window(self.truth, rng)
        pseudo = self.pseudo
        if pseudo is not None and self.mixing.mixing == "own" and rng.random() < self.mixing.share:
            return self._window(pseudo, rng)
        return self._recording(rng)

    def _window(self, windows: LabelledWindows, rng: np.random.Generator) -> Sample:
        index = drawn(windows.cumulative, rng)
        path, window = windows.paths[windows.file[index]], int(windows.window[index])
        chunk = cut_chunk(self.sources.waveforms(path), window, self.contract)
        middle_s, half_s = (window + 0.5) * self.contract.window_s, self.contract.chunk_s / 2
        embedding = self._embedding(path, middle_s - half_s, middle_s + half_s)
        return Sample(to_float(chunk), windows.targets[index], embedding)

    def _embedding(self, path: Path, start_s: float, end_s: float) -> NDArray[np.float32]:
        """The teacher's embedding of a stretch of a file, where embeddings are learnt."""
        embeddings = self.sources.embeddings
        return NO_EMBEDDING if embeddings is None else embeddings(path, start_s, end_s)

    def _recording(self, rng: np.random.Generator) -> Sample:
        sources = self.sources
        index = drawn(self.cumulative, rng)
        path = sources.recordings[index].path
        waveform = sources.waveforms(path, self.data.first_s)
        speech, rate = sources.speech.get(path, ()), self.contract.sample_rate
        is_cut = bool(speech) and (self.data.speech == "cut" or rng.random() < 0.5)
        if is_cut:
            waveform = without_speech(waveform, speech, rate, LEAST_WITHOUT_SPEECH_S)
        chunk, (first, last) = self._crop(waveform, rng)
        embedding = self._embedding(path, first / rate, last / rate)
        if is_cut:  # where the chunk was in the recording is not known any more
            embedding = np.full_like(embedding, np.nan)
        # What is off draws nothing, so that its setting changes no other draw.
        if self.augment.equalise and rng.random() < self.augment.equalise:
            chunk = equalised(chunk, rate, self.augment.equalise_db, rng)
        if rng.random() < self.augment.afar:
            chunk = from_afar(chunk, rate, rng)
        return Sample(chunk, self.targets[index], embedding)

    def _over_background(
        self, chunk: NDArray[np.float32], rng: np.random.Generator
    ) -> NDArray[np.float32]:
        """The chunk with a crop of a soundscape or of a recording of noise under it."""
        backgrounds = self.sources.background
        path, first_s = backgrounds[int(rng.integers(len(backgrounds)))]
        crop, _ = random_crop(self.sources.waveforms(path, first_s), chunk.size, rng)
        return mix(chunk, to_float(crop), 10 ** (-rng.uniform(*self.augment.background_snr_db) / 20))

    def _crop(
        self, waveform: Samples, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], tuple[int, int]]:
        """A chunk from a random place, played at a random speed where that is asked for, and the place.

        The place is the first and one past the last of the samples.
        """
        n_samples = self.contract.chunk_samples
        if not self.augment.speed or rng.random() >= self.augment.speed:
            crop, place = random_crop(waveform, n_samples, rng)
            return to_float(crop), place
        heard = round(n_samples * rng.uniform(*self.augment.speed_range))
        crop, place = random_crop(waveform, heard, rng)
        return at_speed(to_float(crop), n_samples), place


def _joined(
    first: Sample, second: Sample, levels_db: tuple[float, float], rng: np.random.Generator
) -> Sample:
    """The mix of two chunks with the union of their labels: the higher target of the two.

    A target that is NaN in one stays NaN, unless the other is 1. Embeddings are averaged with the
    weights that the chunks have in the sum.
    """
    level = 10 ** (rng.uniform(*levels_db) / 20)
    of_second = np.float32(level / (1 + level))
    embedding = (1 - of_second) * first.embedding + of_second * second.embedding
    target = _union(first.target, second.target)
    return Sample(mix(first.chunk, second.chunk, level), target, embedding)


def _union(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    target = np.maximum(first, second)
    target[(first == 1.0) | (second == 1.0)] = 1.0
    return target
