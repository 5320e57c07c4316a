"""A training in three simulated sessions, each going on from the last one's output, and one in a whole.

It runs in the kit's own Python, where torch is: no image of Kaggle is made for it. Two sessions stop in
the middle of a model, by steps, so that they stop at the same place on any machine.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from birdkit.errors import UserError
from birdkit.log import LOG
from birdkit.tables import read_json
from export.kaggle import rules
from export.kaggle.rules import KERNEL, KERNEL_METADATA
from export.kaggle.sim import folders, session, verdict
from export.kaggle.sim.folders import Bundle, Tree
from export.kaggle.training import bundle, output
from export.kaggle.training.bundle import Request, Sources
from export.kaggle.training.settings import RUN
from train.config import recipe as recipes
from train.data import dataset
from train.fit.loop import total_steps
from train.models.checkpoint import FINAL_NAME, STATE_NAME, Final
from train.rounds import plan, sessions

HEADER = ("session", "layout", "before it", "ended", "s", "output, MB", "verdict")
ENDS = (sessions.STOPPED, sessions.STOPPED, sessions.FINISHED)
# Of all steps, in each of the first two sessions: the first model and the last one are cut in two.
SHARE = 0.4
OWNER = "someone"


@dataclass
class Line(verdict.Line):
    """One session of a training in the verdict, and everything that is wrong with it."""

    ends: str = ""
    output_mb: float = 0.0

    def left_behind(self, run: Path, before: int, end: str) -> None:
        """Judge a run's folder, after so many sessions before this one."""
        listed = sessions.read(run)
        self.ends = str(listed[-1]["ended"]) if listed else ""
        self.output_mb = rules.total_bytes(run) / 1e6
        if len(listed) != before + 1:
            self.problems.append(f"the run lists {len(listed)} sessions, not {before + 1}")
        if self.ends != end:
            self.problems.append(f"the training {self.ends or 'did not begin'}, and should be {end}")
        try:
            output.verify(run)
        except UserError as error:
            self.problems.append(str(error))

    def cells(self) -> list[str]:
        figures = f"{self.seconds:.0f}", f"{self.output_mb:.1f}"
        return [self.session, self.layout, self.before, self.ends or "–", *figures, self.verdict]


@dataclass(frozen=True)
class Rehearsal:
    """What is rehearsed: a recipe of the checkout on a competition folder, in a work folder."""

    root: Path
    recipe: str
    overrides: Sequence[str]
    data: Path
    work: Path

    def bundle(self, name: str, stop_after: str) -> Bundle:
        """A bundle that trains on the CPU, as it would be pushed."""
        folder = self.work / f"bundle-{name}"
        shutil.rmtree(folder, ignore_errors=True)
        places = (OWNER, folders.COMPETITION)
        request = Request(self.root, self.recipe, self.overrides, None, "cpu", stop_after, *places)
        sources = Sources.of(request)
        bundle.build(folder, sources)
        if problems := bundle.violations(folder, sources, pushing=True):
            raise UserError(f"{folder}: {problems[0]}")
        return Bundle.read(folder)

    def n_steps(self) -> int:
        """All training steps of the recipe on this data."""
        recipe = recipes.load(self.recipe, self.overrides)
        read, _ = dataset.read([self.data], recipe, self.work / "waveforms")
        _, stages, _ = plan.without_soundscapes(recipe, plan.stages(recipe, self.work), read)
        jobs = [member.job for stage in stages for member in stage.members]
        return sum(total_steps(job.fit, len(read.recordings_of(job.data)[0])) for job in jobs)

    def lay_out(self, name: str, layout: str, of: Bundle, earlier: Path | None) -> Tree:
        """A tree with all of the competition, and the earlier output attached."""
        tree = folders.build(self.work / name, layout, of, self.data)
        folders.link_the_rest(tree.competition, self.data)
        if earlier is not None:
            kernel = str(read_json(of.folder / KERNEL / KERNEL_METADATA)["id"])
            shutil.copytree(earlier, folders.of_notebook(tree, layout, kernel) / RUN)
        return tree


def rehearse(of: Rehearsal, layouts: Sequence[str]) -> Iterator[Line]:
    """Train in three sessions, whose mounts take turns, and in one; compare the weights."""
    if importlib.util.find_spec("nbclient") is None:
        raise UserError("nbclient is not installed: pip install -r requirements-dev.txt")
    steps = max(1, int(SHARE * of.n_steps()))
    cut, whole = of.bundle("in-sessions", f"{steps}steps"), of.bundle("as-a-whole", "11.5h")
    earlier: Path | None = None
    for number, end in enumerate(ENDS):
        line, run = _session(of, f"session {number + 1}", layouts[number % len(layouts)], cut, earlier)
        line.left_behind(run, number, end)
        if number + 1 < len(ENDS):
            yield line
        earlier = run
    uninterrupted, its_run = _session(of, "as a whole", layouts[0], whole, None)
    uninterrupted.left_behind(its_run, 0, sessions.FINISHED)
    yield uninterrupted
    line.problems += differences(run, its_run)
    yield line


def _session(
    of: Rehearsal, name: str, layout: str, bundled: Bundle, earlier: Path | None
) -> tuple[Line, Path]:
    """Run one session; its line, and the run's folder in its output."""
    LOG.info(f"training, {layout}: {name}")
    tree = of.lay_out(name.replace(" ", "-"), layout, bundled, earlier)
    # Not resolved: that would be the Python which the environment was made with.
    ended = session.run(tree, Path(sys.executable), bundled.notebook, "session")
    line = Line("", layout, name)
    # The kit's own Python has the engines, which training does not use.
    line.ended(ended.status, ended.seconds, ended.log, {**ended.surroundings, "engines": []})
    line.before = line.before.removeprefix("no engine, ")
    return line, tree.submission.parent / RUN


def differences(one: Path, other: Path) -> list[str]:
    """Faults of a finished run that should equal another one: its models, or what it carries along."""
    finals = sorted(path.relative_to(other) for path in other.rglob(FINAL_NAME))
    if not finals or finals != sorted(path.relative_to(one) for path in one.rglob(FINAL_NAME)):
        return ["the finished models are not those of the uninterrupted run"]
    faults = [f"{path} goes on, though its model is finished" for path in one.rglob(STATE_NAME)]
    for path in finals:
        first, second = Final.load(one / path).state, Final.load(other / path).state
        apart = [key for key, value in second.items() if not torch.equal(value, first[key])]
        if apart:
            faults.append(f"{path}: {len(apart)} of {len(second)} tensors differ, such as {apart[0]}")
    return faults
