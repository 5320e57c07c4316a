"""Score soundscapes offline and write the submission.

    python submission/run.py [--data DIR] [--model DIR] [--out submission.csv] [--budget-min 90]

Works in passes over all files: the plain one first, then with a moved grid while the budget lasts.
Without test soundscapes (Kaggle's commit run) it scores train soundscapes instead, and any fallback
is an error (`--strict`). With them it is lenient but honest: a bad file costs its own rows only, is
counted and named; whatever stops it, the table is complete, and a report beside it says what it is.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

from birdkit.engines.engine import Layout, usable_cores
from birdkit.errors import UserError, run_command
from birdkit.kaggle import manifest, mounts, table
from birdkit.kaggle.report import Submission
from birdkit.scoring import calibration, ensemble
from birdkit.scoring.calibration import Calibration
from birdkit.scoring.ensemble import Spec
from birdkit.scoring.failover import Standby
from birdkit.scoring.passes import Pass, Stopped, run_passes

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
    parser.add_argument("--budget-min", type=float, default=mounts.LIMIT_MIN)
    parser.add_argument("--started", type=float, help="Unix time the budget counts from")
    parser.add_argument("--max-passes", type=int, default=0, help="default: as many as the model has")
    parser.add_argument("--dry-run-files", type=int, default=0, help="score only the first N files")
    parser.add_argument("--engine", default="auto", help="auto, openvino or onnxruntime")
    parser.add_argument("--precision", default="auto", help="f32: use no lower one than that")
    parser.add_argument("--threads", type=int, default=0, help="default: the cores usable here")
    parser.add_argument(
        "--layout", default="auto", help="STREAMSxTHREADSxBATCH; auto measures what is fastest here"
    )
    parser.add_argument("--strict", action=argparse.BooleanOptionalAction, default=None)
    args = parser.parse_args(argv)
    if args.budget_min <= 0:
        raise UserError(f"--budget-min {args.budget_min:g} must be above 0")
    if args.precision not in ("auto", "f32"):
        raise UserError(f"--precision {args.precision}: choose auto (what passed its gate) or f32")
    return args


def find_work(args: argparse.Namespace) -> Work:
    """The files, rows and columns; strict unless these are real test recordings."""
    data = args.data or mounts.find_competition()
    if not data.is_dir():
        raise UserError(f"{data}: no such folder; --data must be a competition folder")
    sample_rows, columns = table.read_sample(data / "sample_submission.csv")
    files = mounts.soundscapes(args.soundscapes or data / "test_soundscapes")
    commit_run = not files and args.soundscapes is None
    if commit_run:
        files = mounts.soundscapes(data / "train_soundscapes")[:COMMIT_RUN_FILES]
        print(f"no test soundscapes: a commit run on {len(files)} train soundscapes, strict")
    if args.dry_run_files > 0:
        files = files[: args.dry_run_files]
    if not files:
        raise UserError(f"{args.soundscapes or data}: no sound files to score")
    strict = commit_run if args.strict is None else args.strict
    return Work(files, sample_rows, columns, strict)


class Lines:
    """A line every few seconds with done, speed, time left and projected end."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._last = 0.0

    def __call__(self, name: str, done: int, total: int, elapsed_s: float) -> None:
        now = time.monotonic()
        if done < total and now - self._last < REPORT_EVERY_S:
            return
        self._last = now
        left_s = elapsed_s / done * (total - done)
        spare_min = (self._deadline - now - left_s) / 60
        print(
            f"  pass '{name}': {done}/{total} files, {elapsed_s / done:.2f} s each, "
            f"{left_s / 60:.1f} min left, {spare_min:.1f} min to spare then",
            flush=True,
        )


