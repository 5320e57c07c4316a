"""A Python and a tree to run the notebook in, and the sessions that one such place goes through."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from birdkit.errors import UserError
from birdkit.kaggle import table
from birdkit.log import LOG
from export.kaggle.sim import folders, session, verdict
from export.kaggle.sim.folders import Hidden, Tree
from export.kaggle.sim.verdict import Left, Line

BEST, NEXT = "openvino", "onnxruntime"
CALL = "run.main(["  # where the notebook's options begin


@dataclass(frozen=True)
class Place:
    """A Python, and a tree to run a notebook in."""

    version: str
    python: Path
    layout: str
    tree: Tree
    notebook: Path

    def run(self, name: str) -> tuple[Line, Left | None]:
        """Run one session and judge its output; its faults are in the line."""
        LOG.info(f"Python {self.version}, {self.layout}: {name}")
        line = Line(self.version, self.layout, name)
        self.tree.refresh()
        short = name.replace(" ", "-")
        ended = session.run(self.tree, self.python, self.notebook, short)
        line.ended(ended.status, ended.seconds, ended.log, ended.surroundings)
        left = None
        try:
            left = Left.read(self.tree.submission)
            line.left(left, self.tree.dataset / "wheels", self.tree.scratch)
        except UserError as error:
            line.problems.append(str(error))
        self.tree.keep(short)
        return line, left

    def with_options(self, *options: str) -> Place:
        """The same place with more options in the notebook's call of the kit."""
        book = json.loads(self.notebook.read_text())
        text = json.dumps(book)
        call = json.dumps(CALL)[1:-1]
        if text.count(call) != 1:
            raise UserError(f"{self.notebook}: no single '{CALL}' to put {' '.join(options)} into")
        added = json.dumps("".join(f'"{option}", ' for option in options))[1:-1]
        changed = self.tree.folder / "with-options.ipynb"
        changed.write_text(text.replace(call, call + added))
        return replace(self, notebook=changed)


def sessions(place: Place, data: Path, n_files: int) -> Iterator[Line]:
    """Run the commit run, then the scoring reruns with all engines and without the best one."""
    tree = place.tree
    _, columns = table.read_sample(tree.competition / folders.TABLES[0])

    line, left = place.run("commit run")
    train = {path.stem for path in folders.sources(data)}
    line.judge(left, Hidden(sorted(train & (left.stems if left else set())), {}), columns, BEST)
    yield line

    hidden = folders.add_test_soundscapes(tree, data, n_files)
    line, best = place.run("scoring rerun")
    line.judge(best, hidden, columns, BEST)
    yield line

    if best and not verdict.all_f32(best):  # engines agree in f32 only
        place = place.with_options("--precision", "f32")
        line, best = place.run("rerun in f32")
        line.judge(best, hidden, columns, BEST)
        yield line

    folders.take_out(tree, BEST)
    line, left = place.run(f"rerun without {BEST}")
    line.judge(left, hidden, columns, NEXT)
    line.problems += verdict.difference(best, left) + verdict.silence(left, BEST)
    yield line
