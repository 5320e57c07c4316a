"""Speed, memory and parity, side by side in one run, on minutes of audio.

    python export/bench.py [MODEL_DIR] [--data DIR] [--json FILE] [--chart FILE.png] [--readme FILE]
    python export/bench.py --frontier RUN_DIR … [--data DIR] [--validation DIR] [--chart FILE.png]

Without MODEL_DIR it measures the b3 and v2_b3 of the 6th place of BirdCLEF+ 2025 with random weights.
Their speed is that of trained ones, but no gate has passed their lower precisions. The baselines and
our models use the same decoding and the same choice of layout. --frontier exports the members of runs
in every way, and shows what each way gives on labelled soundscapes beside what it costs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":  # in place of this folder, whose rooms have names of packages
    sys.path[0:1] = [str(ROOT), str(ROOT / "submission")]

from birdkit.commands import command_parser
from birdkit.errors import UserError, run_command
from birdkit.ranges import option
from birdkit.scoring.ensemble import common_contract
from export.benchmark import comparison, frontier, report
from export.benchmark.measure import measure
from export.gates import selection
from export.models.members import load, run_name
from train.pages.marks import put_between_marks
from train.scoring.evaluate import validation_set

SCALES = [50, 200, 700]


class Page(Protocol):
    """A module that shows measured figures."""

    MARK: str

    def markdown(self, report: Mapping[str, Any], /) -> str: ...

    def chart(self, report: Mapping[str, Any], path: Path, /) -> None: ...


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument("model_dir", type=Path, nargs="?", help="default: b3 + v2_b3, random weights")
    parser.add_argument("--data", type=Path, help="competition folder (default: noise, as Ogg files)")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs", help="where its checkpoints lie")
    parser.add_argument(
        "--files", type=option(int, 1, 100_000), default=8, help="minutes of audio a round"
    )
    parser.add_argument(
        "--rounds", type=option(int, 1, 1000), default=5, help="all setups take turns in each"
    )
    parser.add_argument(
        "--frontier",
        type=Path,
        nargs="+",
        action="append",
        metavar="RUN_DIR",
        help="accuracy against time of an ensemble of runs; once for each ensemble",
    )
    parser.add_argument(
        "--validation",
        type=Path,
        help="soundscapes/, truth.csv, mask.csv to judge the frontier, not labelled soundscapes",
    )
    parser.add_argument("--json", type=Path, help="write every figure here")
    parser.add_argument("--chart", type=Path, help="write a chart (PNG) here")
    parser.add_argument("--readme", type=Path, help="put the table between its marks there")
    parser.add_argument(
        "--scaling",
        type=option(int, 1, 100_000),
        nargs="*",
        metavar="N",
        help="also time so many files of ours in f32: three rising numbers or more (none: 50 200 700)",
    )
    args = parser.parse_args(argv)
    if args.scaling == []:
        args.scaling = SCALES
    if args.scaling and (len(args.scaling) < 3 or args.scaling != sorted(set(args.scaling))):
        parser.error("--scaling needs three or more rising numbers, or none")
    return args


def show_frontier(args: argparse.Namespace) -> None:
    """Measure, print and draw accuracy against time; `UserError` without labelled soundscapes."""
    ensembles = {" + ".join(map(run_name, runs)): load(runs) for runs in args.frontier}
    if len(ensembles) < len(args.frontier):
        raise UserError("--frontier: two of the ensembles have one name; rename a run's folder")
    contract = common_contract({name: members.contract for name, members in ensembles.items()})
    if args.validation:
        judging = validation_set(args.validation, contract)
    else:
        trained_on = frozenset[str]().union(*(members.trained_on for members in ensembles.values()))
        labelled = selection.labelled_set(args.data, contract, trained_on)
        if labelled.truth_set is None:
            raise UserError(f"--frontier has nothing to judge on, since {labelled.note}")
        judging = labelled.truth_set
    with tempfile.TemporaryDirectory(prefix="frontier-") as folder:
        measured = frontier.measure(ensembles, judging, args.rounds, Path(folder))
    put_out(args, frontier, measured)


def put_out(args: argparse.Namespace, page: Page, measured: dict[str, Any]) -> None:
    """Print what was measured, and write it where it is asked for."""
    table = page.markdown(measured)
    print(table)
    if args.json:
        args.json.write_text(json.dumps(measured, indent=2) + "\n")
    if args.chart:
        page.chart(measured, args.chart)
    if args.readme:
        put_between_marks(args.readme, page.MARK, table)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    if args.frontier:
        show_frontier(args)
        return 0
    if args.data:
        comparison.minutes_of(args.data)  # complains before anything is exported
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        scratch = Path(folder)
        if args.model_dir is None:
            compared = comparison.of_write_up(scratch)
        else:
            compared = comparison.of_model_dir(args.model_dir, args.runs, scratch)
        files = comparison.minutes(args.data, args.files, scratch / "audio")
        measured = measure(compared, files, args.rounds, args.scaling or (), scratch)
    measured["weights"] = "random" if args.model_dir is None else str(args.model_dir)
    put_out(args, report, measured)
    return 0


if __name__ == "__main__":
    run_command(main)
