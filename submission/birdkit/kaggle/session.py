"""One session of the submission, from its options to the written table, however it ends."""

from __future__ import annotations

import math
import os
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from birdkit.engines import ladder
from birdkit.engines.layout import MOST_THREADS, Layout, usable_cores
from birdkit.errors import UserError
from birdkit.grid import WINDOW_S, WINDOWS_A_MINUTE
from birdkit.kaggle import manifest, mounts, table
from birdkit.kaggle.report import Submission, report_of
from birdkit.log import LOG, timed
from birdkit.scoring import budget, calibration, ensemble
from birdkit.scoring.budget import Budget
from birdkit.scoring.calibration import Calibration
from birdkit.scoring.engine_failover import Failover
from birdkit.scoring.ensemble import Spec
from birdkit.scoring.passes import Pass, run_passes
from birdkit.signals import Stopped, Termination

REPORT_EVERY_S = 5.0
COMMIT_RUN_FILES = 16
CLOCK_STEP_S = 60.0  # a clock that is set right during a session jumps by less


@dataclass(frozen=True)
class Options:
    """The options of `run.py`, by their names."""

    data: Path | None
    soundscapes: Path | None
    model: Path
    out: Path
    budget_min: float
    started: float | None  # Unix time in s
    max_passes: int  # 0: as many as the model has
    dry_run_files: int  # 0: all
    engine: str
    precision: str
    threads: int  # 0: the cores usable here
    layout: str
    strict: bool | None  # None: only where there are no test soundscapes

    def __post_init__(self) -> None:
        if not 0 < self.budget_min < math.inf:
            raise UserError(f"--budget-min {self.budget_min:g} must be above 0, and finite")
        if not (self.started is None or 0 <= self.started <= time.time() + CLOCK_STEP_S):
            raise UserError(f"--started {self.started:g} must be a Unix time that is not in the future")
        for name in ("max_passes", "dry_run_files", "threads"):
            if getattr(self, name) < 0:
                option = name.replace("_", "-")
                raise UserError(f"--{option} {getattr(self, name)} must be 0 (its default) or above")
        if self.threads > MOST_THREADS:
            raise UserError(f"--threads {self.threads}: at most {MOST_THREADS} on this machine")
        if self.precision not in ("auto", "f32"):
            raise UserError(f"--precision {self.precision}: choose auto (what passed its gate) or f32")
        ladder.refuse_unknown(self.engine)
        if self.layout != "auto":
            Layout.parse(self.layout)


