"""Upload a bundle with Kaggle's official command line, whose exit status 0 promises little.

It prints what went wrong (an input that does not exist, a folder left out, a refused dataset) and
exits 0 all the same. So its lines are read, and its word of success is demanded. The texts are those
of kaggle 2.2.4 and 2.2.5, `kaggle_api_extended.py`; a test holds them to the package that is installed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from birdkit.errors import UserError
from birdkit.files import sha256
from birdkit.kaggle import manifest
from birdkit.log import LOG
from birdkit.tables import read_json
from export.kaggle.rules import DATASET, DATASET_METADATA, KERNEL

# Failures that it prints though it exits 0 → their remedy.
COMPLAINTS = {
    "The following are not valid dataset sources": "check owner and slug in kaggle_dataset_meta.json",
    "The following are not valid competition sources": "check --competition, and accept its rules",
    "The following are not valid kernel sources": "that notebook has no output; push with --fresh",
    "The following are not valid tags": "correct the keywords in kaggle_dataset_meta.json",
    "Your kernel title does not resolve to the specified id": "build the bundle again",
    "Kernel push error:": "mend what it names and push again",
    "Dataset creation error:": "mend what it names and push again",
    "Dataset version creation error:": "mend what it names and push again",
    "Upload unsuccessful: ": "push again",
    "Skipping folder: ": "it needs --dir-mode zip",
    "Skipping: ": "it is neither file nor folder; build the bundle again",
    "User cancelled operation": "push again",
}
CREATED = "Your private Dataset is being created."
VERSIONED = "Dataset version is being created."
PUSHED = re.compile(r"Kernel version .*successfully pushed\.")
NO_LOGIN = "Authentication required to call the Kaggle API."
# Its answers for a dataset that does not exist; which of them is the server's choice.
ABSENT = re.compile(r"\b40[34]\b|not found|forbidden|denied|don't have access", re.IGNORECASE)
POLL_S = 10
# A notebook's last version, such as "KernelWorkerStatus.COMPLETE", and those that have not ended.
KERNEL_STATUS = re.compile(r'has status "(?:KernelWorkerStatus\.)?(\w+)"')
NOT_ENDED = ("QUEUED", "RUNNING", "NEW_SCRIPT", "CANCEL_REQUESTED")
DOWNLOADED = "Output file downloaded to"
# Some 300 MB took Kaggle minutes; after this, something is stuck.
PATIENCE_S = 30 * 60


@dataclass(frozen=True)
class Said:
    """The output of a command, standard error included, and its exit status."""

    status: int
    output: str

    @property
    def lines(self) -> list[str]:
        return [line.strip() for line in re.split(r"[\r\n]+", self.output) if line.strip()]


Run = Callable[..., Said]


def run(*arguments: str) -> Said:
    """Run the command line of this Python's kaggle package, its lines shown as they come.

    Never with `--quiet`: that silences "Skipping folder", too.
    """
    if importlib.util.find_spec("kaggle") is None:
        raise UserError(
            "kaggle, the official command line, is not installed: pip install -r requirements.txt"
        )
    # -P: a folder named kaggle in the working directory is not the package.
    command = [sys.executable, "-P", "-m", "kaggle", "--no-warn", *arguments]
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "TQDM_MININTERVAL": "10"}
    lines = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            LOG.info(f"  kaggle: {line.rstrip()}")
            lines.append(line)
    return Said(process.returncode, "".join(lines))


def complaints(output: str) -> list[str]:
    """The lines of an output that report a failure, each with its remedy."""
    return [
        f"{line} ({remedy})"
        for line in Said(0, output).lines
        for text, remedy in COMPLAINTS.items()
        if text in line
    ]


def demand(result: Said, what: str, success: str | re.Pattern[str]) -> str:
    """The line that reports success. Raises `UserError` where there is none, or any complaint."""
    if NO_LOGIN in result.output:
        raise UserError(
            f"kaggle {what}: not logged in; run `{sys.executable} -m kaggle auth login` once"
        )
    failures = complaints(result.output)
    if failures:
        raise UserError(f"kaggle {what}: {failures[0]}")
    last = result.lines[-1] if result.lines else "it printed nothing"
    if result.status != 0:
        raise UserError(f"kaggle {what}: exit status {result.status}: {last}; mend that and push again")
    good = [line for line in result.lines if re.search(success, line)]
    if not good:
        raise UserError(f"kaggle {what}: no word of success; its last line: {last}; look at kaggle.com")
    return good[-1]


@dataclass(frozen=True)
class Status:
    """A dataset's last upload in Kaggle's word ("ready" at the end), and its current version."""

    word: str
    version: int


def status(dataset: str, run: Run) -> Status | None:
    """None where there is no such dataset. Raises `UserError` where Kaggle answers neither way."""
    fields = "json(status,current_version_number)"
    result = run("datasets", "status", dataset, "--format", fields)
    if result.status != 0 and ABSENT.search(result.output):
        return None
    answer = json.loads(demand(result, "datasets status", r"^\{.*\}$"))
    return Status(str(answer["status"]), int(answer.get("current_version_number") or 0))


def wait_until_ready(
    dataset: str, after: int, run: Run, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Wait until a version above `after` is processed.

    Until then a notebook would mount the previous version, and a second upload would break the first.
    """
    for _ in range(0, PATIENCE_S, POLL_S):
        try:
            now = status(dataset, run)
        except UserError:
            now = None  # a hiccup in the middle of a wait
        if now and now.word in ("failed", "deleted"):
            raise UserError(
                f"dataset {dataset}: Kaggle says '{now.word}'; look at its page, push again"
            )
        if now and now.word == "ready" and now.version > after:
            return
        sleep(POLL_S)
    minutes = PATIENCE_S // 60
    raise UserError(
        f"dataset {dataset}: not ready after {minutes} minutes; look at its page, push again"
    )


