"""Score soundscapes offline and write the submission.

    python submission/run.py [--data DIR] [--model DIR] [--out submission.csv] [--budget-min 90]

Without test soundscapes (Kaggle's commit run) it scores train soundscapes instead, and any fallback
is an error (`--strict`). With them it is lenient but honest: a bad file costs its own rows only, is
counted and named.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

import pandas as pd

from birdkit import ensemble, kaggle, table
from birdkit.calibrate import Calibration, calibrate, candidates
from birdkit.engine import Layout, usable_cores
from birdkit.errors import UserError, run_command
from birdkit.predict import Prediction, Scores, fill_missing, predict

STARTED = time.monotonic()
# Stop by ourselves at this share of the budget: a timeout on Kaggle leaves no score at all.
BUDGET_SHARE = 0.94
REPORT_EVERY_S = 5.0
COMMIT_RUN_FILES = 16
EXIT_INCOMPLETE = 3


@dataclass(frozen=True)
class Work:
    """What is to be scored, and how strictly."""

    files: list[Path]
    sample_rows: list[str]
    columns: list[str]
    strict: bool


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, help="competition folder (default: Kaggle's mount)")
    parser.add_argument("--soundscapes", type=Path, help="score this folder, not test_soundscapes/")
    parser.add_argument("--model", type=Path, default=HERE / "model", help="what export/ wrote")
    parser.add_argument("--out", type=Path, default=Path("submission.csv"))
    parser.add_argument("--budget-min", type=float, default=kaggle.LIMIT_MIN)
    parser.add_argument("--engine", default="auto", help="auto, openvino or onnxruntime")
    parser.add_argument("--precision", default="auto", help="f32: use no lower one than that")
    parser.add_argument("--threads", type=int, default=0, help="default: the cores usable here")
    parser.add_argument(
        "--layout", default="auto", help="STREAMSxTHREADSxBATCH; auto measures what is fastest here"
    )
    parser.add_argument("--strict", action=argparse.BooleanOptionalAction, default=None)
    return parser.parse_args(argv)


def find_work(args: argparse.Namespace) -> Work:
    """The files, rows and columns; strict unless these are real test recordings."""
    data = args.data or kaggle.find_competition()
    if not data.is_dir():
        raise UserError(f"{data}: no such folder; --data must be a competition folder")
    sample_rows, columns = table.read_sample(data / "sample_submission.csv")
    files = kaggle.soundscapes(args.soundscapes or data / "test_soundscapes")
    commit_run = not files and args.soundscapes is None
    if commit_run:
        files = kaggle.soundscapes(data / "train_soundscapes")[:COMMIT_RUN_FILES]
        print(f"no test soundscapes: a commit run on {len(files)} train soundscapes, strict")
    if not files:
        raise UserError(f"{args.soundscapes or data}: no sound files to score")
    strict = commit_run if args.strict is None else args.strict
    return Work(files, sample_rows, columns, strict)


class Progress:
    """A line every few seconds with done, speed and time left."""

    def __init__(self) -> None:
        self._last = 0.0

    def __call__(self, done: int, total: int, elapsed_s: float) -> None:
        if done < total and elapsed_s - self._last < REPORT_EVERY_S:
            return
        self._last = elapsed_s
        each = elapsed_s / done
        left = each * (total - done)
        print(f"  {done}/{total} files, {each:.2f} s each, {left / 60:.1f} min left", flush=True)


def verdict(seconds_per_file: float, budget_min: float) -> str:
    """Whether 700 files would fit in the budget at this speed."""
    needed_min = seconds_per_file * kaggle.LIMIT_FILES / 60
    word = "fits" if needed_min <= BUDGET_SHARE * budget_min else "DOES NOT FIT"
    return f"{kaggle.LIMIT_FILES} files would take {needed_min:.1f} of {budget_min:g} min: {word}"


def faults(prediction: Prediction, plan: table.Plan) -> list[str]:
    """What did not get its own scores, each counted and named."""
    found = []
    if prediction.failures:
        named = "; ".join(f"{name}: {why}" for name, why in prediction.failures.items())
        found.append(f"{len(prediction.failures)} bad files hold medians ({named})")
    if prediction.not_reached:
        names = ", ".join(prediction.not_reached[:3])
        found.append(f"{len(prediction.not_reached)} files not reached in time ({names} …)")
    if plan.absent:
        names = ", ".join(plan.absent[:5])
        found.append(f"{len(plan.absent)} recordings of the sample submission are absent ({names})")
    return found


def open_fastest(args: argparse.Namespace) -> Calibration:
    """The ensemble in the layout asked for, or in the fastest one."""
    if args.precision not in ("auto", "f32"):
        raise UserError(f"--precision {args.precision}: choose auto (what passed its gate) or f32")
    lower = None if args.precision == "auto" else ()
    cores = args.threads or usable_cores()
    layouts = candidates(cores) if args.layout == "auto" else [Layout.parse(args.layout)]
    return calibrate(lambda layout: ensemble.load(args.model, layout, args.engine, lower), layouts)


def assemble(
    plan: table.Plan, scores: Sequence[Scores], classes: Sequence[str], columns: Sequence[str]
) -> pd.DataFrame:
    """The checked table: files without scores hold medians."""
    n_windows = [file.n_windows for file in plan.files]
    filled = fill_missing(scores, n_windows, len(classes))
    submission = table.build(plan, filled, classes, columns)
    table.check(submission, plan.row_ids, columns)
    return submission


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    if args.budget_min <= 0:
        raise UserError(f"--budget-min {args.budget_min:g} must be above 0")
    deadline = STARTED + BUDGET_SHARE * 60 * args.budget_min
    work = find_work(args)
    fastest = open_fastest(args)
    loaded, contract = fastest.loaded, fastest.loaded.ensemble.contract
    engines = ", ".join(loaded.engines)
    n_models = len(loaded.ensemble.spec.members)
    print(f"{len(work.files)} files, {n_models} models on {engines}; {fastest}", flush=True)
    differences = table.class_differences(contract.classes, work.columns)
    if differences and work.strict:
        raise UserError(table.refusal(differences))
    notes = [*loaded.fallbacks, *differences]

    plan = table.plan_rows(work.files, work.sample_rows, contract.window_s)
    prediction = predict(
        plan.files,
        loaded.ensemble.score,
        contract,
        streams=fastest.layout.streams,
        deadline=deadline,
        report=Progress(),
    )
    notes += faults(prediction, plan)
    for note in notes:
        print(f"warning: {note}", file=sys.stderr)
    scored = sum(rows is not None for rows in prediction.scores)
    if scored == 0:
        raise UserError(f"{work.files[0].parent}: not one of {len(work.files)} files was scored")

    scores = ensemble.combine(prediction.scores, loaded.ensemble.spec)
    submission = assemble(plan, scores, contract.classes, work.columns)
    table.write(submission, args.out)
    each = prediction.elapsed_s / scored
    print(
        f"{args.out}: {len(submission)} rows from {scored}/{len(work.files)} files, {each:.2f} s a "
        f"file on {engines}; {verdict(each, args.budget_min)}"
    )
    if notes and work.strict:
        raise UserError(f"strict run: {len(notes)} fallbacks, see the warnings above")
    return EXIT_INCOMPLETE if prediction.not_reached else 0


if __name__ == "__main__":
    run_command(main)
