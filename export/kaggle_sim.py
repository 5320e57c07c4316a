"""Kaggle on this machine: a bundle's notebook as commit run and scoring rerun, ending with a verdict.

    python export/kaggle_sim.py [--bundle build/kaggle] [--data DIR] [--python 3.12 3.13]
                                [--layout both] [--files 700] [--work build/kaggle-sim]

For each Python and layout of mounts: an environment with what Kaggle's image has, no network,
read-only inputs, and three sessions: without test files; with `--files` of them, twenty bad or odd;
and again without OpenVINO's wheels. Exit status 1 if any fails. Only --work is written.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":  # in place of this folder, whose rooms have names of packages
    sys.path[0:1] = [str(ROOT), str(ROOT / "submission")]

from birdkit.errors import UserError, run_command
from birdkit.kaggle import table
from export.kaggle.sim import folders, pythons, session, verdict
from export.kaggle.sim.bad_files import ODDITIES
from export.kaggle.sim.folders import LAYOUTS, Bundle, Hidden, Tree
from export.kaggle.sim.verdict import Left, Line

BEST, NEXT = "openvino", "onnxruntime"
MARK = "made-by-kaggle-sim"  # in a work folder: that it may be written to
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
        """One session, and what it left; what goes wrong stands in the line."""
        print(f"Python {self.version}, {self.layout}: {name}", flush=True)
        line = Line(self.version, self.layout, name)
        self.tree.refresh()
        short = name.replace(" ", "-")
        ended = session.run(self.tree, self.python, self.notebook, short)
        line.ended(ended.status, ended.seconds, ended.log, ended.facts)
        left = None
        try:
            left = Left.read(self.tree.submission)
            line.left(left, self.tree.dataset / "wheels", self.tree.scratch)
        except UserError as error:
            line.problems.append(str(error))
        self.tree.keep(short)
        return line, left

    def with_options(self, *options: str) -> Place:
        """The same with more options in the notebook's call of the kit."""
        book = json.loads(self.notebook.read_text())
        text = json.dumps(book)
        call = json.dumps(CALL)[1:-1]
        if text.count(call) != 1:
            raise UserError(f"{self.notebook}: no single '{CALL}' to put {' '.join(options)} into")
        added = json.dumps("".join(f'"{each}", ' for each in options))[1:-1]
        changed = self.tree.folder / "with-options.ipynb"
        changed.write_text(text.replace(call, call + added))
        return replace(self, notebook=changed)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Kaggle on this machine, ending with a verdict.")
    versions = list(pythons.PACKAGES)
    parser.add_argument("--bundle", type=Path, default=ROOT / "build" / "kaggle")
    parser.add_argument("--data", type=Path, default=ROOT / "build" / "demo", help="competition folder")
    parser.add_argument("--python", nargs="+", choices=versions, default=versions)
    parser.add_argument("--layout", choices=("both", *LAYOUTS), default="both", help="of the mounts")
    parser.add_argument("--files", type=int, default=700, help="test soundscapes of the scoring rerun")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "kaggle-sim")
    args = parser.parse_args(argv)
    if args.files < 2 * len(ODDITIES):
        raise UserError(
            f"--files {args.files}: {len(ODDITIES)} are bad or odd; give twice that or more"
        )
    args.layouts = LAYOUTS if args.layout == "both" else (args.layout,)
    return args


def prepare(work: Path) -> None:
    """Make the work folder. Raises `UserError` where it holds what is not ours."""
    if work.exists() and not (work / MARK).is_file() and any(work.iterdir()):
        raise UserError(f"{work}: holds other things, so it is not written to; give another --work")
    work.mkdir(parents=True, exist_ok=True)
    (work / MARK).touch()


def interpreters(versions: Sequence[str], work: Path) -> dict[str, Path]:
    """Version → the interpreter of its simulated image; those that this machine lacks are skipped."""
    found = {}
    for version in versions:
        base = pythons.interpreter(version)
        if base is None:
            print(f"skipped: no python{version} runs here (looked on PATH and in pyenv)", flush=True)
        else:
            found[version] = pythons.environment(work / f"image-{version}", version, base)
    if not found:
        raise UserError(f"no python{' or python'.join(versions)} runs here; install one, on PATH")
    return found


def sessions(place: Place, data: Path, n_files: int) -> Iterator[Line]:
    """The commit run, then the scoring reruns: with all engines, and without the best."""
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


def wrong_ones() -> str:
    """The bad and odd recordings of a rerun, in words."""
    bad, odd = ([name for name, each in ODDITIES.items() if each.bad is kind] for kind in (True, False))
    either = ", ".join(name for name, each in ODDITIES.items() if each.bad is None)
    return (
        f"{len(ODDITIES)} wrong recordings a rerun. Bad, and named: {', '.join(bad)}. Odd, and scored: "
        f"{', '.join(odd)}. Either, since root reads it: {either}."
    )


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    work = args.work.resolve()
    bundle = Bundle.read(args.bundle.resolve())
    folders.sources(args.data)  # complains before anything is installed
    prepare(work)
    lines = []
    for version, python in interpreters(args.python, work).items():
        for layout in args.layouts:
            tree = folders.build(work / f"{version}-{layout}", layout, bundle, args.data)
            place = Place(version, python, layout, tree, bundle.notebook)
            for line in sessions(place, args.data, args.files):
                lines.append(line)
                if line.problems:
                    print(f"{line.verdict}\n{line.last_words()}", file=sys.stderr, flush=True)
    print(f"{verdict.markdown(lines)}\n\n{wrong_ones()}")
    return 1 if any(line.problems for line in lines) else 0


if __name__ == "__main__":
    run_command(main)
