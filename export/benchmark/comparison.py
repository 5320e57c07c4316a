"""The inputs of one bench: the setups, the same members in torch, and minutes of audio."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from birdkit.contract import Contract
from birdkit.engines.precision import LOWER_PRECISIONS, lacking
from birdkit.errors import UserError
from birdkit.grid import MINUTE_S, WINDOWS_A_MINUTE
from birdkit.kaggle.mounts import soundscapes, train_soundscapes
from birdkit.scoring.ensemble import Spec
from birdkit.scoring.parts import SoundFile
from export.benchmark import baselines
from export.benchmark.baselines import ConvMel, Setup
from export.models.onnx import MADE_BY_KEY, read_metadata
from train.models import checkpoint
from train.models.checkpoint import Final
from train.synthetic.competition import write_ogg

NOISE_RATE_HZ = 32000
# Of setups that hear stretches, where the model folder says no other. A minute takes longer.
STRETCH_S = 30.0
PASSES = (0.5, 0.25)  # shifts of the two further passes that accuracy is bought with otherwise
EAGER, PUBLISHED = "(a) librosa + torch eager", "(b) Conv1d mel, OpenVINO"
THREE_PASSES = f"{PUBLISHED}, three passes"
WINDOWS, STRETCHES = "(c) ours, OpenVINO", "(c) ours, stretches, OpenVINO"
IN_TURN = "(c) ours, windows and stretches in turn, OpenVINO"


@dataclass(frozen=True)
class Comparison:
    """Setups of the same members, the members as torch has them, and the precisions a gate passed."""

    finals: dict[str, Final]  # that hear a window at a time
    setups: list[Setup]
    gated: frozenset[str] = frozenset()


def of_write_up(scratch: Path) -> Comparison:
    """The two models of the 6th place of BirdCLEF+ 2025, with random weights, in all precisions."""
    finals, ours = baselines.write_up(), scratch / "ours"
    baselines.export_fused(finals, ours)
    baselines.quantise(ours)
    return Comparison(finals, _setups(finals, ours, {}, LOWER_PRECISIONS, scratch))


def of_model_dir(model_dir: Path, runs: Path, scratch: Path) -> Comparison:
    """A model folder in the precisions that it ships, beside the same weights in torch."""
    finals, stretches_s = find_finals(model_dir, runs)
    lower = Spec.load(model_dir).precisions
    setups = _setups(finals, model_dir, stretches_s, lower, scratch)
    return Comparison(finals, setups, frozenset(lower))


def _setups(
    finals: Mapping[str, Final],
    shipped: Path,
    stretches_s: Mapping[str, float],
    lower: Sequence[str],
    scratch: Path,
) -> list[Setup]:
    """The baselines, and ours of each kind; `shipped` is one of them.

    Parameters
    ----------
    stretches_s : member → seconds that it hears at once in `shipped`; windows where it is not there
    """
    baselines.save_checkpoints(finals, scratch / "torch")
    conv1d = scratch / "conv1d"
    baselines.export_fused(finals, conv1d, ConvMel)
    lengths = {stretches_s.get(name, 0.0) for name in finals}
    name = IN_TURN if len(lengths) > 1 else STRETCHES if max(lengths) else WINDOWS
    longer_s = max(lengths) or STRETCH_S
    kinds: dict[str, tuple[float, ...]] = {WINDOWS: (0.0,), STRETCHES: (longer_s,)}
    kinds |= {IN_TURN: (0.0, longer_s)} if len(finals) > 1 else {}
    ours = {name: shipped}
    for number, (kind, in_turn) in enumerate(kinds.items()):
        if kind != name:
            ours[kind] = scratch / f"ours-{number}"
            heard = zip(finals.items(), cycle(in_turn), strict=False)
            baselines.export_fused({n: f.over_stretches(s) for (n, f), s in heard}, ours[kind])
    return [
        Setup(EAGER, scratch / "torch", "torch"),
        Setup("(b) Conv1d mel, ONNX Runtime", conv1d, "onnxruntime"),
        Setup(PUBLISHED, conv1d, "openvino"),
        Setup(THREE_PASSES, conv1d, "openvino", shifts=PASSES),
        Setup("(c) ours, ONNX Runtime", ours[WINDOWS], "onnxruntime"),
        *(Setup(kind, ours[kind], "openvino") for kind in kinds),
        *(Setup(name, shipped, "openvino", each) for each in lower if not lacking(each)),
    ]


def find_finals(model_dir: Path, runs: Path) -> tuple[dict[str, Final], dict[str, float]]:
    """The checkpoints that a model folder was exported from, by their sha256.

    They hear windows; the second value has the seconds that each hears at once in the folder.
    """
    wanted: dict[str, str] = {}
    contracts: dict[str, Contract] = {}
    spec = Spec.load(model_dir)
    if spec.soft:
        raise UserError(
            f"{model_dir}: {spec.soft[0]} comes from outside and has no checkpoint to measure torch "
            "with; measure the folder as it was before export/add_member.py"
        )
    for stem in spec.stems:
        path = model_dir / f"{stem}.onnx"
        contract = Contract.from_metadata(read_metadata(path), str(path))
        for member, origin in made_by(path).items():
            wanted[member] = origin["checkpoint_sha256"]
            contracts[member] = contract.alone(member)
    if len({contract.windowed for contract in contracts.values()}) > 1:
        raise UserError(f"{model_dir}: its members hear other chunks; measure them one by one")
    there = {checkpoint.sha256(path): path for path in runs.rglob(checkpoint.FINAL_NAME)}
    absent = [member for member, digest in wanted.items() if digest not in there]
    if absent:
        raise UserError(
            f"{runs}: holds no checkpoint that {model_dir}'s {absent[0]} was exported from, and torch "
            "is measured with it; give its folder with --runs DIR"
        )
    finals = {member: Final.load(there[digest]) for member, digest in wanted.items()}
    cut = {member: final.only(contract.classes) for member, final in finals.items()}
    return cut, {name: 0.0 if c.by_window else c.stretch_s for name, c in contracts.items()}


def made_by(path: Path) -> dict[str, dict[str, Any]]:
    """Member → what made it, from a model file's metadata."""
    return dict(json.loads(read_metadata(path)[MADE_BY_KEY]))


def minutes(data: Path | None, count: int, scratch: Path) -> list[SoundFile]:
    """Minutes of audio: soundscapes of a competition (taken again where too few), or noise."""
    if data is None:
        rng = np.random.default_rng(0)
        scratch.mkdir()
        for index in range(count):
            noise = 0.1 * rng.standard_normal(round(MINUTE_S * NOISE_RATE_HZ))
            write_ogg(scratch / f"{index}.ogg", noise, NOISE_RATE_HZ)
    paths = soundscapes(scratch) if data is None else minutes_of(data)
    return [SoundFile(paths[index % len(paths)], WINDOWS_A_MINUTE) for index in range(count)]


def minutes_of(data: Path) -> list[Path]:
    """The soundscapes of a data folder. Raises `UserError` where it has none."""
    folder = train_soundscapes(data)
    paths = soundscapes(folder) if folder.is_dir() else []
    if not paths:
        raise UserError(
            f"{folder}: no soundscapes, and minutes of them are measured; leave --data out for noise"
        )
    return paths
