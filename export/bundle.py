"""Build what is uploaded to Kaggle: a dataset with the kit, and the notebook that runs it.

    python export/bundle.py [--model submission/model] [--out build/kaggle] [--owner NAME]
                            [--competition SLUG] [--wheels DIR] [--push] [--accept-licence]
    python export/bundle.py --train RECIPE [--set key=value …] [--stop-after 11.5h] [--owner NAME]
                            [--competition SLUG] [--push]
    python export/bundle.py --fetch [OWNER/NOTEBOOK] [--out DIR]

The same inputs give the same bytes. A preflight names every violation of Kaggle's rules; only what
passes replaces the last bundle. Missing wheels of the engines are downloaded into `build/wheels`, or
taken from --wheels. --push uploads with Kaggle's own command line.

With --train the notebook trains a recipe on Kaggle's GPUs. It stops itself before the session's limit;
the same command with --push makes the next version, which goes on. --fetch brings the run back.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":  # in place of this folder, whose rooms have names of packages
    sys.path[0:1] = [str(ROOT), str(ROOT / "submission")]

from birdkit.commands import choose_mode, command_parser
from birdkit.errors import UserError, run_command
from birdkit.kaggle import manifest
from birdkit.log import LOG
from birdkit.outside import card as cards
from birdkit.scoring.ensemble import Spec
from birdkit.tables import read_json
from export.folder import model_folder
from export.kaggle import bundle, cli, rules, wheels
from export.kaggle.bundle import Sources
from export.kaggle.rules import DATASET, KERNEL, KERNEL_METADATA, OWNER, TEMPLATE
from export.kaggle.training import bundle as training
from export.kaggle.training import fetch
from train.config.recipe import add_set_option
from train.fit.stop import Stop

WHEELS = ROOT / "build" / "wheels"
OUT, TRAINING_OUT = ROOT / "build" / "kaggle", ROOT / "build" / "kaggle-training"
RUNS = ROOT / "runs"
DEFAULT_OUT = "build/kaggle, with --train build/kaggle-training, with --fetch runs/NOTEBOOK"
# Kaggle ends a notebook with a GPU after 12 h; a last validation and the output take their time.
LONGEST_SESSION_H = 11.8
OF_TRAINING = ("--set", "--name", "--stop-after", "--device", "--fresh")
# What is bundled, or brought back → the options that go with it.
MODES = {
    "--fetch": ("--out",),
    "--train": (*OF_TRAINING, "--out", "--owner", "--competition", "--push"),
    "--model": ("--wheels", "--accept-licence", "--out", "--owner", "--competition", "--push"),
}
# Licences that allow some uses only, or are not known.
LIMITED = re.compile(r"\b(NC|ND|non-?commercial|not stated|no licen[cs]e|research)\b", re.IGNORECASE)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument("--model", type=Path, default=model_folder.DEFAULT, help="the model folder")
    parser.add_argument("--out", type=Path, help=f"the bundle or the run (default: {DEFAULT_OUT})")
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
    add_training_options(parser)
    args, given = parser.parse_given(argv)
    args.mode = choose_mode(MODES, given)
    return args


def add_training_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("training on Kaggle")
    group.add_argument("--train", metavar="RECIPE", help="train this recipe: a name, or a TOML file")
    add_set_option(group, "the recipe")
    group.add_argument("--name", help="of dataset and notebook (default: the recipe's)")
    group.add_argument(
        "--stop-after",
        type=session_time,
        default="11.5h",
        metavar="TIME",
        help="of each session, below Kaggle's 12 h: 11.5h, 90min or 200steps",
    )
    group.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="that trains there")
    group.add_argument(
        "--fresh", action="store_true", help="begin anew, without the output of earlier versions"
    )
    group.add_argument(
        "--fetch", nargs="?", const="", metavar="OWNER/NOTEBOOK",
        help="bring the run back from Kaggle (default: of the training that was bundled last)",
    )  # fmt: skip


def session_time(text: str) -> str:
    """The `type` of an argparse option: the time of a session, which ends before Kaggle's limit."""
    session_s = Stop.after(text).at - time.monotonic()
    if LONGEST_SESSION_H * 3600 < session_s < math.inf:
        longest = f"at most {LONGEST_SESSION_H}h, for Kaggle ends a session after 12h"
        raise argparse.ArgumentTypeError(f"expected {longest}; got '{text}'")
    return text


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
    metadata = read_json(kernel / KERNEL_METADATA)
    size_mb, limit_mb = rules.total_bytes(dataset) / 1e6, rules.LIMIT_BYTES / 1e6
    size = f"{len(manifest.paths(dataset))} files, {size_mb:.0f} of at most {limit_mb:.0f} MB"
    LOG.info(f"{dataset}: {size}; {metadata['dataset_sources'][0]}")
    competition = ", ".join(metadata["competition_sources"]) or "no competition yet"
    LOG.info(f"{kernel}: {metadata['code_file']} for {competition}; {metadata['id']}")
    if metadata["kernel_sources"]:
        LOG.info("it goes on from the output of the last version; --fresh begins anew")
    absent = ["--owner NAME"] if metadata["id"].startswith(f"{OWNER}/") else []
    absent += [] if metadata["competition_sources"] else ["--competition SLUG"]
    if absent:
        LOG.info(f"to push it, give {' and '.join(absent)}")


