"""BirdCLEF folders (2025 and 2026 layouts) → recordings, classes and soundscapes."""

from __future__ import annotations

import ast
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
from numpy.typing import NDArray

from birdkit.errors import UserError
from birdkit.kaggle import mounts


@dataclass(frozen=True)
class Recording:
    """One row of train.csv."""

    path: Path
    primary: str
    secondary: tuple[str, ...]
    author: str
    duration_s: float = 0.0  # as its header says, which may be too much


@dataclass(frozen=True)
class LabelledSoundscape:
    """A soundscape and its labels: `labels` holds (start s, end s, species) rows."""

    path: Path
    labels: tuple[tuple[float, float, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Competition:
    """The training data of one folder or several, and a line for everything that was left out."""

    roots: tuple[Path, ...]
    classes: tuple[str, ...]
    recordings: tuple[Recording, ...]
    soundscapes: tuple[LabelledSoundscape, ...]
    left_out: tuple[str, ...]

    def unlabelled(self) -> list[Path]:
        """The soundscapes of all folders that no label row names."""
        labelled = {soundscape.path for soundscape in self.soundscapes}
        folders = [root / "train_soundscapes" for root in self.roots]
        paths = [path for folder in folders if folder.is_dir() for path in mounts.soundscapes(folder)]
        return [path for path in paths if path not in labelled]

    def fingerprint(self) -> str:
        """SHA-256 over the tables and over each recording's name and size. No sound is decoded."""
        digest = hashlib.sha256()
        for root in self.roots:
            for name in ("taxonomy.csv", "train.csv", "train_soundscapes_labels.csv"):
                path = root / name
                digest.update(path.read_bytes() if path.is_file() else b"absent")
        for path in [r.path for r in self.recordings] + [s.path for s in self.soundscapes]:
            # Names below the folder: where it lies does not matter.
            below = next(path.relative_to(root) for root in self.roots if root in path.parents)
            digest.update(f"{below} {path.stat().st_size}\n".encode())
        return digest.hexdigest()


def read_competitions(
    roots: Sequence[Path], classes: str = "first", *, skip_bad: bool = False
) -> Competition:
    """Read several folders as one training set.

    A further folder (an earlier year, recordings from Xeno-canto) may have no taxonomy of its own.

    Parameters
    ----------
    classes : "first" takes the classes of the first folder, "union" those of all, in order of folder

    Raises
    ------
    UserError
        Naming the file or row and the remedy.
    """
    first, *others = roots
    folders = [read_competition(first, skip_bad=skip_bad)]
    for root in others:
        folders.append(read_competition(root, skip_bad=skip_bad, fallback=folders[0].classes))
    wanted = folders[0].classes
    if classes == "union":
        wanted = tuple(dict.fromkeys(name for folder in folders for name in folder.classes))
    folders = [_for_classes(folder, wanted) for folder in folders]
    return Competition(
        tuple(roots),
        wanted,
        tuple(recording for folder in folders for recording in folder.recordings),
        tuple(soundscape for folder in folders for soundscape in folder.soundscapes),
        tuple(line for folder in folders for line in folder.left_out)
        + _without_recordings(folders, wanted),
    )


def read_competition(
    root: Path, *, skip_bad: bool = False, fallback: Sequence[str] = ()
) -> Competition:
    """Read and check one folder.

    Parameters
    ----------
    skip_bad : leave out recordings that are absent or no sound files (named in `left_out`)
    fallback : the classes of a folder without taxonomy.csv

    Raises
    ------
    UserError
        Naming the file or row and the remedy.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; give a competition folder with --data DIR")
    has_taxonomy = (root / "taxonomy.csv").is_file() or not fallback
    classes = _read_classes(root / "taxonomy.csv") if has_taxonomy else tuple(fallback)
    recordings, left_out = _read_recordings(root, classes, skip_bad, strict=has_taxonomy)
    if not recordings:
        raise UserError(f"{root / 'train.csv'}: no recordings to train on")
    soundscapes = _read_soundscapes(root, classes)
    return Competition((root,), classes, recordings, soundscapes, tuple(left_out))


def _for_classes(folder: Competition, classes: Sequence[str]) -> Competition:
    """A folder restricted to these classes; `left_out` says how many recordings that drops."""
    known = set(classes)
    if known >= set(folder.classes):
        return folder
    recordings_left = [r for r in folder.recordings if r.primary in known]
    recordings = tuple(
        replace(r, secondary=tuple(s for s in r.secondary if s in known)) for r in recordings_left
    )
    soundscapes = tuple(
        replace(
            soundscape,
            labels=tuple(
                (start, end, tuple(name for name in species if name in known))
                for start, end, species in soundscape.labels
            ),
        )
        for soundscape in folder.soundscapes
    )
    lost = len(folder.recordings) - len(recordings_left)
    line = f"{folder.roots[0]}: {lost} recordings of classes that the first folder does not have"
    left_out = (*folder.left_out, line) if lost else folder.left_out
    return replace(folder, recordings=recordings, soundscapes=soundscapes, left_out=tuple(left_out))


def _without_recordings(folders: Sequence[Competition], classes: Sequence[str]) -> tuple[str, ...]:
    silent = sorted(set(classes) - {r.primary for folder in folders for r in folder.recordings})
    if not silent:
        return ()
    return (
        f"{len(silent)} of {len(classes)} classes have no recording ({', '.join(silent[:5])}); "
        "the model answers for them, untrained",
    )


def read_labelled(root: Path) -> tuple[LabelledSoundscape, ...]:
    """The labelled soundscapes alone, without a look at the recordings."""
    return _read_soundscapes(root, _read_classes(root / "taxonomy.csv"))


def class_groups(root: Path) -> dict[str, str]:
    """Class → its group in the taxonomy (Aves, Amphibia, …)."""
    table = read_table(root / "taxonomy.csv", ["primary_label", "class_name"])
    return dict(zip(table["primary_label"], table["class_name"], strict=True))


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """A CSV as strings (labels mix eBird codes and numeric iNaturalist ids), with these columns."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise UserError(f"{path}: not found; is {path.parent} a competition folder?") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: can't be read as CSV ({error}); download it again") from error
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise UserError(f"{path}: lacks the column {', '.join(missing)}; download it again")
    return table


def _read_classes(path: Path) -> tuple[str, ...]:
    labels = read_table(path, ["primary_label"])["primary_label"].tolist()
    doubled = [label for label, count in Counter(labels).items() if count > 1]
    if doubled or not labels:
        raise UserError(f"{path}: {f'lists {doubled[0]} twice' if doubled else 'lists no class'}")
    return tuple(labels)


def _read_recordings(
    root: Path, classes: Sequence[str], skip_bad: bool, strict: bool
) -> tuple[tuple[Recording, ...], list[str]]:
    path = root / "train.csv"
    table = read_table(path, ["primary_label", "secondary_labels", "filename", "author"])
    known = set(classes)
    strangers: Counter[str] = Counter()
    recordings, left_out, foreign = [], [], 0
    for row, values in enumerate(table.to_dict("records"), start=2):
        primary = values["primary_label"]
        if primary not in known and strict:
            raise UserError(f"{path}:{row}: unknown label '{primary}'; add it to taxonomy.csv")
        if primary not in known:
            foreign += 1
            continue
        audio = root / "train_audio" / values["filename"]
        duration_s, fault = _look_at(audio)
        if fault and not skip_bad:
            raise UserError(
                f"{path}:{row}: {audio} {fault}; restore it, remove the row, or leave such "
                "recordings out with --set data.skip_bad=true"
            )
        if fault:
            left_out.append(f"{audio}: {fault}")
            continue
        listed = parse_label_list(values["secondary_labels"], f"{path}:{row}")
        strangers.update(label for label in listed if label not in known)
        secondary = tuple(label for label in listed if label in known and label != primary)
        # A recording without an author is a group of its own.
        author = values["author"] or values["filename"]
        recordings.append(Recording(audio, primary, secondary, author, duration_s))
    if strangers:
        named = ", ".join(f"{label} ({count})" for label, count in strangers.most_common(5))
        left_out.append(
            f"{path}: {sum(strangers.values())} secondary labels that taxonomy.csv lacks: {named}"
        )
    if foreign:
        left_out.append(f"{path}: {foreign} recordings of classes that are not asked for")
    return tuple(recordings), left_out


def _look_at(path: Path) -> tuple[float, str | None]:
    """A recording's length in s, and its fault if it has one. Only the header is read."""
    if not path.is_file():
        return 0.0, "is absent"
    try:
        duration_s = soundfile.info(str(path)).duration
    except (soundfile.LibsndfileError, OSError):
        return 0.0, "is no sound file"
    return duration_s, None if duration_s > 0 else "holds no samples"


def parse_label_list(text: str, where: str) -> tuple[str, ...]:
    """`"['a', 'b']"` → ("a", "b"). Empty comes as `['']` (2025), `[]` (2026) or nothing at all."""
    try:
        values = ast.literal_eval(text) if text.strip() else []
    except (ValueError, SyntaxError):
        raise UserError(f"{where}: secondary_labels {text!r} is no list of labels") from None
    return tuple(str(value) for value in values if str(value))


def _read_soundscapes(root: Path, classes: Sequence[str]) -> tuple[LabelledSoundscape, ...]:
    path = root / "train_soundscapes_labels.csv"
    if not path.is_file():
        return ()
    table = read_table(path, ["filename", "start", "end", "primary_label"])
    known = set(classes)
    # The file of 2026 lists every row twice.
    table = table.drop_duplicates()
    soundscapes = []
    for name, rows in table.groupby("filename", sort=True):
        audio = root / "train_soundscapes" / str(name)
        if not audio.is_file():
            raise UserError(f"{path}: {audio} is absent; restore it or remove its rows")
        labels = []
        for start, end, text in zip(rows["start"], rows["end"], rows["primary_label"], strict=True):
            species = tuple(label for label in text.split(";") if label)
            for label in species:
                if label not in known:
                    raise UserError(f"{path}: unknown label '{label}'; add it to taxonomy.csv")
            labels.append((_seconds(start, str(path)), _seconds(end, str(path)), species))
        soundscapes.append(LabelledSoundscape(audio, tuple(labels)))
    return tuple(soundscapes)


def _seconds(text: str, where: str) -> float:
    """`HH:MM:SS`, or plain seconds."""
    try:
        total = 0.0
        for part in text.split(":"):
            total = 60 * total + float(part)
    except ValueError:
        raise UserError(f"{where}: time '{text}' is not HH:MM:SS") from None
    return total


def window_truth(
    soundscape: LabelledSoundscape, classes: Sequence[str], window_s: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The classes that call in each window of the grid.

    Returns
    -------
    truth : (windows, classes), whether a label row that overlaps the window names the class
    labelled : (windows,), whether label rows cover the whole window; nothing is known of the others
    """
    column = {name: index for index, name in enumerate(classes)}
    count = max(1, round(max(end for _, end, _ in soundscape.labels) / window_s))
    truth = np.zeros((count, len(classes)), dtype=bool)
    covered_s = np.zeros(count)
    for start, end, species in soundscape.labels:
        for window in range(count):
            overlap_s = min(end, (window + 1) * window_s) - max(start, window * window_s)
            if overlap_s > 0:
                covered_s[window] += overlap_s
                truth[window, [column[name] for name in species if name in column]] = True
    return truth, covered_s >= window_s - 1e-6
