"""Speed, memory and parity, side by side in one run, on minutes of audio.

    python export/bench.py [MODEL_DIR] [--data DIR] [--json FILE] [--chart FILE.png] [--readme FILE]

Without MODEL_DIR it measures the write-up's b3 + v2_b3 with random weights: their speed is that of
trained ones, but no gate has passed their lower precisions. Every contender runs through the same
decoding and the same choice of layout; rounds take turns, so that a busy neighbour slows all alike.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":  # in place of this folder, whose rooms have names of packages
    sys.path[0:1] = [str(ROOT), str(ROOT / "submission")]

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from birdkit import audio
from birdkit.engines.layout import usable_cores
from birdkit.engines.precision import LOWER_PRECISIONS, lacking
from birdkit.errors import UserError, run_command
from birdkit.grid import WINDOWS_A_MINUTE, cut_chunks
from birdkit.kaggle.mounts import soundscapes
from birdkit.scoring.ensemble import Ensemble, Spec, probabilities
from birdkit.scoring.predict import SoundFile
from export.benchmark import baselines, machine, report
from export.benchmark.baselines import Contender, ConvMel
from export.benchmark.timing import Stopwatch, decode_ms, peak_mib, scaling, to_csv
from export.gates import precision
from train.fit.curves import put_between_marks
from train.models import checkpoint
from train.models.checkpoint import Final
from train.models.frontend import LogMel
from train.synthetic.competition import write_ogg

MINUTE_S = 60
OURS = "(c) ours, OpenVINO"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Speed, memory and parity, side by side.")
    parser.add_argument("model_dir", type=Path, nargs="?", help="default: b3 + v2_b3, random weights")
    parser.add_argument("--data", type=Path, help="competition folder (default: noise, as Ogg files)")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs", help="where its checkpoints lie")
    parser.add_argument("--files", type=int, default=8, help="minutes of audio a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write every figure here")
    parser.add_argument("--chart", type=Path, help="write a picture (PNG) here")
    parser.add_argument("--readme", type=Path, help="put the table between its marks there")
    parser.add_argument(
        "--scaling", action="store_true", help="also time 50, 200 and 700 files of ours in f32"
    )
    args = parser.parse_args(argv)
    if args.files < 1 or args.rounds < 1:
        raise UserError("--files and --rounds must be at least 1")
    return args


@dataclass(frozen=True)
class Row:
    """One contender's figures; ms are of wall time a minute of audio, medians over the rounds."""

    name: str
    precision: str
    gated: bool  # whether parity or the precision gate has passed it
    layout: str
    ms: float  # decode to probabilities
    ms_rounds: list[float]
    decode_ms: float
    front_end_ms: float
    networks_ms: float
    rest_ms: float  # what is left of `ms`, and the noise of all others
    peak_mib: float
    share_of_peak: float | None  # networks, of the machine's matrix product in this precision
    max_dp: float
    rank_correlation: float


@dataclass(frozen=True)
class Field:
    """Who runs: members as torch has them, contenders, and the lower precisions a gate passed."""

    finals: dict[str, Final]
    contenders: list[Contender]
    gated: frozenset[str] = frozenset()


def write_up_field(scratch: Path) -> Field:
    """The write-up's two models with random weights, in every precision that this CPU has."""
    finals, ours = baselines.write_up(), scratch / "ours"
    baselines.export_fused(finals, ours, LogMel)
    baselines.quantise(ours)
    # fp16 weights are f32 once they are loaded, so there is no speed of theirs to tell.
    lower = [name for name in LOWER_PRECISIONS if name != "fp16"]
    return Field(finals, _contenders(finals, ours, lower, scratch))


def model_dir_field(model_dir: Path, runs: Path, scratch: Path) -> Field:
    """A model folder in the precisions that it ships, beside the same weights in torch."""
    finals = find_finals(model_dir, runs)
    lower = Spec.load(model_dir).precisions
    return Field(finals, _contenders(finals, model_dir, lower, scratch), frozenset(lower))


