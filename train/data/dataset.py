"""The data of a run: its folders, read, split and searched for duplicates and speech once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from birdkit.contract import Contract
from birdkit.files import write_cache
from train.config import provenance
from train.config.job import Job
from train.config.settings import Data, Recipe
from train.data import duplicates, speech, waveforms
from train.data.batches import Sources, crop_notes, true_windows
from train.data.competition import Competition, LabelledSoundscape, Recording, read_competitions
from train.data.folds import split_recordings, split_soundscapes
from train.data.speech import Stretches
from train.data.waveforms import Waveforms, to_float

Fold = tuple[list[Recording], list[Recording], str]

# Speech is searched in the first seconds of a recording that training uses; the name has their number.
SPEECH_NAME, DUPLICATES_NAME = "speech-{:g}s.json", "duplicates.json"


@dataclass(frozen=True)
class Dataset:
    """The data of a run: soundscapes are divided once for all models, recordings by each one's fold."""

    competition: Competition
    recordings: tuple[Recording, ...]  # without dropped duplicates
    training: tuple[LabelledSoundscape, ...]  # soundscapes whose labels train
    validating: tuple[LabelledSoundscape, ...]  # soundscapes whose labels validate
    unlabelled: tuple[Path, ...]  # soundscapes for a teacher to label
    fingerprint: str
    waveforms: Waveforms
    seed: int  # for the folds; the same in every round
    speech: Mapping[float, Mapping[Path, Stretches]] = field(default_factory=dict)  # by data.first_s
    _folds: dict[tuple[int, int], Fold] = field(default_factory=dict, repr=False, compare=False)

    def contract(self, job: Job) -> Contract:
        """The contract of a model of this job."""
        rate, data = job.frontend.sample_rate, job.data
        return Contract(rate, data.chunk_s, data.window_s, self.competition.classes)

    def recordings_of(self, data: Data) -> Fold:
        """Recordings that train, those held out, and a line on the fold."""
        key = (data.n_folds, data.fold)
        if key not in self._folds:
            self._folds[key] = split_recordings(self.recordings, data, self.seed)
        return self._folds[key]

    def sources(self, job: Job) -> Sources:
        """The training data of a model of this job, without pseudo labels."""
        train, _, _ = self.recordings_of(job.data)
        truth = true_windows(self.training, self.contract(job))
        stretches = {} if job.data.speech == "keep" else self.speech[job.data.first_s]
        return Sources(train, self.waveforms, stretches, truth)

    def soundscapes(self, *, validating: bool) -> list[Path]:
        """The soundscapes that a teacher labels, sorted; `validating` adds the validating ones."""
        more = [soundscape.path for soundscape in self.validating] if validating else []
        return sorted([*self.unlabelled, *more])


def read(roots: Sequence[Path], recipe: Recipe, cache: Path) -> tuple[Dataset, list[str]]:
    """Read the folders and decide what trains. Decodes what the search for duplicates needs.

    Returns
    -------
    The data, and lines for people on what it holds and leaves out.
    """
    data, rate = recipe.data, recipe.frontend.sample_rate
    competition = read_competitions(roots, data.classes, skip_bad=data.skip_bad)
    decoded = Waveforms(rate, cache if data.cache else None)
    fingerprint = competition.fingerprint()
    notes = list(competition.left_out)
    groups = _duplicates(competition, decoded, data.first_s, cache / DUPLICATES_NAME, fingerprint)
    recordings = list(competition.recordings)
    if groups:
        notes.append(duplicates.line(groups))
    if data.duplicates == "drop":
        recordings, lines = duplicates.drop_duplicates(recordings, groups)
        notes += lines
    training, validating = split_soundscapes(competition.soundscapes, data)
    if competition.soundscapes:
        notes.append(f"labelled soundscapes: {len(training)} train, {len(validating)} validate")
    dataset = Dataset(
        competition,
        tuple(recordings),
        tuple(training),
        tuple(validating),
        tuple(competition.unlabelled()),
        fingerprint,
        decoded,
        recipe.fit.seed,
    )
    return dataset, notes


