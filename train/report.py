"""Show a run on one page: rounds, curves, classes, pseudo labels, calibration, export.

    python train/report.py [RUN_DIR [OTHER_RUN_DIR]] [--model DIR] [--out FILE]

The page is one file that opens from disk and asks no network for anything. Without RUN_DIR it shows the
run that was finished last. A second run is shown beside the first, with the paired interval of their
difference. What a run does not store is said, with the command that makes it.
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
from train.pages.report import build, run_folder
from train.rounds import plan


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument("run_dir", type=Path, nargs="?", help="default: the latest run")
    parser.add_argument("other_run_dir", type=Path, nargs="?", help="a run to compare with")
    parser.add_argument(
        "--model", type=Path, help="its export (default: submission/model, where made from this run)"
    )
    parser.add_argument("--out", type=Path, help="the page (default: RUN_DIR/report.html)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    folders = [args.run_dir or plan.latest_run()]
    folders += [args.other_run_dir] if args.other_run_dir else []
    runs = run_folder.read_all(folders)
    out = args.out or folders[0] / ("report.html" if len(runs) == 1 else f"report-{runs[1].name}.html")
    build.write(out, runs, args.model)
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB; open it in a browser")
    return 0


if __name__ == "__main__":
    run_command(main)