def _contenders(
    finals: Mapping[str, Final], ours: Path, lower: Sequence[str], scratch: Path
) -> list[Contender]:
    baselines.save_checkpoints(finals, scratch / "torch")
    baselines.export_fused(finals, scratch / "conv1d", ConvMel)
    return [
        Contender("(a) librosa + torch eager", scratch / "torch", "torch"),
        Contender("(b) Conv1d mel, ONNX Runtime", scratch / "conv1d", "onnxruntime"),
        Contender("(b) Conv1d mel, OpenVINO", scratch / "conv1d", "openvino"),
        Contender("(c) ours, ONNX Runtime", ours, "onnxruntime"),
        Contender(OURS, ours, "openvino"),
        *(Contender(OURS, ours, "openvino", name) for name in lower if not lacking(name)),
    ]


def find_finals(model_dir: Path, runs: Path) -> dict[str, Final]:
    """The checkpoints that a model folder was exported from, by their sha256."""
    wanted: dict[str, str] = {}
    for stem in Spec.load(model_dir).stems:
        made_by = baselines.made_by(model_dir / f"{stem}.onnx")
        wanted |= {member: facts["checkpoint_sha256"] for member, facts in made_by.items()}
    there = {checkpoint.sha256(path): path for path in runs.rglob(checkpoint.FINAL_NAME)}
    absent = [member for member, digest in wanted.items() if digest not in there]
    if absent:
        raise UserError(
            f"{runs}: holds no checkpoint that {model_dir}'s {absent[0]} was exported from, and torch "
            "is measured with it; give its folder with --runs DIR"
        )
    return {member: Final.load(there[digest]) for member, digest in wanted.items()}


def minutes(data: Path | None, count: int, scratch: Path) -> list[SoundFile]:
    """Minutes of audio: soundscapes of a competition (taken again where too few), or noise."""
    if data is None:
        rng = np.random.default_rng(0)
        scratch.mkdir()
        for index in range(count):
            noise = 0.1 * rng.standard_normal(MINUTE_S * 32000)
            write_ogg(scratch / f"{index}.ogg", noise, 32000)
    found = soundscapes(scratch if data is None else data / "train_soundscapes")
    if not found:
        raise UserError(f"{data}: no train_soundscapes/; give --data with some, or none")
    return [SoundFile(found[index % len(found)], WINDOWS_A_MINUTE) for index in range(count)]


def network_gflop(finals: Mapping[str, Final]) -> float:
    """Operations of all networks for a minute of audio, in 1e9; a multiply-add is two."""
    total = 0
    for final in finals.values():
        predictor = final.predictor()
        with torch.no_grad():
            picture = predictor.front_end(torch.zeros(1, final.contract.chunk_samples))
            with FlopCounterMode(display=False) as counter:
                predictor.network(picture, predictor.answer_share)
        total += counter.get_total_flops()
    return WINDOWS_A_MINUTE * total / 1e9


class Agreement:
    """Torch's answers for some recordings, to hold others against."""

    def __init__(self, finals: Mapping[str, Final], waveforms: Sequence[NDArray[np.float32]]) -> None:
        self.waveforms = waveforms
        self.expected = {name: self._torch(final) for name, final in finals.items()}

    def _torch(self, final: Final) -> dict[str, NDArray[np.float32]]:
        predictor, parts = final.predictor(), []
        with torch.inference_mode():
            for waveform in self.waveforms:
                chunks = torch.from_numpy(cut_chunks(waveform, WINDOWS_A_MINUTE, final.contract))
                parts.append([output.numpy() for output in predictor(chunks)])
        whole = (np.concatenate(of) for of in zip(*parts, strict=True))
        return dict(zip(final.contract.outputs, whole, strict=True))

    def of(self, candidate: Ensemble) -> tuple[float, float]:
        """Largest |Δp| over members and outputs; mean rank correlation of segmentwise."""
        answers = [candidate.run(waveform, WINDOWS_A_MINUTE) for waveform in self.waveforms]
        furthest, correlations = 0.0, []
        for member, expected in self.expected.items():
            for output in expected:
                found = {output: np.concatenate([each[member][output] for each in answers])}
                ours, theirs = probabilities(found, output), probabilities(expected, output)
                furthest = max(furthest, float(np.abs(ours - theirs).max()))
                if output == "segmentwise":
                    correlations.append(precision.rank_correlation(theirs, ours))
        return furthest, statistics.mean(correlations)


