"""Builds what is uploaded to Kaggle: a dataset with the kit, and the notebook that runs it.

The dataset folder is what is mounted. `--dir-mode zip` makes of each folder an archive of its name
with paths relative to it (`birdkit/audio.py` is `audio.py` in `birdkit.zip`), top-level files go as
they are, and Kaggle unpacks an archive into a folder of its name (kaggle-cli, pull request 111). A lone
archive it unpacks without that folder (README of kaggleupload); ours lie beside the manifest. The
command line does not upload `dataset-metadata.json`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from birdkit.errors import UserError
from birdkit.kaggle import manifest
from birdkit.tables import read_json
from export.kaggle import rules
from export.kaggle.rules import DATASET, DATASET_METADATA, KERNEL, KERNEL_METADATA

NOTEBOOK = "notebook.ipynb"
# Parts of submission/ in the bundle; the models and the wheels lie beside them.
KIT = ("run.py", "requirements.txt", "birdkit")
# 2000-01-01 in seconds: one date for all, and late enough for zip.
DATE_S = 946_684_800


@dataclass(frozen=True)
class Sources:
    """The sources of a bundle, its owner on Kaggle and its competition."""

    submission: Path
    model: Path
    wheels: Sequence[Path]
    metadata: dict[str, Any]
    competition: str | None

    @property
    def kernel_title(self) -> str:
        return f"{self.metadata.get('title')} submission"

    @property
    def owner(self) -> str:
        return str(self.metadata.get("id")).partition("/")[0]


def build(folder: Path, sources: Sources) -> None:
    """Write the dataset's and the kernel's folder, byte for byte the same from the same sources."""
    dataset, kernel = folder / DATASET, folder / KERNEL
    for name in KIT:
        copy(sources.submission / name, dataset / name)
    copy(sources.model, dataset / "model")
    for wheel in sources.wheels:
        copy(wheel, dataset / "wheels" / wheel.name)
    manifest.write(dataset)
    write_json(dataset / DATASET_METADATA, sources.metadata)
    copy(sources.submission / NOTEBOOK, kernel / NOTEBOOK)
    write_json(kernel / KERNEL_METADATA, kernel_metadata(sources))
    same_modes_and_dates(folder)


def copy(source: Path, target: Path) -> None:
    """A file, or all files of a folder but Python's caches. What is absent the preflight names.

    Raises `UserError` for a link out of the folder, since what it leads to may be private.
    """
    for entry in source.rglob("*"):
        if entry.is_symlink() and not entry.resolve().is_relative_to(source.resolve()):
            raise UserError(f"{entry}: is a link out of {source}; put the file itself there")
    inside = manifest.paths(source) if source.is_dir() else [""] if source.is_file() else []
    for name in inside:
        to = target / name
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, to)


def write_json(path: Path, values: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def kernel_metadata(sources: Sources) -> dict[str, Any]:
    """The kernel's metadata with all values: an absent `enable_internet` turns the internet on."""
    return {
        "id": f"{sources.owner}/{rules.slugify(sources.kernel_title)}",
        "title": sources.kernel_title,
        "code_file": NOTEBOOK,
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": False,
        "enable_tpu": False,
        "enable_internet": False,
        "dataset_sources": [sources.metadata.get("id")],
        "competition_sources": [sources.competition] if sources.competition else [],
        "kernel_sources": [],
        "model_sources": [],
    }


def same_modes_and_dates(folder: Path) -> None:
    """Give all files one mode and date, and all folders, so that the same bytes are the same upload."""
    # The deepest first: writing into a folder dates it anew.
    for path in sorted(folder.rglob("*"), reverse=True):
        path.chmod(0o755 if path.is_dir() else 0o644)
        os.utime(path, (DATE_S, DATE_S))


def dataset_metadata(template: Path, owner: str | None) -> dict[str, Any]:
    """The template with the owner put in."""
    metadata = read_json(template)
    if owner:
        metadata["id"] = f"{owner}/{str(metadata.get('id')).rpartition('/')[2]}"
    return metadata


def refuse_foreign(out: Path) -> None:
    """Raise `UserError` where there is something that is no part of a bundle."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    try:
        dataset = [*manifest.listed(out / DATASET), *manifest.NOT_LISTED]
    except (OSError, ValueError):
        raise UserError(f"{out}: not a bundle, so it is not replaced; give another --out") from None
    ours = {f"{DATASET}/{name}" for name in dataset}
    ours |= {f"{KERNEL}/{name}" for name in (NOTEBOOK, KERNEL_METADATA)}
    if foreign := [path for path in manifest.paths(out) if path not in ours]:
        raise UserError(f"{out}: {foreign[0]} is no part of a bundle; move it, or give another --out")
