"""The data of a run: its folders, read, split and searched for duplicates and speech once."""

from __future__ import annotations

import hashlib
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
from train.config.settings import Data, Fit, Recipe
from train.data import bad_files, duplicates, speech, waveforms
from train.data.batches import Sources, crop_notes, true_windows
from train.data.competition import Competition, Recording, read_competitions
from train.data.folds import split_recordings, split_soundscapes
from train.data.soundscapes import LabelledSoundscape, window_counts
from train.data.speech import Stretches
from train.data.waveforms import Source, Waveforms, to_float

Fold = tuple[list[Recording], list[Recording], str]

# Speech is searched in the first seconds of a recording that training uses; the name has their number.
BACKGROUNDS = "backgrounds"  # name of a checkpoint's parent
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
    bad_noise: frozenset[Path] = frozenset()  # files that no background can be cut from
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
        """The training data of a model of this job, without pseudo labels.

        Raises `UserError` for a group of `fit.focal_groups` that no class is of, and where there is
        nothing to cut backgrounds from.
        """
        train, _, _ = self.recordings_of(job.data)
        truth = true_windows(self.training, self.contract(job))
        stretches = {} if job.data.speech == "keep" else self.speech[job.data.first_s]
        background = [s for s in self.background(job) if s[0] not in self.bad_noise]
        groups = self._groups(job.fit)
        return Sources(train, self.waveforms, stretches, truth, background=background, groups=groups)

    def _groups(self, fit: Fit) -> Mapping[str, str]:
        """Class → group, where the loss asks for it."""
        if not fit.focal_groups:
            return {}
        groups = self.competition.groups()
        known = {groups[name] for name in self.competition.classes if name in groups}
        for each in fit.focal_groups:
            if each.group not in known:
                of = ", ".join(sorted(known)) or "no group: the taxonomy has no class_name"
                raise UserError(f"fit.focal_groups: no class is of group '{each.group}'; there is {of}")
        return groups

    def background(self, job: Job) -> list[Source]:
        """What backgrounds are cut from, bad files among it. Raises `UserError` where there is nothing.

        Of a recording of noise it is the first seconds, as of any other, of a soundscape all of it.
        """
        if not job.augment.background:
            return []
        if folder := job.augment.background_folder:
            return [(path, job.data.first_s) for path in bad_files.sounds_below(Path(folder))]
        if not self.unlabelled:
            raise UserError(
                "augment.background: there are no unlabelled soundscapes to cut it from; set "
                "augment.background_folder, or augment.background to 0"
            )
        return [(path, None) for path in self.unlabelled]

    def background_parents(self, job: Job) -> dict[str, str]:
        """What a checkpoint keeps of its backgrounds: a hash of their files' names and sizes."""
        files = [path for path, _ in self.background(job)]
        listed = [f"{path.name} {path.stat().st_size if path.exists() else 0}" for path in files]
        return {BACKGROUNDS: hashlib.sha256("\n".join(listed).encode()).hexdigest()} if files else {}

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


def cache_note(dataset: Dataset, jobs: Sequence[Job], cache: Path, *, unlabelled: bool) -> list[str]:
    """A line on what `prepare` will decode once, and what is decoded whenever it is drawn."""
    if not jobs[0].data.cache:
        return ["waveform cache: off, so that all is decoded as it is drawn (data.cache = false)"]
    drawn = _drawn(dataset, jobs, unlabelled=unlabelled)
    return [waveforms.forecast(cache, drawn, dataset.waveforms.sample_rate)]


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
    dataset, noise_lines = _without_bad_noise(dataset, jobs, faults)
    faults = {path: why for path, why in faults.items() if path not in dataset.bad_noise}
    lines += noise_lines
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
    others: list[Source] = [(s.path, None) for s in dataset.validating]
    others += [(r.path, first_s) for first_s in lengths_s for r in dataset.recordings]
    known = set(drawn)
    others = [source for source in dict.fromkeys(others) if source not in known]
    if not jobs[0].data.cache:
        return [], bad_files.undecodable([*drawn, *others], rate, cache)
    line, faults = waveforms.fill(cache, drawn, rate)
    return [line], faults | bad_files.undecodable(others, rate, cache)


def _without_bad_noise(
    dataset: Dataset, jobs: Sequence[Job], faults: bad_files.Faults
) -> tuple[Dataset, list[str]]:
    """The data without bad files of noise folders, and a line on each: they never end a training.

    Raises `UserError` where none of a folder's files is left.
    """
    bad: dict[Path, str] = {}
    for job in jobs:
        files = [path for path, _ in dataset.background(job)]
        of_job = {path: faults[path] for path in files if path in faults}
        if files and len(of_job) == len(files):
            path, why = next(iter(of_job.items()))
            raise UserError(
                f"augment.background: none of {len(files)} files can be decoded; the first, {path}, "
                f"{why}; give other recordings in augment.background_folder"
            )
        bad |= of_job if job.augment.background_folder else {}
    lines = [f"background: left out: {line}" for line in bad_files.left_out(bad, skip_bad=True)]
    return replace(dataset, bad_noise=frozenset(bad)), lines


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
        bad_noise=dataset.bad_noise | set(faults),
        _folds={},
    )


def _drawn(dataset: Dataset, jobs: Sequence[Job], *, unlabelled: bool) -> list[Source]:
    """What batches are drawn from: recordings by their first seconds, and whole soundscapes."""
    lengths_s = dict.fromkeys(job.data.first_s for job in jobs)
    soundscapes = [soundscape.path for soundscape in dataset.training]
    soundscapes += dataset.soundscapes(validating=False) if unlabelled else []
    sources: list[Source] = [
        *((r.path, first_s) for first_s in lengths_s for r in _training(dataset, jobs, first_s)),
        *((path, None) for path in soundscapes),
        *(s for job in jobs for s in dataset.background(job) if s[0] not in dataset.bad_noise),
    ]
    return list(dict.fromkeys(sources))


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
