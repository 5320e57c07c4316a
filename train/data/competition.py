"""BirdCLEF folders (2021 to 2026), or folders of recordings → recordings, classes, soundscapes."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from birdkit.errors import UserError
from birdkit.kaggle import class_folders, mounts
from train.data import bad_files, tables
from train.data.progress import in_threads
from train.data.soundscapes import LabelledSoundscape, Labels, read_soundscapes
from train.data.tables import parse_label_list, read_recordings, read_table


@dataclass(frozen=True)
class Recording:
    """A recording under one of its primary labels."""

    path: Path
    primary: str
    secondary: tuple[str, ...]
    author: str
    duration_s: float = 0.0


@dataclass(frozen=True)
class Competition:
    """The training data of one folder or several, and lines on what was derived and left out."""

    roots: tuple[Path, ...]
    classes: tuple[str, ...]
    recordings: tuple[Recording, ...]
    soundscapes: tuple[LabelledSoundscape, ...]
    left_out: tuple[str, ...]

    def groups(self) -> dict[str, str]:
        """Class → its group in the first taxonomy that has one for it."""
        return {name: group for root in self.roots[::-1] for name, group in class_groups(root).items()}

    @property
    def of_folders(self) -> bool:
        """Whether the first folder has no table of its recordings, but a folder for each class."""
        return class_folders.are_all(self.roots[0])

    def unlabelled(self) -> list[Path]:
        """The soundscapes of all folders that no label row names.

        Pseudo labels go by file name, so of several with one name the first is taken.
        """
        by_name: dict[str, Path] = {}
        for path in self._every_soundscape():
            by_name.setdefault(path.name, path)
        labelled = {soundscape.path.name for soundscape in self.soundscapes}
        return [path for name, path in by_name.items() if name not in labelled]

    def doubled_soundscapes(self) -> list[Path]:
        """The soundscapes that `unlabelled` leaves out for their name."""
        known = {soundscape.path for soundscape in self.soundscapes}.union(self.unlabelled())
        return [path for path in self._every_soundscape() if path not in known]

    def _every_soundscape(self) -> list[Path]:
        folders = [mounts.train_soundscapes(root) for root in self.roots]
        return [path for folder in folders if folder.is_dir() for path in mounts.soundscapes(folder)]

    def fingerprint(self) -> str:
        """SHA-256 over the tables and over each recording's name and size. No sound is decoded."""
        digest = hashlib.sha256()
        for root in self.roots:
            names = (mounts.RECORDINGS, tables.LABELS)
            for path in (root / mounts.TAXONOMY, *(mounts.there(root, name) for name in names)):
                digest.update(path.read_bytes() if path.is_file() else b"absent")
        for path in [r.path for r in self.recordings] + [s.path for s in self.soundscapes]:
            # Names below the folder, where they are: where it lies does not matter.
            below = (path.relative_to(root) for root in self.roots if root in path.parents)
            digest.update(f"{next(below, path)} {path.stat().st_size}\n".encode())
        return digest.hexdigest()


def read_competitions(
    roots: Sequence[Path], classes: str = "first", *, skip_bad: bool = False
) -> Competition:
    """Read and check folders as one training set.

    A further folder (an earlier year, recordings from Xeno-canto) may have no taxonomy of its own.

    Parameters
    ----------
    classes : "first" takes the classes of the first folder, "union" those of all, in order of folder
    skip_bad : leave out files that are absent or no sound files (named in `left_out`)

    Raises
    ------
    UserError
        Naming the file or row and the remedy.
    """
    own = [_read_classes(root, further=number > 0) for number, root in enumerate(roots)]
    wanted = own[0] or ()
    if classes == "union":
        wanted = tuple(dict.fromkeys(name for names in own for name in names or ()))
    recordings: list[Recording] = []
    soundscapes: list[LabelledSoundscape] = []
    left_out: list[str] = []
    for root, names in zip(roots, own, strict=True):
        labels = Labels(frozenset(wanted), None if names is None else frozenset(names))
        of_folder, lines = _read_recordings(root, labels, skip_bad)
        labelled, more = read_soundscapes(root, labels, skip_bad)
        recordings += of_folder
        soundscapes += labelled
        left_out += lines + more
    if len(wanted) == 1:
        left_out.append(
            f"there is one class, {wanted[0]}, so that no macro-AUC tells how good a model is; add a "
            "folder of other sounds"
        )
    return Competition(tuple(roots), wanted, tuple(recordings), tuple(soundscapes), tuple(left_out))


def read_labelled(root: Path) -> tuple[tuple[LabelledSoundscape, ...], list[str]]:
    """The labelled soundscapes that can be decoded, and a line for everything that was left out."""
    classes = frozenset(_read_classes(root) or ())
    found, lines = read_soundscapes(root, Labels(classes, classes), skip_bad=True)
    paths = [soundscape.path for soundscape in found]
    whys = in_threads(bad_files.body_fault, paths, "checking files")
    faults = {path: why for path, why in zip(paths, whys, strict=True) if why}
    lines += bad_files.left_out(faults, skip_bad=True)
    return tuple(s for s in found if s.path not in faults), lines


