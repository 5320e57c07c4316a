"""Add OpenVINO IR to a model folder: the same models, f32, faster to load.

    python export/to_openvino.py [MODEL_DIR] [--data DIR]

Each IR must answer as its ONNX file does in ONNX Runtime, which was held against torch when it was
exported. IR that differs is not written. It is read by the OpenVINO version that wrote it; another
one falls back on the ONNX file.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "submission")]

import openvino

from birdkit.engine import OnnxRuntimeEngine, OpenVinoEngine, usable_cores
from birdkit.ensemble import Spec
from birdkit.errors import UserError, run_command
from export import model_folder, parity
from export.parity import Parity


def convert(source: Path, target: Path, recordings: Sequence[Path]) -> Parity:
    """ONNX → IR without compression to fp16 (the default), and its parity."""
    openvino.save_model(openvino.Core().read_model(source), target, compress_to_fp16=False)
    reference_engine = OnnxRuntimeEngine(source, usable_cores())
    inputs = parity.probe_inputs(reference_engine.contract, recordings)
    reference = parity.answers(reference_engine, inputs)
    candidate = parity.answers(OpenVinoEngine(target, usable_cores()), inputs)
    return parity.compare(reference, candidate, "openvino-ir")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Add OpenVINO IR to a model folder.")
    parser.add_argument("model_dir", type=Path, nargs="?", default=model_folder.DEFAULT)
    parser.add_argument("--data", type=Path, help="competition folder: real audio for the gate")
    args = parser.parse_args(argv)
    recordings = model_folder.gate_recordings(args.data)
    names = list(Spec.load(args.model_dir).members)
    report = model_folder.read_parity(args.model_dir)
    with tempfile.TemporaryDirectory(dir=args.model_dir, prefix=".ir-") as scratch:
        for name in names:
            source = args.model_dir / f"{name}.onnx"
            if not source.is_file():
                raise UserError(f"{source}: not found; run export/to_onnx.py again")
            found = convert(source, Path(scratch) / f"{name}.xml", recordings)
            print(f"{name}: {found}")
            if found.faults():
                raise UserError(f"{name}: parity refused, no IR written: {'; '.join(found.faults())}")
            kept = [each for each in report.get(name, []) if each.engine != found.engine]
            report[name] = [*kept, found]
        for path in sorted(Path(scratch).iterdir()):  # .bin before .xml, which refers to it
            os.replace(path, args.model_dir / path.name)
    model_folder.write_parity(args.model_dir, report)
    print(f"{args.model_dir}: {len(names)} models as OpenVINO IR, f32")
    return 0


if __name__ == "__main__":
    run_command(main)
