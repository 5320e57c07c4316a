"""The data of a run: its folders, read, split and searched for duplicates and speech once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from birdkit.audio import AudioError
from birdkit.contract import Contract
from birdkit.errors import UserError
from train.config import provenance
from train.config.job import Job
from train.config.settings import Data, Recipe
from train.data import bad_files, duplicates, speech, waveforms
from train.data.batches import Sources, crop_notes, true_windows
from train.data.competition import Competition, Recording, read_competitions
from train.data.folds import split_recordings, split_soundscapes
from train.data.soundscapes import LabelledSoundscape, window_counts
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
    """Read the folders and decide what trains, from tables and headers alone.

    Returns
    -------
    The data, and lines for people on what it holds and leaves out.
    """
    data, rate = recipe.data, recipe.frontend.sample_rate
    competition = read_competitions(roots, data.classes, skip_bad=data.skip_bad)
    notes = list(competition.left_out)
    training, validating = split_soundscapes(competition.soundscapes, data)
    if competition.soundscapes:
        notes.append(f"labelled soundscapes: {len(training)} train, {len(validating)} validate")
    if doubled := competition.doubled_soundscapes():
        same = f"{len(doubled)} soundscapes have the name of one before"
        notes.append(f"{same} and are left out, such as {doubled[0]}")
    dataset = Dataset(
        competition,
        competition.recordings,
        tuple(training),
        tuple(validating),
        tuple(competition.unlabelled()),
        competition.fingerprint(),
        Waveforms(rate, cache if data.cache else None),
        recipe.fit.seed,
    )
    return dataset, [*notes, *_silent_notes(dataset, data)]


def _silent_notes(dataset: Dataset, data: Data) -> list[str]:
    """A line on the classes without recordings: labelled soundscapes may have windows of them."""
    classes = dataset.competition.classes
    silent = sorted(set(classes) - {r.primary for r in dataset.competition.recordings})
    if not silent:
        return []
    trained, other = (
        {name: n for name, n in window_counts(part, classes, data.window_s).items() if name in silent}
        for part in (dataset.training, dataset.validating)
    )
    line = f"{len(silent)} of {len(classes)} classes have no recording ({', '.join(silent[:5])})"
    if trained:
        line += f"; {_counted(trained)} train"
    if untrained := [name for name in silent if name not in trained]:
        line += f"; the model answers for {len(untrained)} of them, untrained"
    if waiting := {name: n for name, n in other.items() if name not in trained}:
        policies = "train" if data.labelled == "split" else 'train" or "split'
        line += f'; {_counted(waiting)} validate: data.labelled = "{policies}" trains on them'
    return [line]


def _counted(windows: Mapping[str, int]) -> str:
    listed = ", ".join(f"{name} {n}" for name, n in list(windows.items())[:5])
    return f"{sum(windows.values())} labelled windows of {len(windows)} of them ({listed})"


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


def prepare(
    dataset: Dataset, jobs: Sequence[Job], cache: Path, *, unlabelled: bool
) -> tuple[Dataset, list[str]]:
    """Search for duplicates, decode everything once, leave out bad files, and search for speech.

    Parameters
    ----------
    unlabelled : whether unlabelled soundscapes train, too, with pseudo labels

    Raises
    ------
    UserError
        For a file that can't be decoded, where the recipe does not leave such files out.
    """
    rate, data = dataset.waveforms.sample_rate, jobs[0].data
    lines: list[str] = []
    if data.duplicates != "unsearched":
        dataset, lines = _without_duplicates(dataset, jobs, cache)
    decoded, faults = _decode(dataset, jobs, cache, unlabelled=unlabelled)
    if faults:
        left_out = bad_files.left_out(faults, data.skip_bad)
        dataset = _without(dataset, faults)
        if data.cache:  # the folds are others now
            decoded = [waveforms.fill(cache, _drawn(dataset, jobs, unlabelled=unlabelled), rate)[0]]
        lines += [f"data: {line}" for line in [*left_out, *fold_notes(dataset, jobs)]]
    lines += decoded
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


def _without_duplicates(
    dataset: Dataset, jobs: Sequence[Job], cache: Path
) -> tuple[Dataset, list[str]]:
    """The data without the duplicates that the recipe drops, and lines on those that there are."""
    groups = _duplicates(dataset, jobs[0].data, cache)
    if not groups:
        return dataset, []
    lines = [f"data: {duplicates.line(groups)}"]
    if jobs[0].data.duplicates == "drop":
        remaining, dropped = duplicates.drop_duplicates(dataset.recordings, groups)
        dataset = replace(dataset, recordings=tuple(remaining), _folds={})
        lines += [f"data: {line}" for line in [*dropped, *fold_notes(dataset, jobs)]]
    return dataset, lines


def _duplicates(dataset: Dataset, data: Data, cache: Path) -> list[duplicates.Group]:
    """Groups of duplicates, searched once for a set of recordings; a store keeps them by number."""
    recordings, rate = dataset.recordings, dataset.waveforms.sample_rate
    made_by = {
        "version": duplicates.VERSION,
        "data": dataset.fingerprint,
        "sample_rate": rate,
        "first_s": data.first_s,
    }
    store, key = cache / DUPLICATES_NAME, provenance.key(made_by)
    known = provenance.read_store(store)
    if key not in known:
        if data.cache:
            sources = [(path, data.first_s) for path in duplicates.candidates(recordings)]
            waveforms.fill(cache, sources, rate)
        read_first = partial(_first_or_none, dataset.waveforms, data.first_s)
        groups = duplicates.find_duplicates(recordings, read_first, rate)
        number = {recording: index for index, recording in enumerate(recordings)}
        known[key] = [[number[recording] for recording in group] for group in groups]
        with suppress(OSError):  # without it, the next run searches again
            provenance.write_store(store, known)
    return [tuple(recordings[index] for index in group) for group in known[key]]


def _decode(
    dataset: Dataset, jobs: Sequence[Job], cache: Path, *, unlabelled: bool
) -> tuple[list[str], dict[Path, str]]:
    """Decode all that trains or validates; lines for people, and the faults of bad files.

    With and without the cache the faults are the same.
    """
    rate = dataset.waveforms.sample_rate
    lengths_s = dict.fromkeys(job.data.first_s for job in jobs)
    drawn = _drawn(dataset, jobs, unlabelled=unlabelled)
    others: list[waveforms.Source] = [(s.path, None) for s in dataset.validating]
    others += [(r.path, first_s) for first_s in lengths_s for r in dataset.recordings]
    known = set(drawn)
    others = [source for source in dict.fromkeys(others) if source not in known]
    if not jobs[0].data.cache:
        return [], bad_files.undecodable([*drawn, *others], rate, cache)
    line, faults = waveforms.fill(cache, drawn, rate)
    return [line], faults | bad_files.undecodable(others, rate, cache)


def _without(dataset: Dataset, faults: bad_files.Faults) -> Dataset:
    """The data without these files. Unlabelled soundscapes stay: a teacher passes over bad ones."""
    recordings = tuple(r for r in dataset.recordings if r.path not in faults)
    if not recordings:
        raise UserError("no recordings to train on: none can be decoded; download them again")
    return replace(
        dataset,
        recordings=recordings,
        training=tuple(s for s in dataset.training if s.path not in faults),
        validating=tuple(s for s in dataset.validating if s.path not in faults),
        _folds={},
    )


def _drawn(dataset: Dataset, jobs: Sequence[Job], *, unlabelled: bool) -> list[waveforms.Source]:
    """What batches are drawn from: recordings by their first seconds, and whole soundscapes."""
    lengths_s = dict.fromkeys(job.data.first_s for job in jobs)
    soundscapes = [soundscape.path for soundscape in dataset.training]
    soundscapes += dataset.soundscapes(validating=False) if unlabelled else []
    return [
        *((r.path, first_s) for first_s in lengths_s for r in _training(dataset, jobs, first_s)),
        *((path, None) for path in soundscapes),
    ]


def _training(dataset: Dataset, jobs: Sequence[Job], first_s: float) -> list[Recording]:
    """Recordings of which some job trains on the first seconds."""
    train: dict[Recording, None] = {}
    for data in dict.fromkeys(job.data for job in jobs if job.data.first_s == first_s):
        train |= dict.fromkeys(dataset.recordings_of(data)[0])
    return list(train)


def _first_or_none(decoded: Waveforms, first_s: float, path: Path) -> NDArray[np.float32]:
    """The first seconds of a recording, or no sample of one that can't be decoded."""
    try:
        return _first_seconds(decoded, first_s, path)
    except AudioError:  # `prepare` decides whether training goes on without it
        return np.zeros(0, dtype=np.float32)


def _first_seconds(decoded: Waveforms, first_s: float, path: Path) -> NDArray[np.float32]:
    """The first seconds of a recording, (samples,) in [-1, 1]."""
    return to_float(decoded(path, first_s))
