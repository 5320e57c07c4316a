"""Measure how fast a recipe trains here, and whether the device waits for its data.

    python train/bench.py [--recipe NAME_OR_FILE] [--data DIR …] [--set key=value …] [--json FILE]
    python train/bench.py --scale [--out DIR] [--share X …] [--wheels DIR] [--stage NAME …]

Trains the first model of the recipe for some steps on real data, repeats the same step on one batch
that stays on the device, and then steps of timm's own model of that encoder. The ratio of the first two
is 1 where nothing waits. Nothing is kept but decoded waveforms in --cache.

--scale makes a synthetic competition of real size (28,564 recordings, 206 classes and 9,726 soundscapes
of a minute) and runs every stage of a run on it, at a tenth and as a whole, with time and memory. Exit
status 1: a stage grows faster than its input, or holds all audio.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":  # in place of this folder, whose rooms have names of packages
    sys.path[0:1] = [str(ROOT), str(ROOT / "submission")]

import torch

from birdkit.commands import choose_mode, command_parser
from birdkit.errors import run_command
from birdkit.files import write_whole
from birdkit.log import LOG
from birdkit.ranges import option
from train.benchmark import scale
from train.config import recipe as recipes
from train.config.job import Job
from train.data import dataset as data
from train.data.batches import Batches
from train.data.waveforms import CACHE
from train.fit.precision import add_device_option, choose_device
from train.fit.throughput import WARM_UP, Throughput, measure
from train.fit.trainer import Trainer
from train.models.sed import Predictor
from train.rounds import plan
from train.synthetic.competition import make_competition

DEMO_DATA = ROOT / "build" / "demo"
SCALE_OUT = ROOT / "build" / "scale"
# What is measured → the options that go with it.
MODES = {
    "--scale": ("--out", "--share", "--wheels", "--stage"),
    "--recipe": ("--data", "--cache", "--steps", "--set", "--device", "--json"),
}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument("--recipe", default="demo", help="a name in train/recipes, or a TOML file")
    parser.add_argument(
        "--data", type=Path, action="append", help="as for train/run.py (default: the demo's)"
    )
    parser.add_argument("--cache", type=Path, default=CACHE, help="decoded waveforms")
    parser.add_argument(
        "--steps", type=option(int, 1, 100_000), default=20, help="steps of each kind that are timed"
    )
    recipes.add_set_option(parser, "the recipe")
    add_device_option(parser, "what trains")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    add_scale_options(parser)
    args, given = parser.parse_given(argv)
    choose_mode(MODES, given)
    return args


def add_scale_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("every stage, at the size of a real competition")
    group.add_argument("--scale", action="store_true", help="measure these, and not the training")
    group.add_argument("--out", type=Path, default=SCALE_OUT, help="what it makes: 12 GB")
    group.add_argument(
        "--share",
        type=option(float, 0.001, 1),
        nargs="+",
        default=list(scale.SHARES),
        metavar="X",
        help="sizes, as shares of the real competition (default: 0.1 1)",
    )
    group.add_argument("--wheels", type=Path, help="for the bundle (default: download them)")
    group.add_argument(
        "--stage", choices=list(scale.STAGES), nargs="+", default=list(scale.STAGES), metavar="NAME",
        help=f"only these of {', '.join(scale.STAGES)} (default: all)",
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    if args.scale:
        text, wrong = scale.compare(args.out, args.share, args.wheels, args.stage)
        print(text)
        return 1 if wrong else 0
    recipe = recipes.load(args.recipe, args.overrides)
    device = choose_device(args.device)
    job = plan.stages(recipe, Path())[0].members[0].job
    plan.build_models([job], weights=False)
    dataset, _ = data.read(args.data or [make_competition(DEMO_DATA)], recipe, args.cache)
    dataset, lines = data.prepare(dataset, [job], args.cache, unlabelled=False)
    for line in lines:
        LOG.info(line)
    contract = dataset.contract(job)
    predictor = Predictor(job.frontend, job.model, contract)
    # The loader has batches for all steps: one kind of step takes them, beside the first.
    trainer = Trainer(predictor, job, 1 + 2 * (WARM_UP + args.steps), device)
    result = measure(trainer, Batches(dataset.sources(job), contract, job), args.steps)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    where = {"device": name, "threads": torch.get_num_threads(), "precision": str(trainer.precision)}
    _print(result, job, where)
    if args.json:
        figures = {"encoder": job.model.encoder, "batch": job.fit.batch, **where, **asdict(result)}
        write_whole(args.json, json.dumps({**figures, "ratio": result.ratio}, indent=1).encode())
    return 0


def _print(result: Throughput, job: Job, where: dict[str, object]) -> None:
    device = f"{where['device']}, {where['precision']}, {where['threads']} threads"
    print(f"{job.model.encoder}, batch {job.fit.batch}, on {device}")
    rows = [
        ("training", f"{result.real:.1f} windows/s"),
        ("the same step, its batch on the device", f"{result.resident:.1f} windows/s"),
        ("ratio of both", f"{result.ratio:.3f}"),
        ("a plain step of timm's model", f"{result.plain:.1f} windows/s"),
        ("first step after", f"{result.first_step_s:.1f} s"),
        ("one core of the loader", f"{result.loader:.0f} samples/s"),
        ("peak memory", f"{result.peak_memory_gb:.2f} GB"),
    ]
    for what, figure in rows:
        print(f"  {what:<40} {figure}", flush=True)


if __name__ == "__main__":
    run_command(main)
