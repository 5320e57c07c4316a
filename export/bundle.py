"""Build what is uploaded to Kaggle: a dataset with the kit, and the notebook that runs it.

    python export/bundle.py [--model submission/model] [--out build/kaggle] [--owner NAME]
                            [--competition SLUG] [--wheels DIR] [--push]

The same inputs give the same bytes. A preflight names every violation of Kaggle's rules; only what
passes replaces the last bundle. Missing wheels of the engines are downloaded into `build/wheels`, or
taken from --wheels. --push uploads with Kaggle's own command line.

The dataset folder is what is mounted. `--dir-mode zip` makes of each folder an archive of its name
with paths relative to it (`birdkit/audio.py` is `audio.py` in `birdkit.zip`), top-level files go as
they are, and Kaggle unpacks an archive into a folder of its name (kaggle-cli, pull request 111). A lone
archive it unpacks without that folder (README of kaggleupload); ours lie beside the manifest. The
command line does not upload `dataset-metadata.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":  # in place of this folder, whose rooms have names of packages
    sys.path[0:1] = [str(ROOT), str(ROOT / "submission")]

from birdkit.errors import UserError, run_command
from birdkit.kaggle import manifest
from export.folder import model_folder
from export.kaggle import cli, rules, wheels
from export.kaggle.rules import DATASET, DATASET_METADATA, KERNEL, KERNEL_METADATA, OWNER, TEMPLATE

NOTEBOOK = "notebook.ipynb"
# Of submission/; the models and the wheels come beside them.
KIT = ("run.py", "requirements.txt", "birdkit")
WHEELS = ROOT / "build" / "wheels"
# 2000-01-01 in seconds: one date for all, and late enough for zip.
DATE_S = 946_684_800


@dataclass(frozen=True)
class Sources:
    """Where a bundle comes from, and who uploads it for which competition."""

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


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Build the upload to Kaggle, preflight it, push it.")
    parser.add_argument("--model", type=Path, default=model_folder.DEFAULT)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "kaggle")
    parser.add_argument("--owner", help=f"your Kaggle user name (default: that of {TEMPLATE})")
    parser.add_argument("--competition", help="SLUG of kaggle.com/competitions/SLUG")
    parser.add_argument("--wheels", type=Path, help="folder with the engines' wheels: no download")
    parser.add_argument(
        "--push", action="store_true", help="upload it; needs owner, competition, login"
    )
    return parser.parse_args(argv)


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
    """A file, or all files of a folder but Python's caches. What is absent the preflight names."""
    inside = manifest.paths(source) if source.is_dir() else [""] if source.is_file() else []
    for path in inside:
        to = target / path
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / path, to)


def write_json(path: Path, facts: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def kernel_metadata(sources: Sources) -> dict[str, Any]:
    """Each value is written out: the internet is on where `enable_internet` is absent."""
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
    # The deepest first: writing into a folder dates it anew.
    for path in sorted(folder.rglob("*"), reverse=True):
        path.chmod(0o755 if path.is_dir() else 0o644)
        os.utime(path, (DATE_S, DATE_S))


def dataset_metadata(template: Path, owner: str | None) -> dict[str, Any]:
    """The template with the owner put in."""
    facts = rules.read_json(template)
    if owner:
        facts["id"] = f"{owner}/{str(facts.get('id')).rpartition('/')[2]}"
    return facts


def refuse_foreign(out: Path) -> None:
    """Raise `UserError` where a folder holds something, but no bundle."""
    ours = (out / DATASET / manifest.NAME).is_file()
    if out.exists() and not ours and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: not a bundle, so it is not replaced; give another --out")


def refuse_violations(found: Sequence[str]) -> None:
    """Raise `UserError` where there is any, all of them printed."""
    if len(found) > 1:
        for line in found:
            print(f"violation: {line}", file=sys.stderr)
        raise UserError(f"{len(found)} violations of Kaggle's rules, see above; nothing was written")
    if found:
        raise UserError(f"{found[0]}; nothing was written")


def report(out: Path) -> None:
    """What was built, and what is missing for a push."""
    dataset, kernel = out / DATASET, out / KERNEL
    facts = rules.read_json(kernel / KERNEL_METADATA)
    size_mb, limit_mb = rules.total_bytes(dataset) / 1e6, rules.LIMIT_BYTES / 1e6
    size = f"{len(manifest.paths(dataset))} files, {size_mb:.0f} of at most {limit_mb:.0f} MB"
    print(f"{dataset}: {size}; {facts['dataset_sources'][0]}")
    competition = ", ".join(facts["competition_sources"]) or "no competition yet"
    print(f"{kernel}: {facts['code_file']} for {competition}; {facts['id']}")
    absent = ["--owner NAME"] if facts["id"].startswith(f"{OWNER}/") else []
    absent += [] if facts["competition_sources"] else ["--competition SLUG"]
    if absent:
        print(f"to push it, give {' and '.join(absent)}")


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    refuse_foreign(args.out)
    pins = wheels.pinned(ROOT / "submission" / "requirements.txt")
    found = wheels.gather(args.wheels or WHEELS, pins, download_missing=args.wheels is None)
    metadata = dataset_metadata(ROOT / TEMPLATE, args.owner)
    sources = Sources(ROOT / "submission", args.model, found, metadata, args.competition)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.out.parent, prefix=".bundle-") as scratch:
        staged = Path(scratch) / "bundle"
        build(staged, sources)
        refuse_violations(rules.violations(staged, pins, args.push))
        model_folder.replace(args.out, staged)
    report(args.out)
    if args.push:
        print(cli.push(args.out))
    return 0


if __name__ == "__main__":
    run_command(main)
