"""Judges the output of a simulated session: the table, its report, and the engine's package."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from birdkit.errors import UserError
from birdkit.grid import WINDOW_S, WINDOWS_A_MINUTE, row_ids, split_row_id
from birdkit.kaggle import table
from birdkit.kaggle.report import REPORT_SUFFIX
from birdkit.kaggle.table import ROW_ID
from export.kaggle import wheels
from export.kaggle.sim.bad_files import BAD_FILES
from export.kaggle.sim.folders import Hidden

# Engines agree to 1e-6 in f32; another layout or batch rounds otherwise.
TOLERANCE = 1e-4
OF_TFLITE = (
    "litert"  # runs members from outside that no other engine does, beside whatever else answers
)
LAST_LINES = 25
COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # IPython's and pip's
HEADER = (
    *("Python", "layout", "session", "before it", "exit", "rows", "scored / bad", "passes"),
    *("engine", "package", "wheel", "s", "verdict"),
)


@dataclass(frozen=True)
class Left:
    """The table and the report that a session wrote, and left behind."""

    table: pd.DataFrame
    report: dict[str, Any]
    sha256: str

    @classmethod
    def read(cls, submission: Path) -> Left:
        """Raises `UserError` where either is absent or can't be read."""
        report = submission.with_name(submission.name + REPORT_SUFFIX)
        try:
            rows = pd.read_csv(submission, dtype={ROW_ID: str})
            written = json.loads(report.read_text())
        except (OSError, ValueError) as error:
            raise UserError(f"{submission.name} or its report can't be read ({error})") from error
        return cls(rows, written, hashlib.sha256(submission.read_bytes()).hexdigest())

    @property
    def stems(self) -> set[str]:
        return {split_row_id(row)[0] for row in self.table[ROW_ID]}


@dataclass
class Line:
    """One session in the verdict, and everything that is wrong with it."""

    python: str
    layout: str
    session: str
    before: str = ""
    status: int = 0
    rows: int = 0
    files: str = ""
    passes: str = ""
    engine: str = ""
    package: str = ""
    wheel: str = ""
    seconds: float = 0.0
    log: Path | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        return f"FAILS: {'; '.join(self.problems)}" if self.problems else "passes"

    def ended(self, status: int, seconds: float, log: Path, seen: Mapping[str, Any]) -> None:
        """`seen`: what the runner saw before the notebook began; empty where it did not start."""
        self.status, self.seconds, self.log = status, seconds, log
        self.python = seen.get("python", self.python)
        self.before, faults = surroundings(seen)
        self.problems += faults
        if status != 0:
            self.problems.append(f"exit status {status}, see {log}")

    def left(self, left: Left, wheels_folder: Path, scratch: Path) -> None:
        report = left.report
        self.rows = len(left.table)
        self.files = f"{report['scored']} / {len(report['failures'])}"
        self.passes, self.engine = ", ".join(report["passes"]), ", ".join(report["engines"])
        packages = [Path(origin) for origin in report.get("origins", [])]
        sources = [wheel_of(package, wheels_folder, scratch) for package in packages]
        self.package = ", ".join("/".join(package.parts[-3:]) for package in packages)
        self.wheel = ", ".join(wheel.name for wheel in sources if wheel)
        if not packages or None in sources:
            self.problems.append("the engine's package is of no wheel of the dataset")

    def judge(self, left: Left | None, hidden: Hidden, columns: Sequence[str], engine: str) -> None:
        if left:
            self.problems += table_faults(left, hidden.stems, columns)
            self.problems += report_faults(left, hidden, engine)

    def last_words(self) -> str:
        text = self.log.read_text(errors="replace") if self.log else ""
        return "\n".join(COLOUR.sub("", text).rstrip().splitlines()[-LAST_LINES:])

    def cells(self) -> list[str]:
        known = (
            self.python,
            self.layout,
            self.session,
            self.before,
            self.status,
            self.rows,
            self.files,
        )
        ran_on = (self.passes, self.engine, self.package, self.wheel, f"{self.seconds:.0f}")
        return [str(cell) or "–" for cell in (*known, *ran_on, self.verdict)]