def class_groups(root: Path) -> dict[str, str]:
    """Class → its group in the taxonomy (Aves, Amphibia, …); until 2024 all classes were birds."""
    if _is_earlier_year(root):
        return dict.fromkeys(_read_classes(root) or (), "Aves")
    path = root / mounts.TAXONOMY
    table = read_table(path, ["primary_label"]) if path.is_file() else pd.DataFrame()
    if "class_name" not in table.columns:  # of folders of recordings, and lists of names
        return {}
    return dict(zip(table["primary_label"], table["class_name"], strict=True))


def _is_earlier_year(root: Path) -> bool:
    """Whether the folder is of 2021 to 2024, which had no taxonomy.csv."""
    of_today = mounts.RECORDINGS[0]
    return (
        not (root / mounts.TAXONOMY).is_file()
        and mounts.there(root, mounts.RECORDINGS).name != of_today
    )


def _read_classes(root: Path, *, further: bool = False) -> tuple[str, ...] | None:
    """The classes of taxonomy.csv, or the primary labels of an earlier year or of folders.

    Only a further folder may have neither; it gives None.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; give one of recordings, or a competition's")
    path = root / mounts.TAXONOMY
    if not path.is_file() and class_folders.are_all(root):
        return tuple(class_folders.find(root).recordings)
    if _is_earlier_year(root):
        recordings = read_table(mounts.there(root, mounts.RECORDINGS), ["primary_label"])
        return tuple(sorted(set(recordings["primary_label"]) - {""}))
    if further and not path.is_file():
        return None
    labels = read_table(path, ["primary_label"])["primary_label"].tolist()
    doubled = [label for label, count in Counter(labels).items() if count > 1]
    if doubled or not labels:
        raise UserError(f"{path}: {f'lists {doubled[0]} twice' if doubled else 'lists no class'}")
    return tuple(labels)


def _read_recordings(root: Path, labels: Labels, skip_bad: bool) -> tuple[list[Recording], list[str]]:
    table = read_recordings(root)
    path = table.path
    rows = list(zip(table.rows.index, table.rows.to_dict("records"), strict=True))
    wanted = [(where, v) for where, v in rows if labels.check(v["primary_label"], where)]
    files = [audio_file(table.folder, v["filename"], v["primary_label"]) for _, v in wanted]
    looks = bad_files.look_at_all(files)
    strangers: Counter[str] = Counter()
    recordings, lines = [], list(table.lines)
    for (where, values), file, (duration_s, fault) in zip(wanted, files, looks, strict=True):
        if fault:
            row = f"{where}: " if path.is_file() else ""  # a folder's file is named by its path alone
            lines += bad_files.left_out({file: fault}, skip_bad, row)
            continue
        primary, listed = values["primary_label"], parse_label_list(values["secondary_labels"], where)
        strangers.update(label for label in listed if not labels.knows(label))
        secondary = tuple(label for label in listed if label in labels.wanted and label != primary)
        # A recording without an author is a group of its own.
        author = values["author"] or values["filename"]
        recordings.append(Recording(file, primary, secondary, author, duration_s))
    if not recordings and len(wanted) == len(rows):
        raise UserError(f"{path}: no recordings to train on")
    if strangers:
        named = ", ".join(f"{label} ({count})" for label, count in strangers.most_common(5))
        n_strangers = strangers.total()
        lines.append(f"{path}: {n_strangers} secondary labels that taxonomy.csv lacks: {named}")
    if len(wanted) < len(rows):
        n_foreign = len(rows) - len(wanted)
        lines.append(f"{path}: {n_foreign} recordings of classes that are not asked for")
    joined = _one_a_file(recordings)
    if len(joined) < len(recordings):
        n_more = len(recordings) - len(joined)
        lines.append(f"{path}: {n_more} rows name a file again; its rows are joined, with all labels")
    return joined, lines


def audio_file(folder: Path, name: str, primary: str) -> Path:
    """The file of a row. In 2021 its name lacks the folder of its class."""
    path = folder / name
    return path if "/" in name or path.exists() else folder / primary / name


def _one_a_file(recordings: Sequence[Recording]) -> list[Recording]:
    """The rows of a file joined into one for each primary label, with all labels and one author.

    So no class loses its last recording, and no fold holds out what another row trains on.
    """
    rows_of: defaultdict[Path, list[Recording]] = defaultdict(list)
    for recording in recordings:
        rows_of[recording.path].append(recording)
    joined = []
    for rows in rows_of.values():
        primary = dict.fromkeys(row.primary for row in rows)
        labels = dict.fromkeys([*primary, *(label for row in rows for label in row.secondary)])
        for name in primary if len(rows) > 1 else ():
            others = tuple(label for label in labels if label != name)
            joined.append(replace(rows[0], primary=name, secondary=others))
        joined += rows if len(rows) == 1 else ()
    return joined
