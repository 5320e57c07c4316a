"""Run a recipe on a competition folder: rounds of training and pseudo labelling.

    python train/run.py [--recipe NAME_OR_FILE] [--data DIR …] [--out DIR] [--set key=value …]

Without arguments: the demo recipe on the demo competition, which is synthesised first. A run that was
interrupted goes on where it stopped; what is done and unchanged is not done again. --dry-run prints
the plan alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":  # in place of this folder, whose rooms have names of packages
    sys.path[0:1] = [str(ROOT), str(ROOT / "submission")]

import torch

from birdkit.errors import run_command
from train.config import recipe
from train.data import dataset
from train.fit.trainer import choose_device
from train.rounds import plan
from train.rounds.runner import Runner
from train.scoring.evaluate import validation_set
from train.synthetic.competition import make_competition

DEMO_DATA = ROOT / "build" / "demo"
CACHE = ROOT / "build" / "waveforms"
RUNS = ROOT / "runs"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run a recipe on a competition folder.")
    parser.add_argument("--recipe", default="demo", help="a name in train/recipes, or a TOML file")
    parser.add_argument(
        "--data",
        type=Path,
        action="append",
        help="competition folder (default: the demo's); again for further ones to join",
    )
    parser.add_argument("--out", type=Path, help="default: runs/<recipe name>")
    parser.add_argument("--validation", type=Path, help="soundscapes/, truth.csv, mask.csv to report")
    parser.add_argument("--cache", type=Path, default=CACHE, help="decoded waveforms")
    parser.add_argument("--set", action="append", default=[], metavar="key=value", dest="overrides")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and its time")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    config = recipe.load(args.recipe, args.overrides)
    device = choose_device(args.device)
    folders = args.data or [make_competition(DEMO_DATA)]
    out = args.out or RUNS / config.name
    found = dataset.read(folders, config, args.cache)
    print(
        f"{', '.join(map(str, folders))}: {len(found.competition.recordings)} recordings of "
        f"{len(found.contract.classes)} classes, {len(found.competition.soundscapes)} labelled and "
        f"{len(found.unlabelled)} other soundscapes"
    )
    for line in found.notes:
        print(f"data: {line}")
    truth = validation_set(args.validation, found.contract) if args.validation else None
    every = plan.stages(config, out)
    if args.dry_run:
        _print_plan(Runner(config, found, device, truth), every)
        return 0
    found, lines = dataset.prepare(found, config, args.cache)
    for line in lines:
        print(line)
    Runner(config, found, device, truth).run(every, out)
    n_models = len(every[-1].members)
    print(f"\n{out}: {n_models} final checkpoints; next: python export/to_onnx.py {out}")
    return 0


def _print_plan(runner: Runner, every: Sequence[plan.Stage]) -> None:
    n_windows = 0
    labelling = [stage for stage in every[1:] if stage.round.pseudo.share]
    if labelling:
        n_windows = sum(file.n_windows for file in runner.to_label(labelling[0]))
    clock = plan.Clock(runner.material.contract, runner.device)
    done = runner.done(every)
    for line in plan.describe(every, clock, len(runner.material.recordings), n_windows, done):
        print(line)


if __name__ == "__main__":
    run_command(main)
