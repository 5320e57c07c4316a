"""Synthesise a small competition in Kaggle's BirdCLEF layout, and a hidden set in `validation/`.

python train/demo.py [--out build/demo] [--seed 2025] [--scale 1.0]
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":  # in place of this folder, whose rooms have names of packages
    sys.path[0:1] = [str(ROOT), str(ROOT / "submission")]

from birdkit.commands import command_parser
from birdkit.errors import run_command
from birdkit.log import LOG
from birdkit.ranges import option
from train.synthetic.competition import make_competition


def main() -> int:
    parser = command_parser(__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "demo", help="its folder")
    parser.add_argument(
        "--seed", type=option(int, 0, 2**32 - 1), default=2025, help="the same gives the same files"
    )
    parser.add_argument(
        "--scale", type=option(float, 0.001, 100), default=1.0, help="0.25: a quarter of everything"
    )
    arguments = parser.parse_args()
    LOG.info(make_competition(arguments.out, seed=arguments.seed, scale=arguments.scale))
    return 0


if __name__ == "__main__":
    run_command(main)
