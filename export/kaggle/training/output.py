"""What a session leaves as output, and what the next one takes over from it.

A run's folder goes on without what can be made again: the waveform cache, and the optimiser's state of
models that are finished. A manifest lists the files, so that a copy that was cut short is noticed.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from birdkit.errors import UserError
from birdkit.kaggle import manifest
from birdkit.log import LOG
from export.kaggle.training.settings import RUN, Training
from train.config.provenance import differences
from train.data import waveforms
from train.models import checkpoint
from train.rounds import plan, sessions

# Where the output of a notebook is mounted: by its slug, or by its owner and slug.
DEPTHS = ("*", "notebooks/*/*")
STORES = "stores"  # what searches of the recordings found, in the run's folder


def earlier(inputs: Path) -> Path | None:
    """The run of an earlier version, where its output is attached."""
    runs = [path for depth in DEPTHS for path in sorted(inputs.glob(f"{depth}/{RUN}"))]
    if len(runs) > 1:
        raise UserError(f"{inputs}: several runs are attached ({', '.join(map(str, runs))}); keep one")
    return runs[0] if runs else None


def take_over(inputs: Path, run: Path, cache: Path, training: Training) -> None:
    """Copy the earlier run, if there is one.

    Raises `UserError` where it is of another recipe, which would begin anew or refuse, or is damaged.
    """
    before = earlier(inputs)
    if before is None:
        LOG.info("no earlier output is attached: the training begins")
        return
    verify(before)
    other = differences(training.resolved, Training.read(before).resolved)
    if other:
        raise UserError(
            f"{before}: trained with another {' and '.join(other)}; name this training with --name, or "
            "begin anew with --fresh"
        )
    LOG.info(f"going on from {before}")
    shutil.copytree(before, run)
    if (run / STORES).is_dir():
        shutil.copytree(run / STORES, cache, dirs_exist_ok=True)


def leave(run: Path, cache: Path, training: Training) -> None:
    """Make the run's folder what the next session and the export need."""
    for final in run.glob(f"round*/*/{checkpoint.FINAL_NAME}"):
        final.with_name(checkpoint.STATE_NAME).unlink(missing_ok=True)
    for litter in (run / ".lock", *run.rglob("*.partial")):
        litter.unlink(missing_ok=True)
    (run / STORES).mkdir(exist_ok=True)
    for store in cache.glob("*.json"):
        if store.name != waveforms.INDEX:  # the waveforms themselves stay behind
            shutil.copyfile(store, run / STORES / store.name)
    training.save(run)
    manifest.write(run)


def verdict(run: Path, status: int) -> str:
    """What a session ended with, and what to do next; `status` is its training's exit status."""
    if plan.is_finished(run):
        return "finished: bring the run back with export/bundle.py --fetch"
    # By the run's own record: torchrun does not hand on the exit status of what it runs.
    if [session["ended"] for session in sessions.read(run)][-1:] == [sessions.STOPPED]:
        return "stopped before the session's limit: push the next version, which goes on"
    return f"FAILED with exit status {status}; what was saved is kept, and the next version goes on"


def verify(run: Path) -> None:
    """Raise `UserError` where a run's folder is not as a session left it."""
    problems = manifest.problems(run)
    if problems is None:
        raise UserError(f"{run}: no {manifest.NAME}, so no session left it whole")
    if problems:
        raise UserError(f"{run}: {problems[0]}; fetch it again")
