"""Kaggle on this machine: a bundle's notebook as commit run and scoring rerun, ending with a verdict.

    python export/kaggle_sim.py [--bundle build/kaggle] [--data DIR] [--python 3.12 3.13]
                                [--layout both] [--files 700] [--work build/kaggle-sim]
    python export/kaggle_sim.py --train RECIPE [--set key=value …] [--data DIR] [--layout both]

For each Python and layout of mounts: an environment with what Kaggle's image has, no network,
read-only inputs, and three sessions: without test files; with `--files` of them, twenty of which are
bad files; and again without OpenVINO's wheels. Exit status 1 if any fails. Only --work is written.

With --train a recipe is bundled as export/bundle.py does, and trained on this CPU in three sessions and
in one: both must end with the same weights.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":  # in place of this folder, whose rooms have names of packages
    sys.path[0:1] = [str(ROOT), str(ROOT / "submission")]

from birdkit.commands import choose_mode, command_parser
from birdkit.errors import UserError, run_command
from birdkit.log import LOG
from export.kaggle.sim import bad_files, folders, pythons, training, verdict
from export.kaggle.sim.bad_files import BAD_FILES
from export.kaggle.sim.folders import LAYOUTS, Bundle
from export.kaggle.sim.place import Place, sessions
from export.kaggle.sim.verdict import Line
from train.config.recipe import add_set_option

# What is rehearsed → the options that go with it.
MODES = {"--train": ("--set",), "--bundle": ("--python", "--files")}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    versions = list(pythons.PACKAGES)
    parser.add_argument("--bundle", type=Path, default=ROOT / "build" / "kaggle", help="from bundle.py")
    parser.add_argument("--data", type=Path, default=ROOT / "build" / "demo", help="competition folder")
    parser.add_argument("--python", nargs="+", choices=versions, default=versions, help="of Kaggle")
    parser.add_argument("--layout", choices=("both", *LAYOUTS), default="both", help="of the mounts")
    parser.add_argument("--files", type=int, default=700, help="test soundscapes of the scoring rerun")
    parser.add_argument("--train", metavar="RECIPE", help="rehearse its training: a name or TOML file")
    add_set_option(parser, "the recipe")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "build" / "kaggle-sim", help="all that is written"
    )
    args, given = parser.parse_given(argv)
    args.mode = choose_mode(MODES, given)
    if args.files < 2 * len(BAD_FILES):
        raise UserError(
            f"--files {args.files}: {len(BAD_FILES)} are bad files; give twice that or more"
        )
    args.layouts = LAYOUTS if args.layout == "both" else (args.layout,)
    return args


def submissions(args: argparse.Namespace, work: Path) -> Iterator[Line]:
    """The sessions of a bundled submission in every Python and layout."""
    bundle = Bundle.read(args.bundle.resolve())
    folders.sources(args.data)  # complains before anything is installed
    folders.prepare(work)
    for version, python in pythons.interpreters(args.python, work).items():
        for layout in args.layouts:
            tree = folders.build(work / f"{version}-{layout}", layout, bundle, args.data)
            place = Place(version, python, layout, tree, bundle.notebook)
            yield from sessions(place, args.data, args.files)


def noted(lines: Iterable[Line]) -> list[Line]:
    """The lines, and as each comes the last words of a session that failed."""
    every = []
    for line in lines:
        every.append(line)
        if line.problems:
            LOG.error(f"{line.verdict}\n{line.last_words()}")
    return every


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    work = args.work.resolve()
    if args.mode == "--train":
        folders.prepare(work)
        rehearsal = training.Rehearsal(ROOT, args.train, args.overrides, args.data.resolve(), work)
        lines = noted(training.rehearse(rehearsal, args.layouts))
        print(verdict.markdown(lines, training.HEADER))
    else:
        lines = noted(submissions(args, work))
        print(f"{verdict.markdown(lines)}\n\n{bad_files.describe()}")
    return 1 if any(line.problems for line in lines) else 0


if __name__ == "__main__":
    run_command(main)
