"""Writes `submission.csv`, and a report beside it that says how the table was made.

Both are replaced together, so that the report always describes the table beside it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd

from birdkit.contract import Contract
from birdkit.files import replacing, sha256
from birdkit.kaggle import table
from birdkit.scoring.ensemble import Spec, combine
from birdkit.scoring.passes import Progress
from birdkit.scoring.predict import Prediction

REPORT_SUFFIX = ".report.json"


@dataclass
class Report:
    """How a table was made: its scores are the mean of exactly these passes of these members.

    Its fields are the keys of the JSON file, so renaming one breaks the readers of that file.
    """

    passes: list[str] = field(default_factory=list)
    members: list[str] = field(default_factory=list)
    engines: list[str] = field(default_factory=list)
    origins: list[str] = field(default_factory=list)  # where the engines' packages lie
    layout: str = ""
    files: int = 0
    scored: int = 0
    failures: dict[str, str] = field(default_factory=dict)  # file → why
    not_reached: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # fallbacks and differences, a line each
    remarks: list[str] = field(default_factory=list)  # on rows, a line each; none is a fault
    why_stopped: str = ""
    elapsed_s: float = 0.0
    csv_sha256: str = ""


class Submission:
    """The rows of a run, and the writing of its progress as a table and a report."""

    def __init__(
        self,
        files: Sequence[Path],
        sample_rows: Sequence[str],
        columns: Sequence[str],
        window_s: float,
        out: Path,
    ) -> None:
        self.files, self.sample_rows, self.window_s = files, sample_rows, window_s
        self.plan = table.plan_rows(files, sample_rows, window_s)
        self.columns, self.out = list(columns), out
        self.progress = Progress(first=Prediction([None] * len(files)))
        self.report = Report(files=len(files))
        self.classes: Sequence[str] = self.columns
        self.spec: Spec | None = None  # until the models are open
        self.kept = completed_passes(out)  # those of an earlier run's table, until this run has one
        self.written: list[str] = []  # the completed passes of the table that this run has written
        self.holds_scores = False  # that table, if there is one
        self._table = pd.DataFrame()  # what it holds

    def opened(self, contract: Contract, spec: Spec) -> None:
        """Take over the grid, classes and weights of the models once they are open."""
        if contract.window_s != self.window_s:
            self.plan = table.plan_rows(self.files, self.sample_rows, contract.window_s)
        self.classes, self.spec = contract.classes, spec

    @property
    def has_scores(self) -> bool:
        """Whether at least one file has been scored."""
        return any(of_file is not None for of_file in self.progress.scores())

    def write(self, elapsed_s: float) -> None:
        """Replace table and report. Raises `OSError` where the disk is full; the old ones then stay.

        A table of completed passes is never replaced by one of none.
        """
        submission = self.table()
        self._sum_up(elapsed_s)
        if self.kept and not self.report.passes:
            return
        with ExitStack() as files:
            report = files.enter_context(replacing(report_of(self.out)))
            # Numbers as text take the time. After the last pass of many files they often stand there.
            if not (self.out.is_file() and submission.equals(self._table)):
                content = table.to_csv(submission)
                self.report.csv_sha256 = hashlib.sha256(content).hexdigest()
                files.enter_context(replacing(self.out)).write(content)
            report.write(f"{json.dumps(asdict(self.report), indent=2)}\n".encode())
            report.flush()  # a full disk shows before either is replaced
        self.kept, self.written, self.holds_scores = [], self.report.passes, self.report.scored > 0
        self._table = submission

    def table(self) -> pd.DataFrame:
        """The checked table of what has been scored so far; medians where nothing was."""
        scores = self.progress.scores()
        tables = combine(scores, self.spec) if self.spec else scores
        submission = table.build(self.plan, tables, self.classes, self.columns)
        table.check(submission, self.plan.row_ids, self.columns)
        return submission

    def _sum_up(self, elapsed_s: float) -> None:
        """Bring the report up to date with the progress."""
        progress, report = self.progress, self.report
        scores = progress.scores()
        report.passes = progress.passes
        report.members = list(self.spec.members) if self.spec else []
        report.scored = sum(of_file is not None for of_file in scores)
        report.failures = dict(progress.first.failures)
        # A complete pass reaches all files, and a later pass that was cut short did not join.
        report.not_reached = [] if progress.result else self._unscored(scores)
        report.why_stopped = progress.why_stopped
        report.remarks = self.plan.remarks
        report.elapsed_s = round(elapsed_s, 1)

    def _unscored(self, scores: Sequence[object]) -> list[str]:
        """The names of files that neither have scores nor failed."""
        failed = self.progress.first.failures
        names = [file.name for file in self.plan.files]
        pairs = zip(names, scores, strict=True)
        return [name for name, scored in pairs if scored is None and name not in failed]


def report_of(out: Path) -> Path:
    """The path of the report beside a table."""
    return out.with_name(out.name + REPORT_SUFFIX)


def completed_passes(out: Path) -> list[str]:
    """The passes that the report beside a table names; none where it is absent or of another table."""
    try:
        report = json.loads(report_of(out).read_text())
        return list(report["passes"]) if report["csv_sha256"] == sha256(out) else []
    except (OSError, ValueError, KeyError, TypeError):
        return []
