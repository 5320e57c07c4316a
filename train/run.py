"""Train a recipe's models on a competition folder.

    python train/run.py [--recipe NAME_OR_FILE] [--data DIR] [--out DIR] [--set key=value …]

Without arguments: the demo recipe on the demo competition, which is synthesised first. A run that was
interrupted goes on where it stopped; one that is done is not done again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "submission")]

import torch

from birdkit.contract import Contract
from birdkit.ensemble import Spec
from birdkit.errors import UserError, run_command
from train import checkpoint, pretrained, recipe, report
from train.checkpoint import Final, MadeBy
from train.competition import Competition, read_competition
from train.data import Batches, crop_notes, split
from train.demo import make_competition
from train.evaluate import (
    TorchEngine,
    TruthSet,
    evaluate,
    held_out_set,
    soundscape_set,
    validation_set,
)
from train.fit import Metrics, Trainer, run_fit, steps_per_epoch
from train.model import Predictor
from train.recipe import Recipe

DEMO_DATA = ROOT / "build" / "demo"
RUNS = ROOT / "runs"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a recipe's models on a competition folder.")
    parser.add_argument("--recipe", default="demo", help="a name in train/recipes, or a TOML file")
    parser.add_argument("--data", type=Path, help="competition folder (default: the demo's)")
    parser.add_argument("--out", type=Path, help="default: runs/<recipe name>")
    parser.add_argument("--validation", type=Path, help="soundscapes/, truth.csv, mask.csv to report")
    parser.add_argument("--set", action="append", default=[], metavar="key=value", dest="overrides")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args(argv)


def train_member(competition: Competition, config: Recipe, folder: Path, device: torch.device) -> Final:
    """Train one model, or load it where it is done. Writes `state.pt`, `final.pt`, `curves.png`."""
    made_by = MadeBy(recipe.to_json(config), checkpoint.data_fingerprint(competition))
    final_path = folder / checkpoint.FINAL_NAME
    done = _load_if_done(final_path, made_by)
    if done is not None:
        return done
    folder.mkdir(parents=True, exist_ok=True)
    commit = checkpoint.commit()  # of the code that starts, not of edits made while it trains

    contract = Contract(
        config.frontend.sample_rate, config.data.chunk_s, config.data.window_s, competition.classes
    )
    train, held_out, how = split(competition.recordings, config.data, config.fit.seed)
    for line in (how, *crop_notes(train, config.data)):
        print(line)
    torch.manual_seed(config.fit.seed)
    predictor = Predictor(config.frontend, config.models[0], contract)
    weights_from = pretrained.load_into(predictor.network.encoder, config.models[0])
    print(weights_from)
    total = config.fit.epochs * steps_per_epoch(config.fit, len(train))
    trainer = Trainer(predictor, config, total, device)
    print(f"{total} steps of {config.fit.batch} on {device}, {trainer.precision}", flush=True)
    sets = [held_out_set(held_out, contract), soundscape_set(competition.soundscapes, contract)]
    known = [truth_set for truth_set in sets if truth_set is not None]

    def validate(averaged: Predictor) -> Metrics:
        return figures({"model": averaged}, known, config, device)

    batches = Batches(train, contract, config)
    progress = run_fit(trainer, batches, validate, folder / checkpoint.STATE_NAME, made_by)
    report.draw_curves(progress, folder / "curves.png", config.models[0].encoder)
    (folder / "history.json").write_text(json.dumps(asdict(progress)) + "\n")
    final = Final(
        contract,
        made_by,
        weights_from,
        commit,
        metrics=progress.epochs[-1]["metrics"],
        state={key: value.cpu() for key, value in trainer.averaged().state_dict().items()},
    )
    final.save(final_path)
    return final


def _load_if_done(final_path: Path, made_by: MadeBy) -> Final | None:
    if not final_path.is_file():
        return None
    final = Final.load(final_path)
    changed = made_by.differences(final.made_by)
    if changed:
        print(f"{final_path}: made by another {changed}; training it again")
        return None
    print(f"{final_path}: done already")
    return final


def figures(
    predictors: dict[str, Predictor], sets: Sequence[TruthSet], config: Recipe, device: torch.device
) -> Metrics:
    """Macro-AUC of the models' mean on each set, for each output."""
    spec = Spec(dict.fromkeys(predictors, 1.0), smoothing=config.postprocess.smoothing)
    engines = {name: TorchEngine(p.to(device), device) for name, p in predictors.items()}
    found = {s.name: evaluate(engines, spec, s) for s in sets}
    return {
        name: {output: auc.macro for output, auc in by_output.items()}
        for name, by_output in found.items()
    }


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    config = recipe.load(args.recipe, args.overrides)
    try:
        device = torch.device(args.device)
    except RuntimeError as error:
        raise UserError(f"--device {args.device} is unknown; choose cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device {args.device}: this torch sees no CUDA device; see README, Install")
    # The log-mel must not be rounded to TF32 on the way.
    torch.set_float32_matmul_precision("highest")
    data = args.data or make_competition(DEMO_DATA)
    out = args.out or RUNS / config.name
    competition = read_competition(data, skip_bad=config.data.skip_bad)
    print(
        f"{data}: {len(competition.recordings)} recordings of {len(competition.classes)} classes, "
        f"{len(competition.soundscapes)} labelled soundscapes"
    )
    for line in competition.left_out:
        print(f"left out: {line}")

    finals: dict[str, Final] = {}
    for name, model in zip(recipe.member_names(config), config.models, strict=True):
        print(f"\n{name}: {model.encoder}")
        finals[name] = train_member(competition, recipe.only_model(config, model), out / name, device)
    (out / checkpoint.RECIPE_NAME).write_text(recipe.to_json(config) + "\n")
    _report(finals, config, args.validation, device)
    print(f"\n{out}: {len(finals)} final checkpoints; next: python export/to_onnx.py {out}")
    return 0


def _report(
    finals: dict[str, Final], config: Recipe, validation: Path | None, device: torch.device
) -> None:
    for name, final in finals.items():
        for data_set, by_output in final.metrics.items():
            listed = ", ".join(f"{output} {auc:.4f}" for output, auc in by_output.items())
            print(f"{name} on {data_set}: {listed}")
    if validation is None:
        return
    contract = next(iter(finals.values())).contract
    truth_set = validation_set(validation, contract)
    predictors = {name: final.predictor() for name, final in finals.items()}
    for output, auc in figures(predictors, [truth_set], config, device)["validation"].items():
        print(f"all models, {output}, on {validation}: masked macro-AUC {auc:.4f}")


if __name__ == "__main__":
    run_command(main)
