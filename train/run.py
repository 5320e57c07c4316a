"""Run a recipe on a competition folder, or on folders of recordings: rounds of training.

    python train/run.py [--recipe NAME_OR_FILE] [--data DIR …] [--out DIR] [--set key=value …]

DIR is a competition folder, or holds one folder of recordings for each class and nothing else. Without
arguments: the demo recipe on the demo competition, which is synthesised first. A run that was
interrupted goes on where it stopped; what is done and unchanged is not done again. A finished model
whose settings or data changed is overwritten with --restart only. --dry-run prints the plan alone.
With --stop-after it stops itself, with exit status 3, and the same command goes on.

    torchrun --nproc-per-node N train/run.py …    trains with N processes, one a GPU
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from shlex import quote

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":  # in place of this folder, whose rooms have names of packages
    sys.path[0:1] = [str(ROOT), str(ROOT / "submission")]

from birdkit.commands import command_parser
from birdkit.errors import run_command
from birdkit.files import locked
from birdkit.log import LOG, timed
from birdkit.ranges import option
from birdkit.signals import Stopped
from train.config import recipe as recipes
from train.config.settings import Recipe
from train.data import dataset as data
from train.data.waveforms import CACHE
from train.fit.loop import follow
from train.fit.precision import add_device_option, choose_device
from train.fit.processes import Processes, joined
from train.fit.stop import EXIT_STATUS, Stop
from train.outside.teachers import Outside, open_teachers
from train.rounds import class_table, estimate, plan, record, sessions, stop_rule
from train.rounds.runner import Runner
from train.scoring.evaluate import validation_set
from train.synthetic.competition import make_competition

DEMO_DATA = ROOT / "build" / "demo"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument("--recipe", default="demo", help="a name in train/recipes, or a TOML file")
    parser.add_argument(
        "--data",
        type=Path,
        action="append",
        help="competition folder, or folders of recordings, one for each class (default: the demo's); "
        "again for further ones to join",
    )
    parser.add_argument("--out", type=Path, help="default: runs/RECIPE-DATA, by their names")
    parser.add_argument("--validation", type=Path, help="soundscapes/, truth.csv, mask.csv to report")
    parser.add_argument("--cache", type=Path, default=CACHE, help="decoded waveforms")
    recipes.add_set_option(parser, "the recipe")
    add_device_option(parser, "what trains")
    parser.add_argument(
        "--jobs",
        type=option(int, 1, 1024),
        default=0,
        help="models of a round that train at a time (default: one a core or GPU, where that gains)",
    )
    parser.add_argument(
        "--restart",
        action="store_true",
        help="train finished models again whose settings or data changed",
    )
    parser.add_argument(
        "--tensorboard",
        action="store_true",
        help="write each model's curves for TensorBoard, too, in its folder",
    )
    parser.add_argument(
        "--stop-after",
        type=Stop.after,
        metavar="TIME",
        help="11.5h, 90min, 30s or 200steps: save what is done then and stop (default: at the end)",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan and its time")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    with joined() as processes:
        return follow(processes) if processes.rank else lead(argv, processes)


def lead(argv: Sequence[str] | None, processes: Processes) -> int:
    """The run, by the first of the processes that train it."""
    args = parse(argv)
    processes.send(args.device)
    recipe = recipes.load(args.recipe, args.overrides)
    out = args.out or default_out(recipe.name, args.data or [])
    stages = plan.stages(recipe, out)
    device = choose_device(args.device)
    to_train = [m.job for s in stages for m in s.members if args.restart or not m.final.is_file()]
    plan.build_models(to_train, weights=not args.dry_run)
    folders = args.data or [make_competition(DEMO_DATA)]
    with timed("tables and headers read"):
        dataset, notes = data.read(folders, recipe, args.cache)
    recipe, stages, left_out = plan.without_soundscapes(recipe, stages, dataset)
    stop_rule.refuse_unjudged(stages, dataset)
    jobs = [member.job for stage in stages for member in stage.members]
    unlabelled = any(stage.draws_soundscapes for stage in stages)
    notes += [*left_out, *data.fold_notes(dataset, jobs)]
    _print_data(
        folders, dataset, [*notes, *data.cache_note(dataset, jobs, args.cache, unlabelled=unlabelled)]
    )
    contract = dataset.contract(jobs[0])
    truth = validation_set(args.validation, contract) if args.validation else None
    teachers = _teachers(recipe, stages, dataset, args.cache)
    how = args.restart, args.tensorboard, args.jobs, args.stop_after or Stop()
    runner = Runner(recipe, dataset, device, truth, *how, teachers, processes)
    done = runner.done(stages)
    if args.dry_run:
        _print_plan(runner, stages, done, args.cache)
        return 0
    out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        for litter in out.glob("round*/*/*.partial"):  # of a run that was killed
            litter.unlink()
        dataset, lines = data.prepare(dataset, jobs, args.cache, unlabelled=unlabelled)
        for line in [*lines, *record.write(dataset, jobs, out)]:
            LOG.info(line)
        return _run(replace(runner, dataset=dataset, _files={}), stages, out)


def _run(runner: Runner, stages: list[plan.Stage], out: Path) -> int:
    """Run the rounds; an exit status."""
    try:
        with sessions.recorded(out, runner.device):
            stages = runner.run(stages, out)
    except Stopped:
        LOG.info(f"\n{out}: stopped as --stop-after asks; the same command goes on")
        return EXIT_STATUS
    n_models = len(stages[-1].members)
    LOG.info(f"\n{out}: {n_models} final checkpoints; next: python export/to_onnx.py {quote(str(out))}")
    return 0


def _teachers(
    recipe: Recipe, stages: Sequence[plan.Stage], dataset: data.Dataset, cache: Path
) -> Mapping[str, Outside]:
    """The teachers from outside that some round asks for, or whose embeddings some model learns."""
    distilled = {member.job.fit.distil_from for stage in stages for member in stage.members}
    names = class_table.scientific_names(dataset.competition)
    wanted = plan.wanted_teachers(recipe, stages)
    return open_teachers(wanted, names, recipe.data.window_s, cache, distilled)


def default_out(recipe: str, folders: Sequence[Path]) -> Path:
    """The run's folder, by the recipe's name and those of the data folders that are given."""
    return plan.RUNS / "-".join([recipe, *(folder.resolve().name for folder in folders)])


def _print_data(folders: Sequence[Path], dataset: data.Dataset, notes: Sequence[str]) -> None:
    competition = dataset.competition
    LOG.info(
        f"{', '.join(map(str, folders))}: {len(competition.recordings)} recordings of "
        f"{len(competition.classes)} classes, {len(competition.soundscapes)} labelled and "
        f"{len(dataset.unlabelled)} other soundscapes"
    )
    for line in notes:
        LOG.info(f"data: {line}")


def _print_plan(runner: Runner, stages: Sequence[plan.Stage], done: Set[Path], cache: Path) -> None:
    n_windows = {
        stage.index: sum(file.n_windows for file in runner.to_label(stage))
        for stage in stages
        if stage.draws_soundscapes
    }
    clock = estimate.Clock(runner.dataset, runner.device, cache, runner.at_a_time)
    for line in estimate.describe(stages, clock, n_windows, done):
        print(line, flush=True)


if __name__ == "__main__":
    run_command(main)
