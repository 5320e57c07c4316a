"""Add OpenVINO IR to a model folder: the same models in f32, and the lower precisions that pass.

    python export/to_openvino.py [MODEL_DIR] [--data DIR] [--precision bf16,int8]

Each IR must answer as its ONNX file does in ONNX Runtime, which was held against torch when it was
exported. With --data the lower precisions are tried: each is judged on the labelled soundscapes, and
ships where its gate passes and it is faster, the fastest first. fp16 halves the file and runs as f32
does, so it is tried by name only. The model folder is replaced as a whole. IR is read by the OpenVINO
version that wrote it; another one falls back on the ONNX file.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":  # in place of this folder, whose rooms have names of packages
    sys.path[0:1] = [str(ROOT), str(ROOT / "submission")]

import numpy as np

from birdkit import audio
from birdkit.contract import Contract
from birdkit.engines import golden
from birdkit.engines.engine import OnnxRuntimeEngine, OpenVinoEngine, batches
from birdkit.engines.ladder import open_model
from birdkit.engines.layout import one_stream, usable_cores
from birdkit.engines.openvino_graphs import contract_of, import_openvino
from birdkit.engines.precision import LOWER_PRECISIONS, lacking
from birdkit.errors import UserError, run_command
from birdkit.grid import WINDOWS_A_MINUTE
from birdkit.kaggle.mounts import soundscapes
from birdkit.scoring import ensemble
from birdkit.scoring.calibration import calibrate, candidates
from birdkit.scoring.ensemble import Spec, average, common_contract, probabilities
from export.folder import model_card, model_folder
from export.gates import parity, precision, selection
from export.gates.parity import Parity
from export.models import quantize
from train.scoring.auc import macro_auc
from train.scoring.evaluate import TruthSet

openvino = import_openvino()


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Add OpenVINO IR to a model folder.")
    parser.add_argument("model_dir", type=Path, nargs="?", default=model_folder.DEFAULT)
    parser.add_argument("--data", type=Path, help="competition folder: real audio for the gates")
    parser.add_argument(
        "--precision",
        default="bf16,int8",
        help="lower ones to try where --data has labels: bf16, int8, fp16, by commas; f32: none",
    )
    return parser.parse_args(argv)


def wanted_precisions(text: str) -> list[str]:
    """The lower precisions of the command line. Raises `UserError` naming an unknown one."""
    names = [name for name in text.split(",") if name not in ("", "f32")]
    for name in names:
        if name not in LOWER_PRECISIONS:
            known = ", ".join(("f32", *LOWER_PRECISIONS))
            raise UserError(f"--precision {name} is unknown; choose from {known}")
    return names


def convert(source: Path, target: Path, recordings: Sequence[Path]) -> dict[str, Parity]:
    """ONNX → IR without compression to fp16 (the default), and each member's parity."""
    openvino.save_model(openvino.Core().read_model(source), target, compress_to_fp16=False)
    layout = one_stream(usable_cores())
    original, converted = OnnxRuntimeEngine(source, layout), OpenVinoEngine(target, layout)
    contract = original.contract
    inputs = parity.probe_inputs(contract, recordings)
    reference, candidate = parity.answers(original, inputs), parity.answers(converted, inputs)
    return {
        member: parity.compare(
            contract.of_member(reference, member), contract.of_member(candidate, member), "openvino-ir"
        )
        for member in contract.members or (source.stem,)
    }


def convert_all(folder: Path, recordings: Sequence[Path]) -> None:
    """IR beside every ONNX file of the folder; raises `UserError` where the gate refuses one."""
    report = model_folder.read_parity(folder)
    for stem in Spec.load(folder).stems:
        source = folder / f"{stem}.onnx"
        if not source.is_file():
            raise UserError(f"{source}: not found; run export/to_onnx.py again")
        found = convert(source, folder / f"{stem}.xml", recordings)
        for member, each in found.items():
            print(f"  {member:<24} {each}", flush=True)
            kept = [old for old in report.get(member, []) if old.engine != each.engine]
            report[member] = [*kept, each]
    if refused := parity.refusals(report):
        raise UserError(f"parity refused, no IR written: {'; '.join(refused)}")
    model_folder.write_parity(folder, report)


