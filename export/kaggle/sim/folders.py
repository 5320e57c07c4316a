"""Folders as Kaggle mounts them, in both layouts, with recordings linked from a competition folder."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from birdkit.errors import UserError
from birdkit.kaggle import manifest, mounts
from birdkit.kaggle.mounts import soundscapes
from birdkit.tables import read_json
from export.kaggle.rules import DATASET, DATASET_METADATA, KERNEL, KERNEL_METADATA
from export.kaggle.sim.bad_files import BAD_FILES
from train.data import tables

LAYOUTS = ("nested", "flat")
# The competition's name where the bundle names none yet.
COMPETITION = "birdclef"
TABLES = ("sample_submission.csv", "taxonomy.csv")
MARK = "made-by-kaggle-sim"  # in a work folder: that it may be written to
# Beyond the numbers that a sample submission may name.
FIRST_NUMBER = 9_000_000


@dataclass(frozen=True)
class Bundle:
    """The output of `export/bundle.py`, and the names under which it will be mounted."""

    folder: Path
    competition: str
    owner: str
    slug: str
    notebook: Path

    @classmethod
    def read(cls, folder: Path) -> Bundle:
        if not (folder / DATASET / manifest.NAME).is_file():
            raise UserError(f"{folder}: no bundle; run export/bundle.py --out {folder}")
        kernel = read_json(folder / KERNEL / KERNEL_METADATA)
        owner, _, slug = str(kernel["dataset_sources"][0]).partition("/")
        competition = next(iter(kernel["competition_sources"]), COMPETITION)
        return cls(folder, competition, owner, slug, folder / KERNEL / str(kernel["code_file"]))


@dataclass(frozen=True)
class Tree:
    """A folder like /kaggle, and beside it what a user has at hand: home, scratch, sockets, logs."""

    folder: Path
    competition: Path
    dataset: Path

    @property
    def root(self) -> Path:
        return self.folder / "kaggle"

    @property
    def submission(self) -> Path:
        return self.root / "working" / "submission.csv"

    @property
    def scratch(self) -> Path:
        return self.folder / "tmp"

    def refresh(self) -> None:
        """Empty what a run writes to, as each session on Kaggle finds it."""
        for name in ("kaggle/working", "home", "tmp", "ipc"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
            (self.folder / name).mkdir(parents=True)

    def keep(self, name: str) -> None:
        """Put what a session wrote beside its log; the engines that it unpacked are large, and go."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        shutil.copytree(self.submission.parent, self.folder / name)
        shutil.rmtree(self.scratch)


@dataclass(frozen=True)
class Hidden:
    """Test soundscapes that were laid out: all stems, and which of them are bad in which way."""

    stems: Sequence[str]
    bad_files: dict[str, str]  # file name → its key in `BAD_FILES`


def prepare(work: Path) -> None:
    """Make the work folder. Raises `UserError` where it holds what is not ours."""
    if work.exists() and not (work / MARK).is_file() and any(work.iterdir()):
        raise UserError(f"{work}: holds other things, so it is not written to; give another --work")
    work.mkdir(parents=True, exist_ok=True)
    (work / MARK).touch()


def build(folder: Path, layout: str, bundle: Bundle, data: Path) -> Tree:
    """A fresh tree with the competition and the dataset, and no test soundscapes."""
    shutil.rmtree(folder, ignore_errors=True)
    inputs = folder / "kaggle" / "input"
    if layout == "nested":
        competition = inputs / "competitions" / bundle.competition
        dataset = inputs / "datasets" / bundle.owner / bundle.slug
    else:
        competition, dataset = inputs / bundle.competition, inputs / bundle.slug
    tree = Tree(folder, competition, dataset)
    mount(bundle, dataset)
    fill(competition, data)
    tree.refresh()
    return tree


def mount(bundle: Bundle, dataset: Path) -> None:
    """The dataset as Kaggle shows it: its metadata is not uploaded."""
    shutil.copytree(bundle.folder / DATASET, dataset, ignore=shutil.ignore_patterns(DATASET_METADATA))


def fill(competition: Path, data: Path) -> None:
    """Tables copied, train soundscapes linked, an empty folder for the test ones."""
    sounds = sources(data)
    for name in ("train_soundscapes", "test_soundscapes"):
        (competition / name).mkdir(parents=True)
    for name in TABLES:
        if not (data / name).is_file():
            raise UserError(f"{data / name}: not found; --data must be a competition folder")
        shutil.copyfile(data / name, competition / name)
    for path in sounds:
        (competition / "train_soundscapes" / path.name).symlink_to(path)


def link_the_rest(competition: Path, data: Path) -> None:
    """Link what training reads beside the soundscapes; nothing of a folder that only a person has."""
    for name in (*mounts.RECORDINGS, *mounts.AUDIO, *tables.LABELS):
        if (data / name).exists():
            (competition / name).symlink_to((data / name).resolve())


def of_notebook(tree: Tree, layout: str, kernel: str) -> Path:
    """Where the output of a notebook, OWNER/SLUG, is mounted."""
    inputs = tree.root / "input"
    return inputs / "notebooks" / kernel if layout == "nested" else inputs / Path(kernel).name


def sources(data: Path) -> list[Path]:
    """The soundscapes that stand for all others, by absolute path."""
    folder = data.resolve() / "train_soundscapes"
    paths = soundscapes(folder) if folder.is_dir() else []
    if not paths:
        raise UserError(
            f"{data / 'train_soundscapes'}: no sound files to simulate a scoring rerun with; give a "
            "competition folder with --data DIR"
        )
    return paths


def add_test_soundscapes(tree: Tree, data: Path, n_files: int) -> Hidden:
    """Fill the test folder as at the scoring rerun, with every bad file once, among the healthy."""
    folder, sounds = tree.competition / "test_soundscapes", sources(data)
    bad_at = {k * n_files // len(BAD_FILES): name for k, name in enumerate(BAD_FILES)}
    stems, bad_files = [], {}
    for k in range(n_files):
        stem, healthy = f"soundscape_{FIRST_NUMBER + k}", sounds[k % len(sounds)]
        stems.append(stem)
        if k in bad_at:
            bad_file = BAD_FILES[bad_at[k]]
            bad_file.write(folder / f"{stem}{bad_file.suffix}", healthy)
            bad_files[f"{stem}{bad_file.suffix}"] = bad_at[k]
        else:
            (folder / f"{stem}{healthy.suffix}").symlink_to(healthy)
    return Hidden(stems, bad_files)


def take_out(tree: Tree, engine: str) -> None:
    """Make an engine unimportable: its wheels are gone from the mounted dataset."""
    for path in (tree.dataset / "wheels").glob(f"{engine}-*.whl"):
        path.unlink()
