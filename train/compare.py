"""Compare macro-AUC before and after rounds of pseudo labels, over the seeds of a recipe.

    python train/compare.py RUN [RUN …] [--against RUN [RUN …]] [--set validation] [--into FILE]

Each RUN is a finished run of the same recipe with another seed. Its last round is compared with its
round 0, or with the last round of a run of another recipe, of the same seed: each model that is in
both, single against single, the mean of those figures, and the ensembles.
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
from birdkit.errors import UserError, run_command
from train.experiments.comparison import gains, markdown, pair
from train.pages.marks import put_between_marks
from train.rounds import plan


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="finished, one a seed")
    parser.add_argument(
        "--against",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="of another recipe, seed by seed (default: each run's own round 0)",
    )
    parser.add_argument(
        "--set", default="validation", dest="set_name", help="validation, soundscapes or held_out"
    )
    parser.add_argument("--into", type=Path, help="put the table there, between its marks")
    parser.add_argument("--mark", help="of the table in that file (default: the recipe's name)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    others = args.against or [None] * len(args.runs)
    if len(others) != len(args.runs):
        raise UserError(f"--against: {len(others)} runs for {len(args.runs)}; give one for each")
    pairs = [pair(run, args.set_name, other) for run, other in zip(args.runs, others, strict=True)]
    text = markdown(gains(pairs), "other recipe" if args.against else "round 0")
    print(text)
    if args.into:
        name = plan.finished(args.runs[0]).members[0].job.recipe
        put_between_marks(args.into, f"rounds {args.mark or name}", text)
    return 0


if __name__ == "__main__":
    run_command(main)