class Run:
    """One submission, from the models to the table."""

    def __init__(self, args: argparse.Namespace, work: Work, started: float) -> None:
        self.args, self.work, self.started = args, work, started
        self.stop_at = started + BUDGET_SHARE * 60 * args.budget_min
        self.out = Submission(work.files, work.sample_rows, work.columns, mounts.WINDOW_S, args.out)
        self.standby: Standby | None = None

    def score(self) -> None:
        """All passes that fit; `self.out` is true at any moment of it."""
        args, out = self.args, self.out
        writing_s = self._write_first()
        n_windows = sum(file.n_windows for file in out.plan.files)
        deadline = self.stop_at - writing_s
        fastest = calibration.what_fits(self._open, self._layouts(), n_windows, deadline)
        self._opened(fastest)
        assert self.standby is not None
        passes = [Pass(), *(Pass(shift) for shift in self.standby.spec.shifts)]
        run_passes(
            out.plan.files,
            self.standby,
            passes[: args.max_passes or None],
            out.progress,
            streams=fastest.layout.streams,
            deadline=deadline,
            report=Lines(deadline),
            on_joined=self.write,
        )

    def _write_first(self) -> float:
        """A valid table from the first second on; returns how long writing one may take, in s."""
        start = time.monotonic()
        self.write()
        return 2.0 + 3 * (time.monotonic() - start)

    def _layouts(self) -> list[Layout]:
        if self.args.layout != "auto":
            return [Layout.parse(self.args.layout)]
        return calibration.candidates(self.args.threads or usable_cores())

    def _open(
        self, layout: Layout, members: Sequence[str] | None = None, avoid: Sequence[str] = ()
    ) -> ensemble.Loaded:
        lower = None if self.args.precision == "auto" else ()
        return ensemble.load(self.args.model, layout, self.args.engine, lower, members, avoid)

    def _opened(self, fastest: Calibration) -> None:
        loaded, out = fastest.loaded, self.out
        spec, contract = loaded.ensemble.spec, loaded.ensemble.contract
        differences = table.class_differences(contract.classes, self.work.columns)
        if differences and self.work.strict:
            raise UserError(table.refusal(differences))
        dropped = sorted(set(Spec.load(self.args.model).members) - set(spec.members))
        notes = [*loaded.fallbacks, *differences]
        if dropped:
            notes.append(f"left out, since the budget is too short for all: {', '.join(dropped)}")
        members = tuple(spec.members)
        self.standby = Standby(loaded, lambda avoid: self._open(fastest.layout, members, avoid))
        out.opened(contract, spec)
        out.report.engines, out.report.layout = list(loaded.engines), str(fastest.layout)
        out.report.origins = list(loaded.origins)
        out.report.notes += notes
        print(
            f"{len(self.work.files)} files, {len(members)} models on {', '.join(loaded.engines)}; "
            f"{fastest}",
            flush=True,
        )

    def write(self) -> None:
        """Put what there is in its place; in a strict run, where no scores would hide a fault, only
        once there are some."""
        if self.work.strict and not self.out.has_scores:
            return
        if self.standby:
            lost = [note for note in self.standby.notes if note not in self.out.report.notes]
            self.out.report.notes += lost
        self.out.write(time.monotonic() - self.started)


def verdict(seconds_per_file: float, budget_min: float) -> tuple[str, bool]:
    """Whether 700 files would fit in the budget at this speed."""
    needed_min = seconds_per_file * mounts.LIMIT_FILES / 60
    fits = needed_min <= BUDGET_SHARE * budget_min
    word = "fits" if fits else "DOES NOT FIT"
    text = (
        f"{mounts.LIMIT_FILES} files would take {needed_min:.1f} of {budget_min:g} min a pass: {word}"
    )
    return text, fits


def faults(run: Run) -> list[str]:
    """Everything that a commit run must not let pass, each counted and named."""
    report, plan = run.out.report, run.out.plan
    found = list(report.notes)
    if report.failures:
        named = "; ".join(f"{name}: {why}" for name, why in report.failures.items())
        found.append(f"{len(report.failures)} bad files hold medians ({named})")
    if report.not_reached:
        names = ", ".join(report.not_reached[:3])
        found.append(f"{len(report.not_reached)} files not reached in time hold medians ({names} …)")
    if plan.absent:
        names = ", ".join(plan.absent[:5])
        found.append(f"{len(plan.absent)} recordings of the sample submission are absent ({names})")
    return found


def bundle_faults(strict: bool) -> list[str]:
    """What differs from the manifest that the kit was uploaded with; a strict run refuses it."""
    found = [f"the kit is not as it was bundled: {each}" for each in manifest.problems(HERE) or []]
    if found and strict:
        raise UserError(f"{HERE}: {'; '.join(found[:3])}; bundle and upload it again")
    return found


class Termination:
    """SIGTERM as an exception, once; after that, and while the table is written, it is only noted."""

    def __init__(self) -> None:
        self.ready = True
        with contextlib.suppress(ValueError):  # not the main thread: nobody signals it
            signal.signal(signal.SIGTERM, self._told)

    def _told(self, number: int, frame: Any) -> None:
        if self.ready:
            self.ready = False
            raise Stopped


def carry_out(run: Run) -> None:
    """Score, and write what there is, however the scoring ends."""
    termination = Termination()

    def finish() -> None:
        termination.ready = False
        run.write()

    try:
        try:
            run.score()
        finally:
            finish()
    except Stopped:
        finish()  # it may have come between the scoring and the writing


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    started = STARTED if args.started is None else time.monotonic() - (time.time() - args.started)
    work = find_work(args)
    run = Run(args, work, started)
    run.out.report.notes += bundle_faults(work.strict)
    carry_out(run)
    report, progress = run.out.report, run.out.progress
    notes = faults(run)
    for note in notes:
        print(f"warning: {note}", file=sys.stderr)
    if report.scored == 0:
        raise UserError(f"{work.files[0].parent}: not one of {len(work.files)} files was scored")
    # Where even the first pass was cut short, its time so far tells the speed.
    done_s = progress.first.elapsed_s / report.scored
    speed = progress.seconds_a_window * table.DEFAULT_N_WINDOWS or done_s
    text, fits = verdict(speed, args.budget_min)
    print(
        f"{args.out}: {len(run.out.plan.row_ids)} rows from {report.scored}/{report.files} files, "
        f"{len(report.passes)} passes ({', '.join(report.passes) or 'the first one cut short'}), "
        f"{speed:.2f} s a file on {', '.join(report.engines)}; {text}; stopped: {report.why_stopped}"
    )
    if work.strict and not fits:
        notes.append(text)
    if notes and work.strict:
        raise UserError(f"strict run: {len(notes)} fallbacks, see the warnings above")
    return EXIT_INCOMPLETE if progress.result is None else 0


if __name__ == "__main__":
    run_command(main)
