"""Have a run's models label a folder of soundscapes, as a round does.

    python train/label.py RUN_DIR --soundscapes DIR --out DIR [--set key=value …]

RUN_DIR is a finished run, whose last round labels, or a round's folder. `--set` changes the `pseudo`
settings: --set output=clipwise. Writes `pseudo.parquet`, and says what it cost.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":  # in place of this folder, whose rooms have names of packages
    sys.path[0:1] = [str(ROOT), str(ROOT / "submission")]

from birdkit.commands import command_parser
from birdkit.errors import UserError, run_command
from birdkit.kaggle import mounts
from birdkit.log import LOG
from train.config import recipe
from train.fit.precision import add_device_option, choose_device
from train.rounds import plan, pseudo_labels, teachers


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument("run_dir", type=Path, help="a finished run, or the folder of a round")
    parser.add_argument("--soundscapes", type=Path, required=True, help="folder to label")
    parser.add_argument("--out", type=Path, required=True, help="folder of the table")
    recipe.add_set_option(parser, "`pseudo`")
    add_device_option(parser, "what computes")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    device = choose_device(args.device)
    stage = plan.finished(args.run_dir)
    paths = mounts.soundscapes(args.soundscapes)
    if not paths:
        raise UserError(f"{args.soundscapes}: holds no sound files")
    settings = recipe.pseudo_of(args.overrides)
    teacher = teachers.Teacher.load({m.name: m.final for m in stage.members}, device)
    files = teachers.soundscape_files(paths, teacher.contract.window_s)
    start = time.monotonic()
    path = teachers.label(teacher, files, settings, args.out)
    elapsed_s = time.monotonic() - start
    LOG.info(pseudo_labels.summarise(pseudo_labels.read(path), settings).line(path))
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    LOG.info(
        f"{len(files)} files in {elapsed_s:.1f} s, {elapsed_s / len(files):.3f} s each, "
        f"{time.process_time():.0f} s of CPU; peak memory {peak_mib:.0f} MiB"
    )
    return 0


if __name__ == "__main__":
    run_command(main)