def fold_notes(dataset: Dataset, jobs: Sequence[Job]) -> list[str]:
    """Lines on the fold and the crops of every job; the model is named where they differ."""
    names: dict[tuple[str, ...], list[str]] = {}
    for job in jobs:
        train, _, line = dataset.recordings_of(job.data)
        of_job = names.setdefault((line, *crop_notes(train, job.data)), [])
        of_job += [job.model.name] if job.model.name not in of_job else []
    if len(names) == 1:
        return list(next(iter(names)))
    return [f"{', '.join(models)}: {line}" for lines, models in names.items() for line in lines]


def _duplicates(
    competition: Competition, decoded: Waveforms, first_s: float, store: Path, fingerprint: str
) -> list[duplicates.Group]:
    """Groups of duplicates, searched once for a set of recordings; `store` keeps them by number."""
    recordings = competition.recordings
    made_by = {
        "version": duplicates.VERSION,
        "data": fingerprint,
        "sample_rate": decoded.sample_rate,
        "first_s": first_s,
    }
    known: dict[str, list[list[int]]] = {}
    with suppress(OSError, ValueError):
        known = json.loads(store.read_text())
    key = provenance.key(made_by)
    if key not in known:
        groups = duplicates.find_duplicates(
            recordings, lambda path: to_float(decoded(path, first_s)), decoded.sample_rate
        )
        number = {recording: index for index, recording in enumerate(recordings)}
        known[key] = [[number[recording] for recording in group] for group in groups]
        write_cache(store, json.dumps(known).encode())
    return [tuple(recordings[index] for index in group) for group in known[key]]


def prepare(
    dataset: Dataset, jobs: Sequence[Job], cache: Path, *, unlabelled: bool
) -> tuple[Dataset, list[str]]:
    """Decode everything once into the cache, and search for speech where a job asks for it.

    Parameters
    ----------
    unlabelled : whether unlabelled soundscapes train, too, with pseudo labels
    """
    rate, lines = dataset.waveforms.sample_rate, []
    if jobs[0].data.cache:
        soundscapes = [soundscape.path for soundscape in dataset.training]
        soundscapes += dataset.soundscapes(validating=False) if unlabelled else []
        sources = [*_recordings(dataset, jobs), *((path, None) for path in soundscapes)]
        lines.append(waveforms.fill(cache, sources, rate))
    searched: dict[float, Mapping[Path, Stretches]] = {}
    for job in jobs:
        first_s = job.data.first_s
        if job.data.speech == "keep" or first_s in searched:
            continue
        paths = [recording.path for recording in _training(dataset, jobs, first_s)]
        read_first = partial(_first_seconds, dataset.waveforms, first_s)
        store = cache / SPEECH_NAME.format(first_s)
        searched[first_s] = speech.find_speech(paths, read_first, rate, store)
        lines += speech.notes(searched[first_s])
    return replace(dataset, speech=searched), lines


def _recordings(dataset: Dataset, jobs: Sequence[Job]) -> list[waveforms.Source]:
    """The recordings that the jobs draw, each by its first seconds."""
    lengths_s = dict.fromkeys(job.data.first_s for job in jobs)
    return [
        (recording.path, first_s)
        for first_s in lengths_s
        for recording in _training(dataset, jobs, first_s)
    ]


def _training(dataset: Dataset, jobs: Sequence[Job], first_s: float) -> list[Recording]:
    """Recordings of which some job trains on the first seconds."""
    train: dict[Recording, None] = {}
    for data in dict.fromkeys(job.data for job in jobs if job.data.first_s == first_s):
        train |= dict.fromkeys(dataset.recordings_of(data)[0])
    return list(train)


def _first_seconds(decoded: Waveforms, first_s: float, path: Path) -> NDArray[np.float32]:
    """The first seconds of a recording, (samples,) in [-1, 1]."""
    return to_float(decoded(path, first_s))
