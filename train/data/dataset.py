"""What a run trains and validates on: its data folders, read, split and looked through once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from birdkit.contract import Contract
from birdkit.files import write_whole
from train.config.settings import Recipe
from train.data import duplicates, speech, waveforms
from train.data.batches import Sources, crop_notes, split, true_windows
from train.data.competition import (
    Competition,
    LabelledSoundscape,
    Recording,
    read_competitions,
    split_by_site,
)
from train.data.speech import Stretches
from train.data.waveforms import Waveforms, to_float
from train.models import checkpoint

# Speech is looked for in what training hears of a recording, so its store is of that length.
SPEECH_NAME, DUPLICATES_NAME = "speech-{:g}s.json", "duplicates.json"


@dataclass(frozen=True)
class Material:
    """`unlabelled` soundscapes are a teacher's to label, `validating` ones where a round says so."""

    competition: Competition
    contract: Contract
    recordings: tuple[Recording, ...]  # that train
    held_out: tuple[Recording, ...]
    training: tuple[LabelledSoundscape, ...]
    validating: tuple[LabelledSoundscape, ...]
    unlabelled: tuple[Path, ...]
    fingerprint: str
    notes: tuple[str, ...]  # lines for people
    speech: dict[Path, Stretches]
    waveforms: Waveforms

    def sources(self) -> Sources:
        """What round 0 trains on."""
        truth = true_windows(self.training, self.contract)
        return Sources(self.recordings, self.waveforms, self.speech, truth)

    def soundscapes(self, *, validating: bool) -> list[Path]:
        """Those that a teacher labels."""
        more = [each.path for each in self.validating] if validating else []
        return sorted([*self.unlabelled, *more])


def read(roots: Sequence[Path], config: Recipe, cache: Path) -> Material:
    """Read the folders and decide what trains. Decodes what duplicates need, nothing else."""
    data = config.data
    competition = read_competitions(roots, data.classes, skip_bad=data.skip_bad)
    rate = config.frontend.sample_rate
    contract = Contract(rate, data.chunk_s, data.window_s, competition.classes)
    sounds = Waveforms(rate, cache if data.cache else None)
    notes = list(competition.left_out)

    fingerprint = checkpoint.data_fingerprint(competition)
    found = _duplicates(competition, sounds, data.first_s, cache / DUPLICATES_NAME, fingerprint)
    recordings = list(competition.recordings)
    if found:
        notes.append(duplicates.line(found))
    if data.duplicates == "drop":
        recordings, lines = duplicates.drop_duplicates(recordings, found)
        notes += lines
    train, held_out, how = split(recordings, data, config.fit.seed)
    notes += [how, *crop_notes(train, data)]
    training, validating = _labelled(competition, config)
    if competition.soundscapes:
        notes.append(f"labelled soundscapes: {len(training)} train, {len(validating)} validate")
    return Material(
        competition,
        contract,
        tuple(train),
        tuple(held_out),
        tuple(training),
        tuple(validating),
        tuple(competition.unlabelled()),
        fingerprint,
        tuple(notes),
        {},
        sounds,
    )


def _duplicates(
    competition: Competition, sounds: Waveforms, first_s: float, store: Path, fingerprint: str
) -> list[duplicates.Group]:
    """Found once for a set of recordings; `store` holds them by number."""
    recordings = competition.recordings
    made_by = f"{duplicates.VERSION} {fingerprint} {sounds.sample_rate} {first_s}"
    kept: dict[str, list[list[int]]] = {}
    with suppress(FileNotFoundError, ValueError):
        kept = json.loads(store.read_text())
    if made_by not in kept:
        found = duplicates.find_duplicates(
            recordings, lambda path: to_float(sounds(path, first_s)), sounds.sample_rate
        )
        number = {recording: index for index, recording in enumerate(recordings)}
        kept[made_by] = [[number[recording] for recording in group] for group in found]
        store.parent.mkdir(parents=True, exist_ok=True)
        write_whole(store, json.dumps(kept).encode())
    return [tuple(recordings[index] for index in group) for group in kept[made_by]]


def _labelled(
    competition: Competition, config: Recipe
) -> tuple[Sequence[LabelledSoundscape], Sequence[LabelledSoundscape]]:
    """Labelled soundscapes that train, and those that validate."""
    every = competition.soundscapes
    if config.data.labelled == "train":
        return every, ()
    if config.data.labelled == "validate" or not every:
        return (), every
    return split_by_site(every, config.data.n_folds, config.data.fold)


def prepare(material: Material, config: Recipe, cache: Path) -> tuple[Material, list[str]]:
    """Decode everything once into the cache, and look for speech where the recipe asks for it."""
    data, rate = config.data, config.frontend.sample_rate
    lines = []
    if data.cache:
        soundscapes = [each.path for each in material.training]
        if any(each.pseudo.share for each in config.rounds[1:]):
            soundscapes += material.soundscapes(validating=False)
        wanted = [(recording.path, data.first_s) for recording in material.recordings]
        lines.append(waveforms.fill(cache, [*wanted, *((path, None) for path in soundscapes)], rate))
    if data.speech == "keep":
        return material, lines

    def sound_of(path: Path) -> NDArray[np.float32]:
        return to_float(material.waveforms(path, data.first_s))

    paths = [recording.path for recording in material.recordings]
    found = speech.find_speech(paths, sound_of, rate, cache / SPEECH_NAME.format(data.first_s))
    return replace(material, speech=found), [*lines, *speech.notes(found)]