class LowerPrecisions:
    """Makes each lower precision of a model folder, and judges it against f32."""

    def __init__(self, folder: Path, data: Path, labelled: TruthSet) -> None:
        self.folder, self.data, self.labelled = folder, data, labelled
        self.spec = replace(Spec.load(folder), precisions=())
        in_f32 = calibrate(
            lambda layout: ensemble.load(folder, layout, "openvino", ()), candidates(usable_cores())
        )
        self.layout = in_f32.layout
        print(f"f32: {in_f32}", flush=True)
        self.f32 = precision.table(folder, (), self.layout, labelled)

    def judge(self, name: str) -> precision.Verdict:
        """Figures of one precision; its files stay in the folder only where it is accepted."""
        make: dict[str, Callable[[Any, Contract], Any]] = {
            "fp16": lambda model, contract: quantize.to_fp16(model),
            "int8": self._int8,
        }
        verdict = self._try(name, make.get(name))
        # The mode mends a loss of macro-AUC, for minutes, and nothing else that is refused here.
        if name == "int8" and verdict.loss > precision.MAX_LOSS:
            print(f"{verdict}; trying accuracy-aware quantisation", flush=True)
            verdict = self._try(name, self._int8_accuracy_aware)
        for stem in self.spec.stems:
            if verdict.faults():
                for path in self.folder.glob(f"{stem}.{name}.*"):
                    path.unlink()
            else:
                opened = open_model(self.folder / stem, one_stream(1), "openvino", [name])
                golden.record(self.folder, stem, name, opened.engine)
        return verdict

    def _try(self, name: str, make: Callable[[Any, Contract], Any] | None) -> precision.Verdict:
        if make is not None:
            for stem in self.spec.stems:
                model = openvino.Core().read_model(self.folder / f"{stem}.xml")
                contract = contract_of(model, stem)
                target = self.folder / f"{stem}.{name}.xml"
                openvino.save_model(make(model, contract), target, compress_to_fp16=False)
        lower = precision.table(self.folder, (name,), self.layout, self.labelled)
        return precision.compare(name, self.f32, lower, self.labelled)

    def _int8(self, model: Any, contract: Contract) -> Any:
        return quantize.to_int8(model, self._calibration(model, contract))

    def _int8_accuracy_aware(self, model: Any, contract: Contract) -> Any:
        judged_on = np.concatenate(
            [self._pictures(model, contract, file.path, file.n_windows) for file in self.labelled.files]
        )
        calibration = self._calibration(model, contract)
        validate = self._validate(contract)
        return quantize.to_int8_accuracy_aware(model, calibration, judged_on, validate)

    def _validate(self, contract: Contract) -> quantize.Validate:
        """Macro-AUC of a file's members alone, without smoothing."""
        members = contract.members or ("",)

        def validate(compiled: Any, pictures: quantize.Pictures) -> float:
            answers: dict[str, list[np.ndarray]] = {name: [] for name in contract.tensors}
            for picture in batches(pictures, 1):
                found = compiled(picture)
                for name in answers:
                    answers[name].append(np.array(found[name]))
            whole = {name: np.concatenate(of) for name, of in answers.items()}
            scores = np.stack(
                [probabilities(contract.of_member(whole, m), self.spec.output) for m in members]
            )
            rows = average(scores, [1.0] * len(members), "probability")
            return macro_auc(self.labelled.truth, rows).macro

        return validate

    def _calibration(self, model: Any, contract: Contract) -> quantize.Pictures:
        """Windows of soundscapes, those without labels first: the gate judges on the others."""
        judged = {file.path for file in self.labelled.files}
        every = soundscapes(self.data / "train_soundscapes")
        chosen = sorted(every, key=lambda path: path in judged)
        n_windows = WINDOWS_A_MINUTE
        enough = chosen[: -(-quantize.CALIBRATION_WINDOWS // n_windows)]
        # In one call, since each compiles the front end.
        waveforms = [audio.read(path, contract.sample_rate) for path in enough]
        return quantize.pictures(model, contract, waveforms, n_windows)

    def _pictures(
        self, model: Any, contract: Contract, path: Path, n_windows: int
    ) -> quantize.Pictures:
        waveform = audio.read(path, contract.sample_rate)
        return quantize.pictures(model, contract, [waveform], n_windows)


def try_precisions(folder: Path, data: Path, labelled: TruthSet, names: Sequence[str]) -> None:
    """Judge each precision, keep the accepted ones in the spec, fastest first, and the figures."""
    lower = LowerPrecisions(folder, data, labelled)
    verdicts: list[precision.Verdict] = []
    not_tried = {name: lacking(name) for name in names if lacking(name)}
    for name in names:
        if name in not_tried:
            print(f"{name}: not tried, {not_tried[name]}")
            continue
        verdicts.append(lower.judge(name))
        print(verdicts[-1], flush=True)
    replace(lower.spec, precisions=precision.order_of_use(verdicts)).save(folder)
    precision.save(folder, verdicts, not_tried)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    names = wanted_precisions(args.precision)
    spec = Spec.load(args.model_dir)
    recordings = model_folder.gate_recordings(args.data)
    with tempfile.TemporaryDirectory(dir=args.model_dir.parent, prefix=".ir-") as scratch:
        staged = Path(scratch) / "model"
        without = shutil.ignore_patterns("*.xml", "*.bin", precision.NAME)
        shutil.copytree(args.model_dir, staged, ignore=without)
        replace(spec, precisions=()).save(staged)
        convert_all(staged, recordings)
        graphs = {stem: openvino.Core().read_model(staged / f"{stem}.xml") for stem in spec.stems}
        contract = common_contract({stem: contract_of(graph, stem) for stem, graph in graphs.items()})
        labelled = selection.labelled_set(args.data, contract)
        if names and labelled is not None:
            try_precisions(staged, args.data, labelled, names)
        model_card.write(staged)
        model_folder.replace(args.model_dir, staged)
    shipped = ", ".join((*Spec.load(args.model_dir).precisions, "f32"))
    print(f"{args.model_dir}: {len(spec.members)} models as OpenVINO IR; in order of use: {shipped}")
    return 0


if __name__ == "__main__":
    run_command(main)