def time_in_turns(
    watches: Sequence[Stopwatch], files: Sequence[SoundFile], rounds: int
) -> list[dict[str, list[float]]]:
    """For each contender: total, engine and front end, in ms a minute, one value a round."""
    found: list[dict[str, list[float]]] = [
        {"total": [], "engine": [], "front_end": []} for _ in watches
    ]
    rate = watches[0].ensemble.contract.sample_rate
    waveforms = [audio.read(file.path, rate) for file in files]
    for _ in tqdm(range(rounds), desc="rounds", unit="round"):
        for watch, times in zip(watches, found, strict=True):
            times["total"].append(watch.total_ms(files))
        for watch, times in zip(watches, found, strict=True):
            times["engine"].append(watch.engine_ms(waveforms))
            times["front_end"].append(watch.front_end_ms(waveforms))
    return found


def measure(args: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Every figure of the bench, as plain values."""
    if args.model_dir is None:
        field = write_up_field(scratch)
    else:
        field = model_dir_field(args.model_dir, args.runs, scratch)
    files = minutes(args.data, args.files, scratch / "audio")
    watches = []
    for contender in field.contenders:
        watches.append(Stopwatch(contender, scratch))
        print(f"{contender.name} {contender.precision}: {watches[-1].calibration}", flush=True)
    times = time_in_turns(watches, files, args.rounds)
    ours = next(each for each in watches if each.contender.name == OURS)
    found = {
        "machine": machine.describe(),
        "members": {name: final.job.model.encoder for name, final in field.finals.items()},
        "weights": "random" if args.model_dir is None else str(args.model_dir),
        "files": len(files),
        "rounds": args.rounds,
        "gflop_per_minute": network_gflop(field.finals),
        "peak_gflops": {n: machine.peak_gflops(n) for n in ("f32", "bf16", "int8") if not lacking(n)},
        "to_csv": to_csv(ours, files, args.rounds),
    }
    found["rows"] = rows(field, watches, times, files, found)
    if args.scaling:
        found["scaling"] = scaling(ours, files)
    return found


def rows(
    field: Field,
    watches: Sequence[Stopwatch],
    times: Sequence[Mapping[str, list[float]]],
    files: Sequence[SoundFile],
    measured: Mapping[str, Any],
) -> list[dict[str, Any]]:
    rate = watches[0].ensemble.contract.sample_rate
    decode = decode_ms(files, rate) / usable_cores()
    agreement = Agreement(field.finals, [audio.read(file.path, rate) for file in files])
    found = []
    for watch, rounds in zip(watches, tqdm(times, desc="memory and parity"), strict=True):
        contender = watch.contender
        medians = {name: statistics.median(of) for name, of in rounds.items()}
        networks = medians["engine"] - medians["front_end"]
        peak = measured["peak_gflops"].get(contender.precision)
        max_dp, correlation = agreement.of(watch.ensemble)
        row = Row(
            name=contender.name,
            precision=contender.precision,
            gated=contender.precision in ("f32", *field.gated),
            layout=str(watch.calibration.layout),
            ms=medians["total"],
            ms_rounds=rounds["total"],
            decode_ms=decode,
            front_end_ms=medians["front_end"],
            networks_ms=networks,
            rest_ms=medians["total"] - decode - medians["engine"],
            peak_mib=peak_mib(watch, files),
            share_of_peak=1000 * measured["gflop_per_minute"] / networks / peak if peak else None,
            max_dp=max_dp,
            rank_correlation=correlation,
        )
        found.append(asdict(row))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        measured = measure(args, Path(scratch))
    print(report.markdown(measured))
    if args.json:
        args.json.write_text(json.dumps(measured, indent=2) + "\n")
    if args.chart:
        report.chart(measured, args.chart)
    if args.readme:
        put_between_marks(args.readme, report.MARK, report.markdown(measured))
    return 0


if __name__ == "__main__":
    run_command(main)
