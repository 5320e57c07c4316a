"""Train variants of a recipe over seeds, and say which of them are better.

    python train/sweep.py SWEEP [--out DIR] [--jobs N] [--score soundscapes] [--into FILE]

SWEEP is a TOML file with a recipe, data, seeds and variants; the first variant is what the others are
compared with. As many trainings run at a time as there are cores and memory for, each on its share of
the cores. What is finished is not trained again, but refused where its settings changed since: the same
command goes on, with more seeds or variants too.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":  # in place of this folder, whose rooms have names of packages
    sys.path[0:1] = [str(ROOT), str(ROOT / "submission")]

from birdkit.commands import command_parser
from birdkit.durations import in_words
from birdkit.engines.layout import usable_cores
from birdkit.errors import UserError, run_command
from birdkit.files import locked, write_whole
from birdkit.log import LOG
from birdkit.ranges import option
from birdkit.signals import Stopped, Termination
from train.experiments import sweep as sweeps
from train.experiments.sweep import Table, Training
from train.fit.precision import add_device_option, choose_device
from train.pages.marks import put_between_marks, require_marks
from train.rounds import plan
from train.rounds.side_by_side import most_at_once

LOOK_EVERY_S = 1.0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument("sweep", type=Path, metavar="SWEEP", help="recipe, data, seeds, variants")
    parser.add_argument("--out", type=Path, help="default: runs/ and the sweep's name")
    parser.add_argument(
        "--jobs",
        type=option(int, 1, 1024),
        help="trainings at a time (default: one a core, where each has 4 GiB; on a GPU one)",
    )
    parser.add_argument(
        "--score",
        default="soundscapes",
        dest="set_name",
        help="the set of the table: soundscapes, held_out, or validation with --validation DIR",
    )
    parser.add_argument("--validation", type=Path, help="a validation folder, to be scored as well")
    add_device_option(parser, "what trains")
    parser.add_argument("--into", type=Path, help="put the table there, between its marks")
    parser.add_argument("--mark", help="of the table in that file (default: the sweep's name)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    sweep, mark = sweeps.read(args.sweep), f"sweep {args.mark or args.sweep.stem}"
    if args.set_name == "validation" and not args.validation:
        raise UserError("--score validation: give the folder with --validation DIR")
    if args.into:
        require_marks(args.into, mark)
    device = choose_device(args.device)
    jobs = args.jobs or (most_at_once(usable_cores()) if device.type == "cpu" else 1)
    out = args.out or plan.RUNS / args.sweep.stem
    out.mkdir(parents=True, exist_ok=True)
    more = ["--device", str(device)]
    more += ["--validation", str(args.validation)] if args.validation else []
    with locked(out):
        table = Table(sweep, out, args.set_name)
        failed = train_all(sweeps.trainings(sweep, out, more), jobs, table)
        for training in failed:
            LOG.error(f"failed: {training.folder.name}: {training.last_line()} ({training.log})")
        text = table.markdown()
        write_whole(out / sweeps.TABLE_NAME, f"{text}\n".encode())
    print(text)
    if args.into:
        put_between_marks(args.into, mark, text)
    return 1 if failed else 0


def train_all(trainings: Sequence[Training], jobs: int, table: Table) -> list[Training]:
    """Run them all, `jobs` at a time; returns those that failed, which end no other.

    A finished one is run, too: train/run.py then checks that it is as it would be now, and scores it on
    a validation set that is new.
    """
    threads = max(1, usable_cores() // jobs)
    LOG.info(f"{len(trainings)} trainings; {jobs} at a time, on {threads} threads each")
    failed: list[Training] = []
    running: list[Running] = []
    waiting, started = list(reversed(trainings)), time.monotonic()
    try:
        with Termination() as termination:
            termination.release()
            while waiting or running:
                while waiting and len(running) < jobs:
                    running.append(Running(waiting.pop(), threads))
                time.sleep(LOOK_EVERY_S)
                for one in [one for one in running if one.has_ended]:
                    running.remove(one)
                    failed += [one.training] if one.conclude(table) else []
                    n_done = len(trainings) - len(waiting) - len(running)
                    left_s = (time.monotonic() - started) / n_done * (len(trainings) - n_done)
                    so_far = f"{n_done}/{len(trainings)}, {in_words(left_s)} left"
                    LOG.info(f"{one.training.folder.name}: {one.training.last_line()} ({so_far})")
    except Stopped:  # SIGTERM ends a sweep as Ctrl-C does
        raise KeyboardInterrupt from None
    finally:  # an interrupted training goes on when this command is run again
        for one in running:
            one.process.terminate()
        for one in running:
            one.process.wait()
    return failed


class Running:
    """A training at work in a process of its own."""

    def __init__(self, training: Training, threads: int) -> None:
        self.training, self.is_new = training, not plan.is_finished(training.folder)
        self.since, self.process = time.monotonic(), training.start(threads)

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def conclude(self, table: Table) -> bool:
        """Count its time, or that it failed, which is returned."""
        has_failed = bool(self.process.returncode)
        if has_failed:
            table.failed.add(self.training.folder.name)
        elif self.is_new:
            table.took(self.training, (time.monotonic() - self.since) / 60)
        return has_failed


if __name__ == "__main__":
    run_command(main)
