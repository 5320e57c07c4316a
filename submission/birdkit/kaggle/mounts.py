"""Finds the competition folder that Kaggle mounts, and the sound files in a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from birdkit.audio import SUFFIXES
from birdkit.errors import UserError, one_line

# Kaggle's folders; set otherwise only where Kaggle is simulated.
INPUT_ROOT = Path(os.environ.get("BIRDKIT_KAGGLE_ROOT", "/kaggle")) / "input"
# Names of one thing, the one of today first.
RECORDINGS = ("train.csv", "train_metadata.csv")  # 2021 to 2024
TAXONOMY = "taxonomy.csv"
AUDIO = ("train_audio", "train_short_audio")  # 2021
TRAIN_SOUNDSCAPES = ("train_soundscapes", "unlabeled_soundscapes")  # 2024
TEST_SOUNDSCAPES = "test_soundscapes"
LIMIT_MIN = 90.0  # how long the notebook may run
LIMIT_FILES = 700  # how many soundscapes the scoring rerun has to score


def find_competition(root: Path = INPUT_ROOT) -> Path:
    """The mounted competition folder: `<root>/<slug>` or `<root>/competitions/<slug>`.

    Two fixed depths and no walk: listing all inputs has taken 90 s on Kaggle.
    """
    candidates = sorted([*root.glob("*"), *root.glob("competitions/*")])
    competitions = [
        folder
        for folder in candidates
        if (folder / "sample_submission.csv").is_file() and (folder / TEST_SOUNDSCAPES).is_dir()
    ]
    if not competitions:
        raise UserError(f"{root}: no competition is mounted there; give its folder with --data DIR")
    if len(competitions) > 1:
        names = ", ".join(str(folder) for folder in competitions)
        raise UserError(f"{root}: several competitions are mounted ({names}); choose with --data DIR")
    return competitions[0]


def soundscapes(folder: Path) -> list[Path]:
    """The sound files of a folder, sorted by name, without hidden ones such as macOS's `._name.ogg`."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name one that holds sound files")
    sounds = (path for path in folder.iterdir() if is_sound(path))
    return sorted(path for path in sounds if not path.name.startswith("."))


def is_sound(path: Path) -> bool:
    """Whether a name is that of a sound file, by its suffix."""
    return path.suffix.lower() in SUFFIXES


def there(root: Path, names: Sequence[str]) -> Path:
    """The first of these that the folder has; where it has none, the first of all."""
    return next((root / name for name in names if (root / name).exists()), root / names[0])


def train_soundscapes(data: Path) -> Path:
    """The folder of a competition's soundscapes for training."""
    return there(data, TRAIN_SOUNDSCAPES)


def one_a_stem(paths: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """The files to score, one for each stem since rows name stems, and a line for each other file.

    Ogg goes before other formats, and else the first name before later ones.
    """
    scored: dict[str, Path] = {}
    for path in sorted(paths, key=lambda path: path.suffix.lower() != ".ogg"):
        scored.setdefault(one_line(path.stem), path)
    pairs = ((path.name, scored[one_line(path.stem)].name) for path in paths)
    lines = [one_line(f"{name} has the rows of {other}") for name, other in pairs if name != other]
    return sorted(scored.values()), lines