def replace_bundle(
    out: Path, build: Callable[[Path], None], violations: Callable[[Path], Sequence[str]]
) -> None:
    """Build a bundle in place of the last one. Raises `UserError` where it has violations."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".bundle-") as scratch:
        staged = Path(scratch) / "bundle"
        build(staged)
        refuse_violations(violations(staged))
        model_folder.replace(out, staged)
    report(out)


def bundle_submission(args: argparse.Namespace, out: Path) -> None:
    spec = Spec.load(args.model)  # complains before anything is downloaded
    refuse_licences(args.model, spec, args.accept_licence)
    pins = wheels.pinned(ROOT / "submission" / "requirements.txt")
    if any((args.model / f"{name}.tflite").is_file() for name in spec.soft):
        pins |= wheels.pinned(ROOT / "requirements-outside.txt", [wheels.LITERT])
    of_engines = wheels.gather(args.wheels or WHEELS, pins, download_missing=args.wheels is None)
    metadata = bundle.dataset_metadata(ROOT / TEMPLATE, args.owner)
    sources = Sources(ROOT / "submission", args.model, of_engines, metadata, args.competition)
    replace_bundle(
        out,
        lambda staged: bundle.build(staged, sources),
        lambda staged: rules.violations(staged, pins, args.push),
    )


def bundle_training(args: argparse.Namespace, out: Path) -> None:
    places = (args.owner, args.competition)
    request = training.Request(
        ROOT, args.train, args.overrides, args.name, args.device, args.stop_after, *places
    )
    sources = training.Sources.of(request)
    if args.push and not args.fresh and cli.ended_version(sources.kernel["id"]) is not None:
        sources = sources.going_on()
    replace_bundle(
        out,
        lambda staged: training.build(staged, sources),
        lambda staged: training.violations(staged, sources, args.push),
    )


def fetch_run(args: argparse.Namespace) -> None:
    kernel = fetch.notebook(args.fetch, TRAINING_OUT)
    out = args.out or RUNS / kernel.partition("/")[2]
    LOG.info(fetch.fetch(kernel, out))


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    if args.mode == "--fetch":
        fetch_run(args)
        return 0
    trains = args.mode == "--train"
    out = args.out or (TRAINING_OUT if trains else OUT)
    bundle.refuse_foreign(out)
    (bundle_training if trains else bundle_submission)(args, out)
    if args.push:
        LOG.info(cli.push(out))
    return 0


if __name__ == "__main__":
    run_command(main)