def check_out(out: Path) -> None:
    """Make the folder of a table. Raises `UserError` where no table can be written there."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(out.parent, os.W_OK):
            raise PermissionError(None, "the folder can't be written")
        for path in (report_of(out), out):
            if path.exists() and not stat.S_ISREG(path.stat().st_mode):
                raise FileExistsError(None, f"{path.name} there is no file")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"--out {out}: {why}; give the path of a file, such as submission.csv"
        ) from error


@dataclass(frozen=True)
class Work:
    """The files, rows and columns to score, and whether the run is strict."""

    files: list[Path]
    sample_rows: list[str]
    columns: list[str]
    strict: bool
    notes: list[str] = field(default_factory=list)


def find_work(options: Options) -> Work:
    """The files, rows and columns; strict unless these are real test recordings.

    Raises
    ------
    UserError
        Where the folder is missing, what is asked for is unknown, or there is no sound file to score.
    """
    data = options.data or mounts.find_competition()
    if not data.is_dir():
        raise UserError(
            f"{data}: no such folder; --data names a competition folder, or one of recordings"
        )
    sample_rows, columns = table.asked_for(data)
    folder = options.soundscapes or data / mounts.TEST_SOUNDSCAPES
    there = options.soundscapes is not None or folder.is_dir()
    files, twins = mounts.one_a_stem(mounts.soundscapes(folder) if there else [])
    commit_run = not files and options.soundscapes is None
    if commit_run:
        folder = mounts.train_soundscapes(data)
        if not folder.is_dir():
            nothing = f"neither {mounts.TEST_SOUNDSCAPES}/ nor {folder.name}/ holds anything to score"
            raise UserError(f"{data}: {nothing}; name a folder of recordings with --soundscapes DIR")
        files, twins = mounts.one_a_stem(mounts.soundscapes(folder))
        files = files[:COMMIT_RUN_FILES]
        LOG.info(f"no test soundscapes: a commit run on {len(files)} train soundscapes, strict")
    if options.dry_run_files > 0:
        files = files[: options.dry_run_files]
    if not files:
        raise UserError(f"{options.soundscapes or data}: no sound files to score")
    strict = commit_run if options.strict is None else options.strict
    if twins and strict:
        raise UserError(f"{folder}: {'; '.join(twins[:3])}; remove one of two files of a stem")
    return Work(files, sample_rows, columns, strict, [f"not scored: {line}" for line in twins])


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
        LOG.info(
            f"  pass '{name}': {done}/{total} files, {elapsed_s / done:.2f} s each, "
            f"{left_s / 60:.1f} min left, {spare_min:.1f} min to spare then",
        )


class Run:
    """One submission, from the models to the table."""

    def __init__(self, options: Options, work: Work, time_budget: Budget) -> None:
        ladder.check_files(options.model, Spec.load(options.model).stems)
        check_out(options.out)
        self.options, self.work, self.budget = options, work, time_budget
        self.out = Submission(work.files, work.sample_rows, work.columns, WINDOW_S, options.out)
        self.out.report.notes += work.notes
        self.failover: Failover | None = None
        for remark in self.out.plan.remarks:
            LOG.info(f"note: {remark}")

    def score(self, deadline: float) -> None:
        """Run all passes that fit; `self.out` is consistent at any moment."""
        fastest = calibration.what_fits(self._open, self._layouts(), self.out.plan.files, deadline)
        self._opened(fastest)
        assert self.failover is not None
        passes = [Pass(), *(Pass(shift) for shift in self.failover.spec.shifts)]
        run_passes(
            self.out.plan.files,
            self.failover,
            passes[: self.options.max_passes or None],
            self.out.progress,
            streams=fastest.layout.streams,
            deadline=deadline,
            report=Lines(deadline),
            on_joined=self.write,
        )

    def write_first(self) -> float:
        """Write a valid table, so that there is one from now on; return when the scoring has to end."""
        start = time.monotonic()
        self.write()
        return self.budget.deadline(time.monotonic() - start)

    def _layouts(self) -> list[Layout]:
        if self.options.layout != "auto":
            return [Layout.parse(self.options.layout)]
        return calibration.candidates(self.options.threads or usable_cores())

    def _open(
        self, layout: Layout, members: Sequence[str] | None = None, avoid: Sequence[str] = ()
    ) -> ensemble.Loaded:
        options = self.options
        lower = None if options.precision == "auto" else ()
        return ensemble.load(options.model, layout, options.engine, lower, members, avoid)

    def _opened(self, fastest: Calibration) -> None:
        """Take over what calibration opened. Raises `UserError` in a strict run of other classes."""
        loaded, report = fastest.loaded, self.out.report
        spec, contract = loaded.ensemble.spec, loaded.ensemble.contract
        differences = table.class_differences(contract.classes, self.work.columns)
        if differences and self.work.strict:
            raise UserError(table.refusal(differences))
        members = tuple(spec.members)
        self.failover = Failover(loaded, lambda avoid: self._open(fastest.layout, members, avoid))
        self.out.opened(contract, spec)
        report.engines, report.layout = list(loaded.engines), str(fastest.layout)
        report.origins = list(loaded.origins)
        report.notes += [*loaded.fallbacks, *differences]
        there = set(Spec.load(self.options.model).members)
        dropped = sorted(there - set(members) - set(loaded.absent))
        if dropped:
            names = ", ".join(dropped)
            report.notes.append(f"left out, since the budget is too short for all: {names}")
        engines = ", ".join(loaded.engines)
        LOG.info(f"{len(self.work.files)} files, {len(members)} models on {engines}; {fastest}")

    def write(self) -> None:
        """Write the table so far. A strict run writes none without scores, which would hide a fault."""
        if self.work.strict and not self.out.has_scores:
            return
        if self.failover:
            lost = [note for note in self.failover.notes if note not in self.out.report.notes]
            self.out.report.notes += lost
        with timed(f"{self.options.out.name} written"):
            self.out.write(self.budget.elapsed_s())

    @property
    def seconds_per_file(self) -> float:
        """Seconds for a file of a minute: the mean of completed passes, or of an incomplete first."""
        progress, scored = self.out.progress, self.out.report.scored
        if not progress.windows:
            return progress.first.elapsed_s / scored
        assert self.failover is not None, "a pass was completed"
        return progress.elapsed_s / progress.windows * self.failover.windows_heard(WINDOWS_A_MINUTE)


def verdict(seconds_per_file: float, limit_min: float) -> tuple[str, bool]:
    """Whether as many files as Kaggle has would fit in the budget at this speed."""
    needed_min = seconds_per_file * mounts.LIMIT_FILES / 60
    fits = budget.fits(needed_min, limit_min)
    word = "fits" if fits else "DOES NOT FIT"
    text = f"{mounts.LIMIT_FILES} files would take {needed_min:.1f} of {limit_min:g} min a pass: {word}"
    return text, fits


def faults(run: Run) -> list[str]:
    """A line for each fault that fails a commit run."""
    report, plan = run.out.report, run.out.plan
    lines = list(report.notes)
    if report.failures:
        named = "; ".join(f"{name}: {why}" for name, why in report.failures.items())
        lines.append(f"{len(report.failures)} bad files hold medians ({named})")
    if report.not_reached:
        names = ", ".join(report.not_reached[:3])
        lines.append(f"{len(report.not_reached)} files not reached in time hold medians ({names} …)")
    if plan.absent:
        names = ", ".join(plan.absent[:5])
        lines.append(f"{len(plan.absent)} recordings of the sample submission are absent ({names})")
    return lines


def bundle_faults(kit: Path, strict: bool) -> list[str]:
    """Differences from the kit's manifest, a line each. In a strict run they raise `UserError`."""
    lines = [f"the kit is not as it was bundled: {line}" for line in manifest.problems(kit) or []]
    if lines and strict:
        raise UserError(f"{kit}: {'; '.join(lines[:3])}; bundle and upload it again")
    return lines


def carry_out(run: Run, kit: Path, termination: Termination) -> None:
    """Score, and write the table so far, however the scoring ends.

    A fault is a note where a table with scores is there in spite of it, but raises in a strict run.
    """
    raised: list[Exception] = []

    def note(error: Exception) -> None:
        raised.append(error)
        run.out.report.notes.append(f"stopped by a fault: {type(error).__name__}: {error}")

    def finish() -> None:
        termination.hold()
        run.write()

    try:
        try:
            deadline = run.write_first()
            termination.release()
            run.out.report.notes += bundle_faults(kit, run.work.strict)
            run.score(deadline)
        except Exception as error:  # whatever it is, the scores so far are worth more
            note(error)
        finally:
            finish()
    except Stopped:
        finish()  # the signal may have come between the scoring and the writing
    except OSError as error:
        note(error)  # of the writing
    if raised and (run.work.strict or not run.out.holds_scores):
        raise raised[0]
