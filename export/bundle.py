"""Build what is uploaded to Kaggle: a dataset with the kit, and the notebook that runs it.

    python export/bundle.py [--model submission/model] [--out build/kaggle] [--owner NAME]
                            [--competition SLUG] [--wheels DIR] [--push] [--accept-licence]

The same inputs give the same bytes. A preflight names every violation of Kaggle's rules; only what
passes replaces the last bundle. Missing wheels of the engines are downloaded into `build/wheels`, or
taken from --wheels. --push uploads with Kaggle's own command line.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":  # in place of this folder, whose rooms have names of packages
    sys.path[0:1] = [str(ROOT), str(ROOT / "submission")]

from birdkit.commands import command_parser
from birdkit.errors import UserError, run_command
from birdkit.kaggle import manifest
from birdkit.log import LOG
from birdkit.outside import card as cards
from birdkit.scoring.ensemble import Spec
from export.folder import model_folder
from export.kaggle import bundle, cli, rules, wheels
from export.kaggle.bundle import Sources
from export.kaggle.rules import DATASET, KERNEL, KERNEL_METADATA, OWNER, TEMPLATE

WHEELS = ROOT / "build" / "wheels"
# Licences that allow some uses only, or are not known.
LIMITED = re.compile(r"\b(NC|ND|non-?commercial|not stated|no licen[cs]e|research)\b", re.IGNORECASE)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument("--model", type=Path, default=model_folder.DEFAULT, help="the model folder")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "kaggle", help="the bundle")
    parser.add_argument("--owner", help=f"your Kaggle user name (default: that of {TEMPLATE})")
    parser.add_argument("--competition", help="SLUG of kaggle.com/competitions/SLUG")
    parser.add_argument("--wheels", type=Path, help="folder with the engines' wheels: no download")
    parser.add_argument(
        "--accept-licence",
        action="store_true",
        help="bundle members from outside whose licence limits their use",
    )
    parser.add_argument(
        "--push", action="store_true", help="upload it; needs owner, competition, login"
    )
    return parser.parse_args(argv)


def refuse_licences(model: Path, spec: Spec, accepted: bool) -> None:
    """Raise `UserError` for a member from outside that may not be used for everything."""
    for name in spec.soft:
        card = cards.load(cards.card_of(model, name))
        if not LIMITED.search(card.licence):
            continue
        if not accepted:
            raise UserError(
                f"{model}: {name} ({card.name}) has the licence {card.licence}; see whether the "
                "competition's rules and your use allow that, then give --accept-licence"
            )
        LOG.info(f"{name} ({card.name}): licence {card.licence}, accepted with --accept-licence")


def refuse_violations(violations: Sequence[str]) -> None:
    """Raise `UserError` where there is any, all of them printed."""
    if len(violations) > 1:
        for line in violations:
            LOG.error(f"violation: {line}")
        n_rules = f"{len(violations)} violations of Kaggle's rules"
        raise UserError(f"{n_rules}, see above; nothing was written")
    if violations:
        raise UserError(f"{violations[0]}; nothing was written")


def report(out: Path) -> None:
    """Print what was built, and what is missing for a push."""
    dataset, kernel = out / DATASET, out / KERNEL
    metadata = rules.read_json(kernel / KERNEL_METADATA)
    size_mb, limit_mb = rules.total_bytes(dataset) / 1e6, rules.LIMIT_BYTES / 1e6
    size = f"{len(manifest.paths(dataset))} files, {size_mb:.0f} of at most {limit_mb:.0f} MB"
    LOG.info(f"{dataset}: {size}; {metadata['dataset_sources'][0]}")
    competition = ", ".join(metadata["competition_sources"]) or "no competition yet"
    LOG.info(f"{kernel}: {metadata['code_file']} for {competition}; {metadata['id']}")
    absent = ["--owner NAME"] if metadata["id"].startswith(f"{OWNER}/") else []
    absent += [] if metadata["competition_sources"] else ["--competition SLUG"]
    if absent:
        LOG.info(f"to push it, give {' and '.join(absent)}")


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    bundle.refuse_foreign(args.out)
    spec = Spec.load(args.model)  # complains before anything is downloaded
    refuse_licences(args.model, spec, args.accept_licence)
    pins = wheels.pinned(ROOT / "submission" / "requirements.txt")
    if any((args.model / f"{name}.tflite").is_file() for name in spec.soft):
        pins |= wheels.pinned(ROOT / "requirements-outside.txt", [wheels.LITERT])
    of_engines = wheels.gather(args.wheels or WHEELS, pins, download_missing=args.wheels is None)
    metadata = bundle.dataset_metadata(ROOT / TEMPLATE, args.owner)
    sources = Sources(ROOT / "submission", args.model, of_engines, metadata, args.competition)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.out.parent, prefix=".bundle-") as scratch:
        staged = Path(scratch) / "bundle"
        bundle.build(staged, sources)
        refuse_violations(rules.violations(staged, pins, args.push))
        model_folder.replace(args.out, staged)
    report(args.out)
    if args.push:
        LOG.info(cli.push(args.out))
    return 0


if __name__ == "__main__":
    run_command(main)
