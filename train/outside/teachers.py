"""Teachers from outside: what they say of soundscapes, on the classes that they know.

A class that a teacher doesn't know is NaN in its answers. Everything that can be wrong with a teacher
is said when it is opened or checked, before the first training step.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from birdkit.audio import AudioError
from birdkit.errors import UserError
from birdkit.files import sha256
from birdkit.grid import windows_in
from birdkit.log import LOG
from birdkit.outside import presets
from birdkit.outside.card import Card
from birdkit.outside.labels import ClassMap, match, read_labels, read_synonyms
from birdkit.outside.model import OutsideModel, open_with
from birdkit.scoring.parts import SoundFile
from birdkit.scoring.predict import Scores
from train.config import provenance
from train.config.job import Job
from train.config.settings import OutsideTeacher
from train.data import bad_files, progress
from train.data.dataset import Dataset
from train.outside import answers
from train.outside.answers import Answers, KeptEmbeddings
from train.outside.table import AnswersTable

Scored = tuple[list[Scores], dict[str, str]]  # of each file, and file name → why it has none


class Outside(Protocol):
    """A teacher from outside."""

    @property
    def name(self) -> str:
        """The name that rounds call it by."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """The columns of its answers: all classes of the data."""
        ...

    @property
    def credit(self) -> str:
        """What it is, and under which licence, as checkpoints of its students repeat."""
        ...

    @property
    def knows(self) -> str:
        """Which classes it knows, in a line for people."""
        ...

    @property
    def made_by(self) -> dict[str, Any]:
        """What its answers depend on, besides the audio, as JSON values."""
        ...

    def check(self, files: Sequence[SoundFile]) -> None:
        """Raise `UserError` where it can't answer for one of the files."""
        ...

    def scores_of(self, files: Sequence[SoundFile]) -> Scored:
        """(windows, classes) probabilities of each file, NaN for the classes that it doesn't know."""
        ...


@dataclass(frozen=True)
class Model:
    """A model file that answers for windows; what it said is kept in `folder`."""

    name: str
    card: Card
    file: Path
    known: ClassMap
    window_s: float
    embeddings: bool  # whether its embeddings are asked for, too
    folder: Path

    @property
    def classes(self) -> tuple[str, ...]:
        return self.known.classes

    @property
    def credit(self) -> str:
        return f"{self.card.name} (licence of its weights: {self.card.licence})"

    @property
    def knows(self) -> str:
        return str(self.known)

    @cached_property
    def made_by(self) -> dict[str, Any]:
        return {
            "model": self.card.name,
            "file": sha256(self.file),
            "card": provenance.key(asdict(self.card)),
            "columns": provenance.key({"columns": self.known.columns, "classes": self.known.classes}),
        }

    @cached_property
    def opened(self) -> OutsideModel:
        """The model in an engine. Raises `UserError` where its file does not fit its card."""
        return open_with(self.card, self.file, embeddings=self.embeddings)

    def check(self, files: Sequence[SoundFile]) -> None:
        """A second of silence shows a file that lacks a tensor, hears another rate, or says NaN."""
        silence = np.zeros(self.card.sample_rate, dtype=np.float32)
        self.opened.hear(silence, self.card.sample_rate, 1, self.window_s)

    def scores_of(self, files: Sequence[SoundFile]) -> Scored:
        kept, failures = self.ask(files)
        entries = (kept.get(file.path) for file in files)
        scores = [None if entry is None else answers.read(entry).scores for entry in entries]
        return scores, failures

    def ask(self, files: Sequence[SoundFile]) -> tuple[dict[Path, Path], dict[str, str]]:
        """Have the model answer for the files that it has not answered for.

        Returns
        -------
        Each file's path → that of the kept answers, and file name → why it has none.
        """
        kept: dict[Path, Path] = {}
        failures: dict[str, str] = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        for file in tqdm(files, **progress.bar(f"answers of {self.name}")):
            try:
                entry = self.folder / answers.name_of(file, self.made_by, self._wanted)
                if answers.read_or_none(entry) is None:
                    answers.write(entry, self._answers(file))
            except AudioError as error:
                failures[file.name] = str(error)
            else:
                kept[file.path] = entry
        return kept, failures

    def embeddings_of(self, files: Sequence[SoundFile]) -> KeptEmbeddings:
        """Its embeddings of these files; those that can't be heard have none, and are named."""
        kept, failures = self.ask(files)
        for name, why in failures.items():
            LOG.warning(f"teacher {self.name}: no embedding of {name}: {why}")
        embeddings = (answers.read(entry).embeddings for entry in kept.values())
        first = next((each for each in embeddings if each is not None), None)
        if first is None:
            raise UserError(f"teachers.{self.name}: no recording could be heard; see the lines above")
        return KeptEmbeddings(kept, self.window_s, first.shape[1])

    @property
    def _wanted(self) -> dict[str, Any]:
        return {"window_s": self.window_s, "embeddings": self.embeddings}

    def _answers(self, file: SoundFile) -> Answers:
        heard = self.opened.read(file.path, file.n_windows, self.window_s)
        return Answers(self.known.onto_classes(heard.scores), heard.embeddings)


