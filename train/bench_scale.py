"""Run every stage of a run on a synthetic competition of real size, and print its time and memory.

    python train/bench_scale.py [--out DIR] [--share X …] [--wheels DIR] [--stage NAME …]

The competition has 28,564 recordings, 206 classes and 9,726 soundscapes of a minute. All stages run at
a tenth of it and at the whole. Exit status 1: one grows faster than its input, or holds all audio.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":  # in place of this folder, whose rooms have names of packages
    sys.path[0:1] = [str(ROOT), str(ROOT / "submission")]

from birdkit.commands import command_parser
from birdkit.errors import run_command
from birdkit.ranges import option
from train.benchmark import scale


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "scale", help="what it makes")
    parser.add_argument(
        "--share",
        type=option(float, 0.001, 1),
        nargs="+",
        default=list(scale.SHARES),
        help="sizes, as shares of the real competition (default: 0.1 1)",
    )
    parser.add_argument("--wheels", type=Path, help="for the bundle (default: download them)")
    parser.add_argument(
        "--stage", choices=list(scale.STAGES), nargs="+", default=list(scale.STAGES),
        help="only these, in their order (default: all)",
    )  # fmt: skip
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    text, wrong = scale.compare(args.out, args.share, args.wheels, args.stage)
    print(text)
    return 1 if wrong else 0


if __name__ == "__main__":
    run_command(main)
