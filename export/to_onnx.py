"""Turn a run's final checkpoints into self-describing ONNX files, gated by parity with torch.

    python export/to_onnx.py [RUN_DIR] [--data DIR] [--out submission/model] [--fuse] [--fit]

RUN_DIR is the latest of `runs/` where none is given; its last round is exported, or the one whose
folder (RUN_DIR/round0) is named. With --data the gate hears real soundscapes too, and the ensemble is
scored on the labelled ones. --fuse makes one graph of the members that share a front end, --fit
chooses their weights. The model folder is replaced as a whole, once every checkpoint has passed.
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
if __name__ == "__main__":  # in place of this folder, whose rooms have names of packages
    sys.path[0:1] = [str(ROOT), str(ROOT / "submission")]

import numpy as np
import onnx
import torch

from birdkit.contract import INPUT_NAME, LOG_MEL_NAME, Contract
from birdkit.engines import golden
from birdkit.engines.engine import OnnxRuntimeEngine, OpenVinoEngine
from birdkit.engines.layout import one_stream, usable_cores
from birdkit.errors import UserError, run_command
from birdkit.kaggle import table
from birdkit.scoring.ensemble import Spec, common_contract
from export.folder import model_card, model_folder
from export.gates import parity, selection
from export.gates.parity import Parity
from export.models.fuse import Fused, contract_of, group
from train.models import checkpoint
from train.models.checkpoint import Final
from train.models.sed import Predictor
from train.rounds import plan
from train.scoring.evaluate import TorchEngine

OPSET = 18
RUNS = ROOT / "runs"
ENGINES = (OnnxRuntimeEngine, OpenVinoEngine)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Export final checkpoints to ONNX, gated by parity.")
    parser.add_argument("run_dir", type=Path, nargs="?", help="default: the latest of runs/")
    parser.add_argument("--data", type=Path, help="competition folder: real audio for the gate")
    parser.add_argument("--out", type=Path, default=model_folder.DEFAULT)
    parser.add_argument("--fuse", action="store_true", help="one graph for a shared front end")
    parser.add_argument(
        "--fit", action="store_true", help="choose weights and averaging on labelled soundscapes"
    )
    return parser.parse_args(argv)


def find_run(run_dir: Path | None) -> Path:
    """The folder given, or the latest finished run of runs/."""
    if run_dir is not None:
        return run_dir
    runs = sorted(RUNS.glob(f"*/{checkpoint.RECIPE_NAME}"), key=lambda path: path.stat().st_mtime)
    if not runs:
        raise UserError(f"{RUNS}: no finished run; train one with train/run.py")
    print(f"exporting the latest run: {runs[-1].parent}")
    return runs[-1].parent


def load_members(run_dir: Path) -> tuple[dict[str, Final], dict[str, Path]]:
    """The final checkpoints of a run's last round, or of the round whose folder is given; their files.

    By the recipe and not by what lies there: a member that was taken out of the recipe must not stay
    in the ensemble, and one of other settings must not pass for a new one.
    """
    finals, sources = {}, {}
    for member in plan.finished(run_dir).members:
        sources[member.name] = member.final
        finals[member.name] = Final.load(member.final)
        if finals[member.name].job != member.job:
            raise UserError(
                f"{member.final}: made by another job than the run's {checkpoint.RECIPE_NAME}; "
                "run train/run.py to its end, then export"
            )
    return finals, sources


def export_onnx(
    predictors: Sequence[Predictor], contract: Contract, path: Path, metadata: Mapping[str, str]
) -> None:
    """Write one file of one or more members: dynamic batch, weights inside, facts in its metadata."""
    # A batch of one would be taken for a constant.
    example = torch.zeros(2, contract.chunk_samples)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch's own exporter
        torch.onnx.export(
            Fused(predictors).eval(),
            (example,),
            path,
            input_names=[INPUT_NAME],
            output_names=[LOG_MEL_NAME, *contract.tensors],
            dynamic_shapes={INPUT_NAME: {0: torch.export.Dim("batch", min=1)}},
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    model = onnx.load(path)
    refuse_training_mode(model, path.name)
    # It was an output to be named; as one it would be copied with every call.
    assert model.graph.output[0].name == LOG_MEL_NAME
    del model.graph.output[0]
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.save(model, path)


def refuse_training_mode(model: onnx.ModelProto, name: str) -> None:
    """BatchNorm that still learns: OpenVINO would read it without a word."""
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "training_mode" and attribute.i == 1:
                raise UserError(f"{name}: {node.op_type} is in training mode; export in eval mode")


def facts_of(
    finals: Mapping[str, Final], sources: Mapping[str, Path], members: Sequence[str]
) -> dict[str, str]:
    """What travels inside the model file: its contract, and what made each member."""
    made_by = {
        name: {
            "job": finals[name].job.table(),
            "commit": finals[name].commit,
            "checkpoint_sha256": checkpoint.sha256(sources[name]),
            "weights_from": finals[name].weights_from,
        }
        for name in members
    }
    contract = contract_of(finals, members)
    return {**contract.to_metadata(), model_folder.MADE_BY_KEY: json.dumps(made_by)}


def gate(
    finals: Mapping[str, Final], path: Path, recordings: Sequence[Path]
) -> dict[str, list[Parity]]:
    """Compare each member of an exported file with its checkpoint, in every engine."""
    inputs = parity.probe_inputs(next(iter(finals.values())).contract, recordings)
    found: dict[str, list[Parity]] = {name: [] for name in finals}
    candidates = {each.name: each(path, one_stream(usable_cores())) for each in ENGINES}
    answered = {name: parity.answers(engine, inputs) for name, engine in candidates.items()}
    for member, final in finals.items():
        reference = parity.answers(TorchEngine(final.predictor(), torch.device("cpu")), inputs)
        for name, engine in candidates.items():
            of_member = engine.contract.of_member(answered[name], member)
            found[member].append(parity.compare(reference, of_member, name))
    return found


def refuse_other_classes(data: Path | None, contract: Contract) -> None:
    """Raise `UserError` where the competition asks for other classes than the models know."""
    if data is not None:
        _, columns = table.read_sample(data / "sample_submission.csv")
        if differences := table.class_differences(contract.classes, columns):
            raise UserError(table.refusal(differences))


def untested_spec(
    finals: Mapping[str, Final], stems: Mapping[str, Sequence[str]]
) -> tuple[Spec, list[str]]:
    """Equal weights, and the output that ranked better in training's own validation.

    The write-up does not say which one its submission used; at the stage it reports, clipwise ranked
    better, so that is the choice where there were no labelled soundscapes.
    """
    figures = [final.metrics.get("soundscapes", {}) for final in finals.values()]
    output, why = "clipwise", "output clipwise: there are no labelled soundscapes to choose on"
    if all(figures):
        mean = {output: float(np.mean([f[output] for f in figures])) for output in figures[0]}
        output = max(mean, key=lambda output: mean[output])
        listed = ", ".join(f"{output} {auc:.4f}" for output, auc in mean.items())
        why = f"output {output}: mean macro-AUC of the members on labelled soundscapes {listed}"
    smoothing = next(iter(finals.values())).job.postprocess.smoothing
    spec = Spec(
        dict.fromkeys(finals, 1.0),
        output,
        smoothing,
        files={stem: list(of) for stem, of in stems.items()},
    )
    return spec, [why]


def export_members(
    finals: Mapping[str, Final],
    sources: Mapping[str, Path],
    stems: Mapping[str, Sequence[str]],
    folder: Path,
    recordings: Sequence[Path],
) -> dict[str, list[Parity]]:
    """Write every file into `folder`; raises `UserError` where the gate refuses a member."""
    report: dict[str, list[Parity]] = {}
    for stem, members in stems.items():
        print(f"{stem}: exporting {' + '.join(members)}", flush=True)
        path = folder / f"{stem}.onnx"
        predictors = [finals[name].predictor() for name in members]
        facts = facts_of(finals, sources, members)
        export_onnx(predictors, contract_of(finals, members), path, facts)
        golden.record(folder, stem, "f32", OnnxRuntimeEngine(path, one_stream(1)))
        report |= gate({name: finals[name] for name in members}, path, recordings)
        for name in members:
            for each in report[name]:
                print(f"  {name:<24} {each}", flush=True)
    refused = parity.refusals(report)
    if refused:
        raise UserError(f"parity refused, nothing written: {'; '.join(refused)}")
    return report


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    model_folder.refuse_foreign(args.out)
    finals, sources = load_members(find_run(args.run_dir))
    recordings = model_folder.gate_recordings(args.data)
    contract = common_contract({name: final.contract for name, final in finals.items()})
    refuse_other_classes(args.data, contract)
    labelled = selection.labelled_set(args.data, contract)
    if args.fit and labelled is None:
        raise UserError("--fit needs labelled soundscapes: --data with train_soundscapes_labels.csv")
    stems = group(finals, args.fuse)
    spec, why = untested_spec(finals, stems)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.out.parent, prefix=".export-") as scratch:
        staged = Path(scratch) / "model"
        staged.mkdir()
        report = export_members(finals, sources, stems, staged, recordings)
        model_folder.write_parity(staged, report)
        spec.save(staged)
        if labelled is not None:
            spec, judgement = selection.judge(staged, args.data, labelled, args.fit)
            spec.save(staged)
            judgement.save(staged)
            why = judgement.chosen
        model_card.write(staged)
        model_folder.replace(args.out, staged)
    for line in why:
        print(line)
    print(f"{args.out}: {len(finals)} models; next: python export/to_openvino.py {args.out}")
    return 0


if __name__ == "__main__":
    run_command(main)
