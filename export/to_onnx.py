"""Turn a run's final checkpoints into self-describing ONNX files, gated by parity with torch.

    python export/to_onnx.py [RUN_DIR] [--data DIR] [--out submission/model]

RUN_DIR is the latest of `runs/` where none is given. With --data the gate hears real soundscapes too.
The model folder is replaced as a whole, once every checkpoint has passed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "submission")]

import numpy as np
import onnx
import torch

from birdkit import table
from birdkit.contract import INPUT_NAME
from birdkit.engine import OnnxRuntimeEngine, OpenVinoEngine, usable_cores
from birdkit.ensemble import Spec, common_contract
from birdkit.errors import UserError, run_command
from export import model_folder, parity
from export.parity import Parity
from train import checkpoint, recipe
from train.checkpoint import Final
from train.evaluate import TorchEngine

OPSET = 18
RUNS = ROOT / "runs"
ENGINES = (OnnxRuntimeEngine, OpenVinoEngine)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Export final checkpoints to ONNX, gated by parity.")
    parser.add_argument("run_dir", type=Path, nargs="?", help="default: the latest of runs/")
    parser.add_argument("--data", type=Path, help="competition folder: real audio for the gate")
    parser.add_argument("--out", type=Path, default=model_folder.DEFAULT)
    return parser.parse_args(argv)


def find_run(run_dir: Path | None) -> Path:
    """The folder of a finished run: the one given, or the latest of runs/."""
    if run_dir is None:
        runs = sorted(RUNS.glob(f"*/{checkpoint.RECIPE_NAME}"), key=lambda path: path.stat().st_mtime)
        if not runs:
            raise UserError(f"{RUNS}: no finished run; train one with train/run.py")
        run_dir = runs[-1].parent
        print(f"exporting the latest run: {run_dir}")
    if not (run_dir / checkpoint.RECIPE_NAME).is_file():
        raise UserError(
            f"{run_dir}: no {checkpoint.RECIPE_NAME}, so no finished run; finish it with "
            "train/run.py, or give another RUN_DIR"
        )
    return run_dir


def load_members(run_dir: Path) -> tuple[dict[str, Final], dict[str, Path]]:
    """The final checkpoints of the run's recipe, and their files.

    By the recipe and not by what lies there: a member that was taken out of the recipe must not stay
    in the ensemble, and one of other settings must not pass for a new one.
    """
    text = (run_dir / checkpoint.RECIPE_NAME).read_text()
    config = recipe.from_dict(json.loads(text), str(run_dir / checkpoint.RECIPE_NAME))
    finals, sources = {}, {}
    for name, model in zip(recipe.member_names(config), config.models, strict=True):
        sources[name] = run_dir / name / checkpoint.FINAL_NAME
        finals[name] = Final.load(sources[name])
        if finals[name].made_by.recipe != recipe.to_json(recipe.only_model(config, model)):
            raise UserError(
                f"{sources[name]}: made by another recipe than {run_dir / checkpoint.RECIPE_NAME}; "
                "run train/run.py to its end, then export"
            )
    return finals, sources


def export_onnx(final: Final, path: Path, metadata: Mapping[str, str]) -> None:
    """Write one model: dynamic batch, weights inside, facts in its metadata."""
    predictor = final.predictor()
    # A batch of one would be taken for a constant.
    example = torch.zeros(2, final.contract.chunk_samples)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch's own exporter
        torch.onnx.export(
            predictor,
            (example,),
            path,
            input_names=[INPUT_NAME],
            output_names=list(final.contract.outputs),
            dynamic_shapes={INPUT_NAME: {0: torch.export.Dim("batch", min=1)}},
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    model = onnx.load(path)
    refuse_training_mode(model, path.name)
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.save(model, path)


def refuse_training_mode(model: onnx.ModelProto, name: str) -> None:
    """BatchNorm that still learns: OpenVINO would read it without a word."""
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "training_mode" and attribute.i == 1:
                raise UserError(f"{name}: {node.op_type} is in training mode; export in eval mode")


def facts_of(final: Final, source: Path) -> dict[str, str]:
    """What travels inside the model file."""
    return {
        **final.contract.to_metadata(),
        "birdkit.recipe": final.made_by.recipe,
        "birdkit.commit": final.commit,
        "birdkit.checkpoint_sha256": checkpoint.sha256(source),
        "birdkit.weights_from": final.weights_from,
    }


def gate(final: Final, path: Path, recordings: Sequence[Path]) -> list[Parity]:
    """Compare an exported file with its checkpoint in every engine."""
    inputs = parity.probe_inputs(final.contract, recordings)
    reference = parity.answers(TorchEngine(final.predictor(), torch.device("cpu")), inputs)
    found = []
    for engine in ENGINES:
        candidate = parity.answers(engine(path, usable_cores()), inputs)
        found.append(parity.compare(reference, candidate, engine.name))
    return found


def choose_output(finals: Mapping[str, Final]) -> tuple[str, str]:
    """The output that ranks labelled soundscapes better, and a line on why.

    The write-up does not say which one its submission used; at the stage it reports, clipwise ranked
    better, so that is the choice where there are no labelled soundscapes.
    """
    figures = [final.metrics.get("soundscapes", {}) for final in finals.values()]
    if not all(figures):
        return "clipwise", "output clipwise: there are no labelled soundscapes to choose on"
    mean = {output: float(np.mean([f[output] for f in figures])) for output in figures[0]}
    best = max(mean, key=lambda output: mean[output])
    listed = ", ".join(f"{output} {auc:.4f}" for output, auc in mean.items())
    return best, f"output {best}: macro-AUC on labelled soundscapes {listed}"


def export_members(
    finals: Mapping[str, Final], sources: Mapping[str, Path], folder: Path, recordings: Sequence[Path]
) -> dict[str, list[Parity]]:
    """Write every member into `folder`; raises `UserError` where the gate refuses one of them."""
    report, refused = {}, []
    for name, final in finals.items():
        print(f"{name}: exporting", flush=True)
        path = folder / f"{name}.onnx"
        export_onnx(final, path, facts_of(final, sources[name]))
        report[name] = gate(final, path, recordings)
        for each in report[name]:
            print(f"  {each}")
            refused += [f"{name} in {each.engine}: {fault}" for fault in each.faults()]
    if refused:
        raise UserError(f"parity refused, nothing written: {'; '.join(refused)}")
    return report


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    model_folder.refuse_foreign(args.out)
    finals, sources = load_members(find_run(args.run_dir))
    recordings = model_folder.gate_recordings(args.data)
    contract = common_contract({name: final.contract for name, final in finals.items()})
    if args.data is not None:
        _, columns = table.read_sample(args.data / "sample_submission.csv")
        if differences := table.class_differences(contract.classes, columns):
            raise UserError(table.refusal(differences))
    output, why = choose_output(finals)
    smoothing = next(iter(finals.values())).recipe.postprocess.smoothing
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.out.parent, prefix=".export-") as scratch:
        staged = Path(scratch) / "model"
        staged.mkdir()
        report = export_members(finals, sources, staged, recordings)
        Spec(dict.fromkeys(finals, 1.0), output, smoothing).save(staged)
        model_folder.write_parity(staged, report)
        model_folder.replace(args.out, staged)
    print(why)
    print(f"{args.out}: {len(finals)} models; next: python export/to_openvino.py {args.out}")
    return 0


if __name__ == "__main__":
    run_command(main)