def open_teachers(
    wanted: Mapping[str, OutsideTeacher],
    names: Mapping[str, str],
    window_s: float,
    cache: Path,
    distilled: Collection[str] = (),
) -> dict[str, Outside]:
    """Teachers from outside, ready to answer, each with a line in the log.

    Parameters
    ----------
    wanted : the teachers' settings, by name
    names : class → its scientific name, which may be empty; all classes, in order
    cache : folder that keeps what models answered
    distilled : names of the teachers whose embeddings are learnt

    Raises
    ------
    UserError
        Where a teacher's file, its labels or its tensors are at fault, or it knows no class.
    """
    teachers: dict[str, Outside] = {}
    for name, settings in wanted.items():
        teacher: Outside
        if settings.kind == "table":
            if name in distilled:
                raise UserError(f"teachers.{name}: a table has no embeddings; distil from a model")
            teacher = AnswersTable.read(
                name, Path(settings.path), tuple(names), settings.licence, window_s
            )
        else:
            teacher = _model(name, settings, names, (window_s, cache), name in distilled)
        LOG.info(f"teacher {name}: {teacher.credit}; {teacher.knows}")
        teachers[name] = teacher
    return teachers


def _model(
    name: str,
    settings: OutsideTeacher,
    names: Mapping[str, str],
    where: tuple[float, Path],
    distilled: bool,
) -> Model:
    card, file = card_of(settings)
    known = match(card.labels, names, read_synonyms(_path(settings.synonyms)))
    if not known.known.any():
        raise UserError(
            f"teachers.{name}: knows none of the {len(names)} classes; give taxonomy.csv the column "
            "scientific_name, and teachers.labels the names of the model"
        )
    window_s, cache = where
    model = Model(name, card, file, known, window_s, distilled, cache / answers.FOLDER)
    model.check(())
    return model


def card_of(settings: OutsideTeacher) -> tuple[Card, Path]:
    """The card of a teacher that is a model, and the model's file."""
    if settings.kind == "birdnet":
        return presets.birdnet(_path(settings.path))
    card = Card(
        name=Path(settings.path).stem,
        kind=settings.kind,
        sample_rate=settings.sample_rate,
        window_s=settings.window_s,
        input=settings.input,
        output=settings.output,
        labels=read_labels(Path(settings.labels)),
        activation=settings.activation,
        embedding=settings.embedding,
        scaling=settings.scaling,
        peak=settings.peak,
        licence=settings.licence,
    )
    return card, Path(settings.path)


def files_of(dataset: Dataset, job: Job) -> list[SoundFile]:
    """The recordings and labelled soundscapes that a job's chunks are cut from, with their windows."""
    window_s, first_s = job.data.window_s, job.data.first_s
    train, _, _ = dataset.recordings_of(job.data)
    lengths_s = {recording.path: min(recording.duration_s, first_s) for recording in train}
    soundscapes = [soundscape.path for soundscape in dataset.training]
    looks = zip(soundscapes, bad_files.look_at_all(soundscapes), strict=True)
    lengths_s |= {path: seconds for path, (seconds, _) in looks}
    return [SoundFile(path, windows_in(seconds, window_s)) for path, seconds in lengths_s.items()]


def _path(text: str) -> Path | None:
    return Path(text) if text else None
