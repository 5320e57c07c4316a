"""Add OpenVINO IR to a model folder: the same models in f32, and the lower precisions that pass.

    python export/to_openvino.py [MODEL_DIR] [--data DIR] [--precision bf16,int8]

Each IR must answer as its ONNX file does in ONNX Runtime, which was held against torch when it was
exported. With --data the lower precisions are tried: each is judged on the labelled soundscapes that
trained no member, and ships where its gate passes and it is faster, the fastest first. bf16 is tried
where the CPU computes in it; INT8 takes minutes and was refused on every trained model so far, so it is
tried by name only. The model folder is replaced as a whole. IR is read by the OpenVINO version that
wrote it; another one falls back on the ONNX file.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":  # in place of this folder, whose rooms have names of packages
    sys.path[0:1] = [str(ROOT), str(ROOT / "submission")]

from birdkit.commands import command_parser
from birdkit.errors import run_command
from birdkit.log import LOG
from birdkit.scoring.ensemble import Spec
from export.benchmark import machine
from export.folder import model_card, model_folder
from export.gates import lower_precisions, model_files, parity, precision, selection
from export.models import onnx, openvino


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument(
        "model_dir", type=Path, nargs="?", default=model_folder.DEFAULT, help="what to_onnx.py wrote"
    )
    parser.add_argument("--data", type=Path, help="data folder: real audio for the gates")
    parser.add_argument(
        "--precision",
        default="bf16",
        help="lower ones to try where --data has labels: bf16, int8, by commas; f32: none",
    )
    return parser.parse_args(argv)


def convert(folder: Path, recordings: Sequence[Path]) -> None:
    """IR beside every ONNX file of the folder; raises `UserError` where the gate refuses one."""
    report = model_folder.read_parity(folder)
    for stem in Spec.load(folder).stems:
        compared = model_files.convert_stem(folder, stem, recordings)
        for member, comparison in compared.items():
            LOG.info(f"  {member:<24} {comparison}")
        report = model_folder.with_parity(report, compared)
    parity.refuse(report, "no IR written")
    model_folder.write_parity(folder, report)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    names = lower_precisions.wanted(args.precision)
    spec = Spec.load(args.model_dir)
    recordings = model_folder.gate_recordings(args.data)
    with tempfile.TemporaryDirectory(dir=args.model_dir.parent, prefix=".ir-") as scratch:
        staged = Path(scratch) / "model"
        without = shutil.ignore_patterns("*.xml", "*.bin", precision.NAME)
        shutil.copytree(args.model_dir, staged, ignore=without)
        replace(spec, precisions=()).save(staged)
        convert(staged, recordings)
        contract = openvino.common_contract(staged, spec.stems)
        trained_on = onnx.trained_on(staged, spec.stems)
        labelled = selection.labelled_set(args.data, contract, trained_on)
        lower_precisions.try_precisions(staged, args.data, labelled, names)
        model_card.write(staged, machine.describe())
        model_folder.replace(args.model_dir, staged)
    shipped = ", ".join((*Spec.load(args.model_dir).precisions, "f32"))
    LOG.info(f"{args.model_dir}: {len(spec.members)} models as OpenVINO IR; in order of use: {shipped}")
    return 0


if __name__ == "__main__":
    run_command(main)
