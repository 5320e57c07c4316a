"""Score a submission against known truth: masked macro-AUC.

    python train/metrics.py SUBMISSION.csv --validation DIR

DIR holds `truth.csv` (row_id, one 0/1 column a class) and, where there is one, `mask.csv` of the same
shape: 1 marks an undecided cell, which is left out.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":  # in place of this folder, whose rooms have names of packages
    sys.path[0:1] = [str(ROOT), str(ROOT / "submission")]

from birdkit.commands import command_parser
from birdkit.errors import run_command
from birdkit.ranges import option
from train.scoring.submitted import score_submission


def main(argv: Sequence[str] | None = None) -> int:
    parser = command_parser(__doc__)
    parser.add_argument("submission", type=Path, help="the table to score")
    parser.add_argument("--validation", type=Path, required=True, help="folder with truth.csv")
    parser.add_argument(
        "--at-least", type=option(float, 0, 1), default=0.0, help="exit status 1 below this"
    )
    args = parser.parse_args(argv)
    result = score_submission(args.submission, args.validation)
    print(f"masked macro-AUC of {args.submission} on {args.validation}: {result}")
    return 0 if result.macro >= args.at_least else 1


if __name__ == "__main__":
    run_command(main)