def push(bundle: Path, run: Run = run, sleep: Callable[[float], None] = time.sleep) -> str:
    """Upload a preflighted bundle and start the notebook's commit run. Kaggle's last line.

    Raises
    ------
    UserError
        Where the command line fails, or prints that something did.
    """
    folder = bundle / DATASET
    dataset = str(read_json(folder / DATASET_METADATA)["id"])
    upload = ("-p", str(folder), "--dir-mode", "zip")
    before = status(dataset, run)
    if before is None:
        demand(run("datasets", "create", *upload), "datasets create", re.escape(CREATED))
    else:
        wait_until_ready(dataset, before.version - 1, run, sleep)
        note = f"manifest {sha256(folder / manifest.NAME)[:12]}"
        result = run("datasets", "version", *upload, "-m", note)
        demand(result, "datasets version", re.escape(VERSIONED))
    wait_until_ready(dataset, before.version if before else 0, run, sleep)
    return demand(run("kernels", "push", "-p", str(bundle / KERNEL)), "kernels push", PUSHED)


def ended_version(kernel: str, run: Run = run) -> str | None:
    """How a notebook's last version ended, such as "COMPLETE"; None where there is no such notebook.

    Raises `UserError` where it has not ended, so that it has no output yet.
    """
    result = run("kernels", "status", kernel)
    if result.status != 0 and ABSENT.search(result.output):
        return None
    found = KERNEL_STATUS.search(demand(result, "kernels status", KERNEL_STATUS))
    assert found is not None, "its line was found by it"
    if found[1].upper() in NOT_ENDED:
        raise UserError(f"{kernel}: {found[1].lower()} on Kaggle; wait until that version has ended")
    return found[1].upper()


def download(kernel: str, within: str, to: Path, run: Run = run) -> None:
    """Fetch a folder of the output of a notebook's last version. Raises `UserError` without one."""
    files = ("-p", str(to), "--file-pattern", f"^{re.escape(within)}/")
    demand(run("kernels", "output", kernel, *files), "kernels output", DOWNLOADED)
