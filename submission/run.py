"""Score soundscapes offline and write the submission.

    python submission/run.py [--data DIR] [--model DIR] [--out submission.csv] [--budget-min 90]

Works in passes over all files: the plain one first, then with time-shifted windows while the budget
lasts. Without test soundscapes (Kaggle's commit run) it scores train soundscapes instead, and any
fallback is an error (`--strict`). With them it is lenient but honest: a bad file costs its own rows
only, is counted and named; whatever stops it, the table is complete, and a report beside it says what
it is. Exit status 3: not even the first pass was completed.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

STARTED = time.monotonic()
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

from birdkit.signals import Termination

TERMINATION = Termination()
if __name__ == "__main__":
    TERMINATION.install()  # before the other imports, which take seconds

import argparse
from collections.abc import Sequence

from birdkit.commands import command_parser
from birdkit.errors import UserError, run_command
from birdkit.files import locked
from birdkit.kaggle import mounts, session
from birdkit.log import LOG
from birdkit.scoring import budget

EXIT_INCOMPLETE = 3


def parse(argv: Sequence[str] | None) -> session.Options:
    parser = command_parser(__doc__)
    parser.add_argument(
        "--data",
        type=Path,
        help="competition folder, or folders of recordings (default: Kaggle's mount)",
    )
    parser.add_argument(
        "--soundscapes", type=Path, help="score this folder (default: test_soundscapes/)"
    )
    parser.add_argument("--model", type=Path, default=HERE / "model", help="what export/ wrote")
    parser.add_argument("--out", type=Path, default=Path("submission.csv"), help="the table")
    parser.add_argument(
        "--budget-min", type=float, default=mounts.LIMIT_MIN, help="limit; it stops at 94 %% of it"
    )
    parser.add_argument("--started", type=float, help="Unix time the budget counts from (default: now)")
    parser.add_argument("--max-passes", type=int, default=0, help="default: as many as the model has")
    parser.add_argument(
        "--dry-run-files", type=int, default=0, help="score only the first N files; 0: all"
    )
    parser.add_argument("--engine", default="auto", help="auto, openvino or onnxruntime")
    parser.add_argument("--precision", default="auto", help="f32: use no lower one than that")
    parser.add_argument("--threads", type=int, default=0, help="default: the cores usable here")
    parser.add_argument(
        "--layout", default="auto", help="STREAMSxTHREADSxBATCH; auto measures what is fastest here"
    )
    parser.add_argument(
        "--strict",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="make any fallback an error, or none (default: in a commit run only)",
    )
    return session.Options(**vars(parser.parse_args(argv)))


def main(argv: Sequence[str] | None = None) -> int:
    with TERMINATION:
        options = parse(argv)
        started = STARTED if options.started is None else budget.monotonic(options.started)
        work = session.find_work(options)
        run = session.Run(options, work, budget.Budget.of_minutes(options.budget_min, started))
        with locked(options.out):
            session.carry_out(run, HERE, TERMINATION)
        return conclude(run)


def conclude(run: session.Run) -> int:
    """Say how a run ended. Raises `UserError` where every file is bad, or a strict run fell back."""
    options, work = run.options, run.work
    report = run.out.report
    faults = session.faults(run)
    for fault in faults:
        LOG.warning(f"warning: {fault}")
    if run.out.kept:
        kept = f"the table of an earlier run is kept, which completed {len(run.out.kept)} passes"
        LOG.warning(f"warning: {options.out}: {kept}; this run completed none")
    if report.scored == 0:
        nothing = f"not one of {report.files} files was scored; stopped: {report.why_stopped}"
        if work.strict or not report.not_reached:
            raise UserError(f"{work.files[0].parent}: {nothing}")
        LOG.warning(f"warning: {nothing}")
        return EXIT_INCOMPLETE
    verdict, fits = session.verdict(run.seconds_per_file, options.budget_min)
    LOG.info(
        f"{options.out}: {len(run.out.plan.row_ids)} rows from {report.scored}/{report.files} files, "
        f"{len(report.passes)} passes ({', '.join(report.passes) or 'the first one cut short'}), "
        f"{run.seconds_per_file:.2f} s a file and pass on {', '.join(report.engines)}; {verdict}; "
        f"stopped: {report.why_stopped}"
    )
    if work.strict and not fits:
        faults.append(verdict)
    if faults and work.strict:
        raise UserError(f"strict run: {len(faults)} fallbacks, see the warnings above")
    return 0 if run.out.written else EXIT_INCOMPLETE


if __name__ == "__main__":
    run_command(main)
