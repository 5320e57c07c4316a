"""Train variants of a recipe over seeds, and say which of them are better.

    python train/sweep.py SWEEP [--out DIR] [--jobs N] [--score soundscapes] [--into FILE]

SWEEP is a TOML file with a recipe, data, seeds and variants; the first variant is what the others are
compared with. As many trainings run at a time as there are cores and memory for, each on its share of
the cores. What is finished is not trained again: the same command goes on, with more seeds or variants
too.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":  # in place of this folder, whose rooms have names of packages
    sys.path[0:1] = [str(ROOT), str(ROOT / "submission")]

from tqdm import tqdm

from birdkit.commands import command_parser
from birdkit.engines.layout import usable_cores
from birdkit.errors import run_command
from birdkit.files import locked, write_whole
from birdkit.log import LOG
from birdkit.ranges import option
from train.data.progress import bar
from train.pages.marks import put_between_marks
from train.rounds import plan
from train.rounds import sweep as sweeps
from train.rounds.sweep import Table, Training

LOOK_EVERY_S = 1.0
GIB_A_TRAINING = 4.0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument("sweep", type=Path, metavar="SWEEP", help="recipe, data, seeds, variants")
    parser.add_argument("--out", type=Path, help="default: runs/ and the sweep's name")
    parser.add_argument(
        "--jobs",
        type=option(int, 1, 1024),
        default=sweeps.most_at_once(GIB_A_TRAINING),
        help="trainings at a time (default: one a core, where each has 4 GiB)",
    )
    parser.add_argument(
        "--score",
        default="soundscapes",
        dest="set_name",
        help="what judges: soundscapes, held_out, or validation with --validation DIR",
    )
    parser.add_argument("--validation", type=Path, help="a validation folder, to be scored as well")
    parser.add_argument("--into", type=Path, help="put the table there, between its marks")
    parser.add_argument("--mark", help="of the table in that file (default: the sweep's name)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    sweep = sweeps.read(args.sweep)
    out = args.out or plan.RUNS / args.sweep.stem
    out.mkdir(parents=True, exist_ok=True)
    more = ["--validation", str(args.validation)] if args.validation else []
    with locked(out):
        table = Table(sweep, out, args.set_name)
        every = sweeps.trainings(sweep, out, more)
        failed = train_all(every, args.jobs, table)
        text = table.markdown()
        write_whole(out / sweeps.TABLE_NAME, f"{text}\n".encode())
    print(text)
    if args.into:
        put_between_marks(args.into, f"sweep {args.mark or args.sweep.stem}", text)
    for training in failed:
        LOG.error(f"failed: {training.folder.name}: {training.last_line()} ({training.log})")
    return 1 if failed else 0


def train_all(every: Sequence[Training], jobs: int, table: Table) -> list[Training]:
    """Train what is not finished, `jobs` at a time; those that failed, which end no other."""
    todo = [training for training in every if not training.is_finished]
    done = f", {len(every) - len(todo)} are finished" if len(todo) < len(every) else ""
    threads = max(1, usable_cores() // jobs)
    LOG.info(f"{len(every)} trainings{done}; {jobs} at a time, on {threads} threads each")
    failed: list[Training] = []
    running: dict[Training, tuple[subprocess.Popen[bytes], float]] = {}
    waiting = list(reversed(todo))
    try:
        with tqdm(total=len(todo), **bar("trainings")) as steps:
            while waiting or running:
                while waiting and len(running) < jobs:
                    training = waiting.pop()
                    running[training] = training.start(threads), time.monotonic()
                time.sleep(LOOK_EVERY_S)
                for training in [
                    each for each, (process, _) in running.items() if process.poll() is not None
                ]:
                    process, since = running.pop(training)
                    table.took(training, (time.monotonic() - since) / 60)
                    failed += [training] if process.returncode else []
                    LOG.info(f"{training.folder.name}: {training.last_line()}")
                    steps.update()
    finally:  # an interrupted training goes on when this command is run again
        for process, _ in running.values():
            process.terminate()
        for process, _ in running.values():
            process.wait()
    return failed


if __name__ == "__main__":
    run_command(main)