def markdown(lines: Sequence[Line], header: Sequence[str] = HEADER) -> str:
    rows = [header, ["---"] * len(header), *(line.cells() for line in lines)]
    plain = [[" ".join(cell.replace("|", "/").split()) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in plain)


def surroundings(seen: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The state before the notebook began in words, and the faults in it."""
    if not seen:
        return "", ["the notebook's runner did not start"]
    faults = [f"{name} is importable already" for name in seen["engines"]]
    faults += [f"{address} answers, so the network is not cut" for address in seen["answers"]]
    faults += [f"{folder} is not read-only" for folder in seen["writable"]]
    return "; ".join(faults) or "no engine, no network, inputs read-only", faults


def table_faults(left: Left, stems: Collection[str], columns: Sequence[str]) -> list[str]:
    """A complete table: twelve rows a file in any order, finite, columns as asked for, some scored."""
    rows, faults = left.table, []
    wrong = {row for stem in stems for row in row_ids(stem, WINDOWS_A_MINUTE, WINDOW_S)} ^ set(
        rows[ROW_ID]
    )
    if wrong:
        faults.append(f"{len(wrong)} rows are missing or too many, such as {min(wrong)}")
    try:
        table.check(rows, rows[ROW_ID].tolist(), columns)
    except UserError as error:
        faults.append(str(error))
    if len(rows.drop(columns=ROW_ID).drop_duplicates()) <= 1:
        faults.append("all rows are alike: nothing was scored")
    if left.report["csv_sha256"] != left.sha256:
        faults.append("the report is of another table")
    return faults


def report_faults(left: Left, hidden: Hidden, engine: str) -> list[str]:
    """Whether the report names the bad files and no healthy one, and the engine that was expected."""
    report, bad_files = left.report, hidden.bad_files
    failures = report["failures"]
    faults = [
        f"{name} ({kind}) is not named as bad"
        for name, kind in bad_files.items()
        if BAD_FILES[kind].unreadable and name not in failures
    ]
    for name, why in failures.items():
        kind = bad_files.get(name, "healthy")
        if kind == "healthy" or BAD_FILES[kind].unreadable is False:
            faults.append(f"{name} ({kind}) was not scored: {why}")
    if report["scored"] + len(failures) != len(hidden.stems):
        faults.append(f"{report['scored']} of {len(hidden.stems)} files scored, {len(failures)} bad")
    answered = [name for name in report["engines"] if not name.startswith(OF_TFLITE)]
    if not answered or not all(name.startswith(engine) for name in answered):
        faults.append(f"{', '.join(answered) or 'nothing'} answered, not {engine}")
    return faults


def wheel_of(package: Path, folder: Path, scratch: Path) -> Path | None:
    """The vendored wheel that an imported package was installed from, by name, version and tags.

    None where there is none, or the package does not lie in the session's scratch folder.
    """
    installed = package.parents[1]
    if not package.is_relative_to(scratch):
        return None
    for metadata in installed.glob(f"{package.parent.name}-*.dist-info/WHEEL"):
        values = {line.partition(":")[2].strip() for line in metadata.read_text().splitlines()}
        name = metadata.parent.name.removesuffix(".dist-info")
        for wheel in sorted(folder.glob(f"{name}-*.whl")):
            parsed = wheels.parse(wheel)
            if parsed and values & {str(tag) for tag in parsed[3]}:
                return wheel
    return None


def all_f32(left: Left) -> bool:
    return all("f32" in engine for engine in left.report["engines"])


def silence(left: Left | None, engine: str) -> list[str]:
    """A fault where a report does not say that an engine could not be loaded; else none."""
    noted = left is None or any(engine in note for note in left.report["notes"])
    return [] if noted else [f"the report does not say that {engine} is missing"]


def difference(one: Left | None, other: Left | None) -> list[str]:
    """A line where sessions that differ only in their engine gave different tables; else none."""
    if one is None or other is None:
        return ["there are no two tables to compare"]
    if one.report["passes"] != other.report["passes"]:
        return [f"not comparable: passes {one.report['passes']} and {other.report['passes']}"]
    first, second = (left.table.set_index(ROW_ID) for left in (one, other))
    if set(first.index) != set(second.index) or list(first) != list(second):
        return ["rows or columns are not those of the other engine"]
    apart = float(np.abs(first.to_numpy() - second.loc[first.index].to_numpy()).max())
    return [] if apart <= TOLERANCE else [f"differs by {apart:.2g} from the other engine"]
