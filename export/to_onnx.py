"""Turn final checkpoints into self-describing ONNX files, gated by parity with torch.

    python export/to_onnx.py [RUN_DIR …] [--data DIR] [--out submission/model] [--fuse] [--fit]

RUN_DIR is the latest of `runs/` where none is given; its last round is exported, or the one whose
folder (RUN_DIR/round0) is named. The members of several runs stand in one ensemble. With --data the
gate compares answers on real soundscapes too, and the ensemble is scored, and its output chosen, on the
labelled ones that trained no member. --fuse makes one graph of the members that share a front end,
--fit chooses their weights, --soup mixes those that went on from one model. The model folder is
replaced as a whole, once every checkpoint has passed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from shlex import quote

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":  # in place of this folder, whose rooms have names of packages
    sys.path[0:1] = [str(ROOT), str(ROOT / "submission")]

from birdkit.commands import command_parser
from birdkit.errors import UserError, run_command
from birdkit.log import LOG, timed
from birdkit.ranges import option
from export.benchmark import machine
from export.folder import model_card, model_folder
from export.gates import model_files, parity, selection
from export.gates.parity import Parity
from export.gates.selection import Labelled
from export.models import members, soup
from export.models.fuse import into_files
from export.models.members import Checkpoints
from train.rounds import plan
from train.scoring.evaluate import TruthSet


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument("run_dir", type=Path, nargs="*", help="default: the latest of runs/")
    parser.add_argument("--data", type=Path, help="data folder: real audio for the gate")
    parser.add_argument("--out", type=Path, default=model_folder.DEFAULT, help="the model folder")
    parser.add_argument("--fuse", action="store_true", help="one graph for a shared front end")
    parser.add_argument(
        "--fit", action="store_true", help="choose weights and averaging on labelled soundscapes"
    )
    parser.add_argument(
        "--soup",
        choices=soup.HOW,
        help="one model with the mean of the weights of members that went on from one another",
    )
    parser.add_argument("--output", help="clipwise or segmentwise (default: the better one)")
    parser.add_argument(
        "--stretch-s",
        type=option(float, 0, 120),
        nargs="+",
        default=[],
        metavar="S",
        help="seconds heard at once, in whole windows; 0: a window (default: the recipe's); the "
        "members take several in turn",
    )
    return parser.parse_args(argv)


def load_members(runs: Sequence[Path]) -> Checkpoints:
    """The runs' members, or those of the latest run where none is given."""
    if not runs:
        runs = [plan.latest_run()]
        LOG.info(f"exporting the latest run: {runs[0]}")
    return members.load(runs)


def export(
    checkpoints: Checkpoints,
    stems: Mapping[str, Sequence[str]],
    folder: Path,
    recordings: Sequence[Path],
) -> dict[str, list[Parity]]:
    """Write every file into `folder`; raises `UserError` where the gate refuses a member."""
    report: dict[str, list[Parity]] = {}
    for stem, names in stems.items():
        LOG.info(f"{stem}: exporting {' + '.join(names)}")
        report |= model_files.export_stem(checkpoints, stem, names, folder, recordings)
        for name in names:
            for comparison in report[name]:
                LOG.info(f"  {name:<24} {comparison}")
    parity.refuse(report, "nothing written")
    return report


def _refuse_unlabelled(args: argparse.Namespace, labelled: Labelled) -> None:
    """Raise `UserError` where something is to be chosen on labelled soundscapes, and there are none."""
    asked = "--fit" if args.fit else "--soup greedy" if args.soup == "greedy" else ""
    if asked and labelled.truth_set is None:
        raise UserError(
            f"{asked} has nothing to choose on, since {labelled.note}; it needs --data with labelled "
            "soundscapes (train_soundscapes_labels.csv) that trained no member"
        )


def _mixed(checkpoints: Checkpoints, how: str | None, labelled: TruthSet | None) -> Checkpoints:
    """The members, or their soups where those are asked for."""
    if how is None:
        return checkpoints
    score = partial(selection.macro_of, labelled) if how == "greedy" and labelled else None
    checkpoints, lines = soup.cook(checkpoints, score)
    for line in lines:
        LOG.info(line)
    return checkpoints


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    model_folder.refuse_foreign(args.out)
    checkpoints = load_members(args.run_dir).over_stretches(*args.stretch_s)
    recordings = model_folder.gate_recordings(args.data)
    if args.data is not None:
        checkpoints, dropped = members.for_competition(checkpoints, args.data)
        if dropped:
            LOG.info(dropped)
    outputs = checkpoints.contract.outputs
    if args.output not in (None, *outputs):
        raise UserError(f"--output {args.output}: the models have {' and '.join(outputs)}")
    labelled = selection.labelled_set(args.data, checkpoints.contract, checkpoints.trained_on)
    _refuse_unlabelled(args, labelled)
    checkpoints = _mixed(checkpoints, args.soup, labelled.truth_set)
    finals, stems = into_files(checkpoints.finals, args.fuse)
    spec, judgement = selection.untested(checkpoints.finals, stems, labelled.note, args.output)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.out.parent, prefix=".export-") as scratch:
        staged = Path(scratch) / "model"
        staged.mkdir()
        report = export(replace(checkpoints, finals=finals), stems, staged, recordings)
        model_folder.write_parity(staged, report)
        spec.save(staged)
        if labelled.truth_set is not None:
            with timed("chosen on labelled soundscapes"):
                spec, judgement = selection.judge(staged, args.data, labelled, args.fit, args.output)
            spec.save(staged)
        judgement.save(staged)
        if args.data is not None:
            model_folder.write_names(staged, checkpoints.contract.classes, args.data)
        model_card.write(staged, machine.describe())
        model_folder.replace(args.out, staged)
    if labelled.note:
        LOG.info(labelled.note if labelled.truth_set else f"not scored, since {labelled.note}")
    for line in judgement.chosen:
        LOG.info(line)
    n_models = len(checkpoints.finals)
    LOG.info(
        f"{args.out}: {n_models} models; next: python export/to_openvino.py {quote(str(args.out))}"
    )
    return 0


if __name__ == "__main__":
    run_command(main)
