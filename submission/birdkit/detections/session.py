"""One call of `detect.py`, from its options to the tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from birdkit.detections import species as names
from birdkit.detections.outputs import Choices, Counts, Outputs
from birdkit.detections.windows import check_pyarrow
from birdkit.durations import in_words
from birdkit.errors import UserError
from birdkit.files import locked
from birdkit.log import LOG
from birdkit.recordings import folders
from birdkit.recordings.batch import Batch
from birdkit.recordings.folders import Recording
from birdkit.recordings.journal import Journal, Model
from birdkit.recordings.models import ModelFolder, Opened
from birdkit.recordings.progress import Progress

FLOOR = 0.05  # unless a threshold is lower
THRESHOLD = 0.5
LISTED_FAULTS = 3


@dataclass(frozen=True)
class Options:
    """The options of `detect.py`, by their names."""

    recordings: Sequence[Path]
    model: Path
    out: Path
    floor: float | None
    threshold: str
    species: str | None
    taxonomy: Path | None
    join: bool
    clips: int
    engine: str
    precision: str
    threads: int
    layout: str | None


def detect(options: Options) -> int:
    """Score what is not scored yet, write all tables, and return how many recordings are bad."""
    check_pyarrow()
    out = options.out
    folder = ModelFolder(
        options.model, options.engine, options.precision, options.threads, options.layout
    )
    found, faults = folders.find(options.recordings, out)
    make(out)
    with locked(out), closing(Journal(out, folder.key)) as journal:
        model, opened = journal.model, None
        if model is None:
            opened = folder.open(None)
            model = journal.model = folder.describe(opened)
        choices = choices_of(options, model)
        todo = [recording for recording in found if not journal.has(recording, choices.floor)]
        kept = f"; {len(found) - len(todo)} are scored already" if len(todo) < len(found) else ""
        LOG.info(f"{len(found)} recordings{kept}")
        if todo:
            opened = opened or folder.open(model.layout)
            faults |= _score(todo, opened, journal, choices.floor)
        with _naming(out):
            counts = Outputs(out, journal, model, choices).write(found, faults)
    _conclude(out, counts, faults)
    return len(faults) + len(counts.clip_faults)


def make(out: Path) -> None:
    """Make the folder of the tables. Raises `UserError` where that can't be."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror}; give the path of a folder") from error


def choices_of(options: Options, model: Model) -> Choices:
    """What goes into the tables.

    Raises `UserError` where options contradict the model, or each other.
    """
    species = names.named(model.classes, options.taxonomy, options.model)
    wanted = names.wanted(options.species, species)
    thresholds = names.thresholds(options.threshold, species, THRESHOLD)
    if others := names.models_of(options.threshold) - {model.name}:
        fitted = f"were fitted to scores of {', '.join(sorted(others))}, not of {model.name}"
        LOG.warning(f"warning: {options.threshold}: its thresholds {fitted}")
    lowest = min(thresholds)
    floor = min(FLOOR, lowest) if options.floor is None else options.floor
    if floor < FLOOR and options.floor is None:
        line = (
            f"floor {floor:g}, the lowest threshold; what was scored with a higher one is scored again"
        )
        LOG.info(line)
    if lowest < floor:
        raise UserError(f"--floor {floor:g} is above the threshold {lowest:g}; give a lower --floor")
    return Choices(species, wanted, thresholds, floor, options.join, options.clips)


def _score(todo: Sequence[Recording], opened: Opened, journal: Journal, floor: float) -> dict[str, str]:
    """Score recordings into the journal; name → why of those that are bad."""
    batch = Batch(
        opened.models, journal, floor, Progress(len(todo), sum(recording.size for recording in todo))
    )
    batch.run(todo, opened.layout.streams)
    for note in opened.models.notes:
        LOG.warning(f"warning: {note}")
    return batch.faults


@contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """Name the folder in an error of writing, which names no file where the disk is full."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, error.filename or str(folder)) from error


def _conclude(out: Path, counts: Counts, faults: dict[str, str]) -> None:
    """Say what there is, and what is bad."""
    for line in counts.clip_faults:
        LOG.warning(f"warning: no clip of {line}")
    if faults:
        listed = "; ".join(sorted(faults)[:LISTED_FAULTS])
        more = " …" if len(faults) > LISTED_FAULTS else ""
        LOG.info(f"{len(faults)} bad recordings: {listed}{more} ({out}/recordings.csv says why)")
    clips = f", {counts.clips} clips" if counts.clips else ""
    LOG.info(
        f"{out}: {counts.detections} detections of {len(counts.species)} classes{clips}, "
        f"{counts.windows} windows above the floor, "
        f"{counts.recordings} recordings, {in_words(counts.duration_s)} of sound"
    )
