"""Speed, memory and parity, side by side in one run, on minutes of audio.

    python export/bench.py [MODEL_DIR] [--data DIR] [--json FILE] [--chart FILE.png] [--readme FILE]

Without MODEL_DIR it measures the write-up's b3 + v2_b3 with random weights: their speed is that of
trained ones, but no gate has passed their lower precisions. Every contender runs through the same
decoding and the same choice of layout; rounds take turns, so that a busy neighbour slows all alike.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import queue
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "submission")]

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from birdkit import audio, table
from birdkit.calibrate import Calibration, calibrate
from birdkit.contract import INPUT_NAME
from birdkit.engine import LOWER_PRECISIONS, Layout, batches, import_openvino, lacking, usable_cores
from birdkit.ensemble import Ensemble, Spec, combine, probabilities
from birdkit.errors import UserError, run_command
from birdkit.grid import cut_chunks
from birdkit.kaggle import soundscapes
from birdkit.predict import SoundFile, predict
from export import bench_report, contenders, precision
from export.bench_report import END, START
from export.contenders import Contender, ConvMel
from train import checkpoint
from train.checkpoint import Final
from train.demo import write_ogg
from train.frontend import LogMel

openvino = import_openvino()

WINDOWS = 12
MINUTE_S = 60


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Speed, memory and parity, side by side.")
    parser.add_argument("model_dir", type=Path, nargs="?", help="default: b3 + v2_b3, random weights")
    parser.add_argument("--data", type=Path, help="competition folder (default: noise, as Ogg files)")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs", help="where its checkpoints lie")
    parser.add_argument("--files", type=int, default=8, help="minutes of audio a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write every figure here")
    parser.add_argument("--chart", type=Path, help="write a picture (PNG) here")
    parser.add_argument("--readme", type=Path, help=f"put the table between {START} and {END} there")
    parser.add_argument(
        "--scaling", action="store_true", help="also time 50, 200 and 700 files of ours in f32"
    )
    return parser.parse_args(argv)


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
    rest_ms: float
    engine_ms: float  # front end and networks, measured together
    peak_mib: float
    share_of_peak: float | None  # of the machine's matrix product in this precision
    max_dp: float
    rank_correlation: float


class Measured:
    """A contender, opened in its fastest layout."""

    def __init__(self, contender: Contender, scratch: Path) -> None:
        self.contender = contender
        self.calibration: Calibration = calibrate(contender.open, contender.layouts())
        self.ensemble: Ensemble = self.calibration.loaded.ensemble
        self.streams = self.calibration.layout.streams
        self.front_end = self._front_end(scratch)

    def _front_end(self, scratch: Path) -> Callable[[NDArray[np.float32]], Any]:
        (engine,) = self.ensemble.engines.values()
        if isinstance(engine, contenders.EagerEngine):
            return lambda chunks: [engine.mel(chunk) for chunk in chunks]
        path = contenders.front_end_alone(self.contender.folder, list(self.ensemble.engines), scratch)
        open_alone = onnxruntime_alone if self.contender.engine == "onnxruntime" else openvino_alone
        return open_alone(path, self.calibration.layout)

    def total_ms(self, files: Sequence[SoundFile]) -> float:
        """Decode to probabilities, a file."""
        start = time.perf_counter()
        contract = self.ensemble.contract
        done = predict(files, self.ensemble.score, contract, streams=self.streams)
        combine(done.scores, self.ensemble.spec)
        if done.failures:
            raise UserError(f"{next(iter(done.failures.items()))}: give --data with readable files")
        return 1000 * (time.perf_counter() - start) / len(files)

    def engine_ms(self, waveforms: Sequence[NDArray[np.float32]]) -> float:
        return self._all_streams(lambda waveform: self.ensemble.run(waveform, WINDOWS), waveforms)

    def front_end_ms(self, waveforms: Sequence[NDArray[np.float32]]) -> float:
        contract = self.ensemble.contract
        chunks = [cut_chunks(waveform, WINDOWS, contract) for waveform in waveforms]
        return self._all_streams(self.front_end, chunks)

    def _all_streams(self, call: Callable[[Any], Any], inputs: Sequence[Any]) -> float:
        start = time.perf_counter()
        with ThreadPoolExecutor(self.streams) as pool:
            list(pool.map(call, inputs))
        return 1000 * (time.perf_counter() - start) / len(inputs)


def openvino_alone(path: Path, layout: Layout) -> Callable[[NDArray[np.float32]], None]:
    """A graph of one input, by batches, as the engine would run it."""
    core = openvino.Core()
    model = core.read_model(path)
    model.reshape({INPUT_NAME: [layout.batch, *list(model.input(0).get_partial_shape())[1:]]})
    compiled = core.compile_model(model, "CPU", openvino_config("f32", layout))
    idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for _ in range(layout.streams):
        idle.put(compiled.create_infer_request())

    def run(chunks: NDArray[np.float32]) -> None:
        request = idle.get()
        for batch in batches(chunks, layout.batch):
            request.infer({0: batch}, share_inputs=True)
        idle.put(request)

    return run


def openvino_config(hint: str, layout: Layout) -> dict[str, Any]:
    return {
        "INFERENCE_PRECISION_HINT": hint,
        "NUM_STREAMS": layout.streams,
        "INFERENCE_NUM_THREADS": layout.streams * layout.threads,
    }


def onnxruntime_alone(path: Path, layout: Layout) -> Callable[[NDArray[np.float32]], None]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = layout.threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(chunks: NDArray[np.float32]) -> None:
        for batch in batches(chunks, layout.batch):
            session.run(None, {INPUT_NAME: batch})

    return run


def peak_gflops(precision: str) -> float | None:
    """The best rate of a large matrix product here, in 1e9 operations a second; None for INT8."""
    if precision == "int8":
        return None
    size = 2048
    left = openvino.opset13.parameter([size, size], np.float32)
    right = openvino.opset13.constant(np.random.default_rng(0).random((size, size), np.float32))
    model = openvino.Model([openvino.opset13.matmul(left, right, False, False)], [left])
    layout = Layout(1, usable_cores(), 1)
    hint = "bf16" if precision == "bf16" else "f32"
    compiled = openvino.Core().compile_model(model, "CPU", openvino_config(hint, layout))
    request, times = compiled.create_infer_request(), []
    given = np.random.default_rng(1).random((size, size), np.float32)
    for _ in range(21):
        start = time.perf_counter()
        request.infer({0: given}, share_inputs=True)
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times) / 1e9


def network_gflop(finals: dict[str, Final]) -> float:
    """Operations of all networks for a minute of audio, in 1e9; a multiply-add is two."""
    total = 0
    for final in finals.values():
        predictor = final.predictor()
        with torch.no_grad():
            picture = predictor.front_end(torch.zeros(1, final.contract.chunk_samples))
            with FlopCounterMode(display=False) as counter:
                predictor.network(picture, predictor.answer_share)
        total += counter.get_total_flops()
    return WINDOWS * total / 1e9


def peak_mib(contender: Contender, layout: Layout, files: Sequence[SoundFile]) -> float:
    """Peak memory of a fresh process that scores the files."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(score_alone, (contender, layout, files))[1]


def score_alone(
    contender: Contender, layout: Layout, files: Sequence[SoundFile]
) -> tuple[float, float]:
    """Seconds from the first decode to the CSV, and this process's peak memory in MiB."""
    loaded = contender.open(layout).ensemble
    predict(files[:1], loaded.score, loaded.contract)  # warm
    seconds = write_csv(loaded, files, layout.streams)
    status = Path("/proc/self/status").read_text()
    peak_kib = next(int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line)
    return seconds, peak_kib / 1024


def find_finals(model_dir: Path, runs: Path) -> dict[str, Final]:
    """The checkpoints that a model folder was exported from, by their sha256."""
    spec = Spec.load(model_dir)
    wanted: dict[str, str] = {}
    for stem in spec.stems:
        made_by = contenders.made_by(model_dir / f"{stem}.onnx")
        wanted |= {member: facts["checkpoint_sha256"] for member, facts in made_by.items()}
    there = {checkpoint.sha256(path): path for path in runs.glob(f"*/*/{checkpoint.FINAL_NAME}")}
    absent = [member for member, digest in wanted.items() if digest not in there]
    if absent:
        raise UserError(
            f"{runs}: holds no checkpoint that {model_dir}'s {absent[0]} was exported from; torch is "
            "measured with it: give the runs with --runs DIR"
        )
    return {member: Final.load(there[digest]) for member, digest in wanted.items()}


def field(
    args: argparse.Namespace, scratch: Path
) -> tuple[dict[str, Final], list[Contender], set[str]]:
    """Members, contenders, and the lower precisions that a gate has passed."""
    finals = find_finals(args.model_dir, args.runs) if args.model_dir else contenders.write_up()
    contenders.save_checkpoints(finals, scratch / "torch")
    contenders.export_fused(finals, scratch / "conv1d", ConvMel)
    if args.model_dir is None:
        ours, lower, gated = scratch / "ours", [p for p in LOWER_PRECISIONS if p != "fp16"], set()
        contenders.export_fused(finals, ours, LogMel)
        contenders.quantise(ours)
    else:
        ours, lower = args.model_dir, list(Spec.load(args.model_dir).precisions)
        gated = set(lower)
    found = [
        Contender("(a) librosa + torch eager", scratch / "torch", "torch"),
        Contender("(b) Conv1d mel, ONNX Runtime", scratch / "conv1d", "onnxruntime"),
        Contender("(b) Conv1d mel, OpenVINO", scratch / "conv1d", "openvino"),
        Contender("(c) ours, ONNX Runtime", ours, "onnxruntime"),
        Contender("(c) ours, OpenVINO", ours, "openvino"),
    ]
    for name in lower:
        if not lacking(name):
            found.append(Contender("(c) ours, OpenVINO", ours, "openvino", name))
    return finals, found, gated


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
    return [SoundFile(found[index % len(found)], WINDOWS) for index in range(count)]


def agreement(
    finals: dict[str, Final], of: Ensemble, waveforms: Sequence[NDArray[np.float32]]
) -> tuple[float, float]:
    """Largest |Δp| to torch over both outputs, and the rank correlation of segmentwise."""
    furthest, ours, theirs = 0.0, [], []
    predictors = {name: final.predictor() for name, final in finals.items()}
    for waveform in waveforms:
        answers = of.run(waveform, WINDOWS)
        for name, predictor in predictors.items():
            chunks = cut_chunks(waveform, WINDOWS, predictor.contract)
            with torch.inference_mode():
                outputs = [output.numpy() for output in predictor(torch.from_numpy(chunks))]
            reference = dict(zip(predictor.contract.outputs, outputs, strict=True))
            for output in reference:
                expected = probabilities(reference, output)
                found = probabilities(answers[name], output)
                furthest = max(furthest, float(np.abs(expected - found).max()))
            theirs.append(probabilities(reference, "segmentwise"))
            ours.append(probabilities(answers[name], "segmentwise"))
    # Members beside each other, so that each class of each member is a column.
    n = len(predictors)
    wide = [
        np.concatenate([np.concatenate(of[m::n]) for m in range(n)], axis=1) for of in (theirs, ours)
    ]
    return furthest, precision.rank_correlation(*wide)


def measure(args: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    finals, field_of, gated = field(args, scratch)
    files = minutes(args.data, args.files, scratch / "audio")
    rate = next(iter(finals.values())).contract.sample_rate
    waveforms = [audio.read(file.path, rate) for file in files]
    opened = []
    for contender in field_of:
        opened.append(Measured(contender, scratch))
        print(f"{contender.name} {contender.precision}: {opened[-1].calibration}", flush=True)
    timed: dict[str, list[list[float]]] = {"total": [], "engine": [], "front_end": [], "decode": []}
    for _ in tqdm(range(args.rounds), desc="rounds", unit="round"):
        timed["total"].append([each.total_ms(files) for each in opened])
        timed["engine"].append([each.engine_ms(waveforms) for each in opened])
        timed["front_end"].append([each.front_end_ms(waveforms) for each in opened])
        timed["decode"].append([decode_ms(files, rate)])
    of_all = {name: np.array(rounds).T.tolist() for name, rounds in timed.items()}
    decode = statistics.median(of_all["decode"][0]) / usable_cores()
    gflop = network_gflop(finals)
    peaks = {name: peak_gflops(name) for name in ("f32", "bf16", "int8") if not lacking(name)}
    rows = []
    for index, each in enumerate(tqdm(opened, desc="memory and parity", unit="contender")):
        contender = each.contender
        total, engine, front_end = (
            statistics.median(of_all[name][index]) for name in ("total", "engine", "front_end")
        )
        peak = peaks.get(contender.precision)
        max_dp, correlation = agreement(finals, each.ensemble, waveforms)
        rows.append(
            Row(
                name=contender.name,
                precision=contender.precision,
                gated=contender.precision == "f32" or contender.precision in gated,
                layout=str(each.calibration.layout),
                ms=total,
                ms_rounds=of_all["total"][index],
                decode_ms=decode,
                front_end_ms=front_end,
                networks_ms=engine - front_end,
                rest_ms=total - decode - engine,
                engine_ms=engine,
                peak_mib=peak_mib(contender, each.calibration.layout, files),
                share_of_peak=None if not peak else gflop / (engine - front_end) * 1000 / peak,
                max_dp=max_dp,
                rank_correlation=correlation,
            )
        )
    report = {
        "machine": machine(),
        "members": {name: final.recipe.models[0].encoder for name, final in finals.items()},
        "weights": "random" if args.model_dir is None else str(args.model_dir),
        "files": len(files),
        "rounds": args.rounds,
        "networks_gflop_per_minute": gflop,
        "peak_gflops": peaks,
        "rows": [asdict(row) for row in rows],
    }
    ours = next(each for each in opened if each.contender.name == "(c) ours, OpenVINO")
    report["to_csv"] = to_csv(ours, files, waveforms, args.rounds)
    if args.scaling:
        report["scaling"] = scaling(ours, files)
    return report


def to_csv(
    of: Measured,
    files: Sequence[SoundFile],
    waveforms: Sequence[NDArray[np.float32]],
    rounds: int,
) -> dict[str, float]:
    """Decode to CSV against the engine's own time for the same windows, in turns; ms a file."""
    whole, engine = [], []
    with tempfile.TemporaryDirectory() as scratch:
        named = list(_links(files, len(files), Path(scratch)))
        for _ in range(rounds):
            whole.append(1000 * write_csv(of.ensemble, named, of.streams) / len(files))
            engine.append(of.engine_ms(waveforms))
    return {"ms": statistics.median(whole), "engine_ms": statistics.median(engine)}


def write_csv(of: Ensemble, files: Sequence[SoundFile], streams: int) -> float:
    """Score files and write their submission; seconds."""
    contract = of.contract
    plan = table.plan_rows([file.path for file in files], [], contract.window_s)
    with tempfile.TemporaryDirectory() as scratch:
        start = time.perf_counter()
        scores = predict(plan.files, of.score, contract, streams=streams).scores
        written = [each for each in combine(scores, of.spec) if each is not None]
        submission = table.build(plan, written, contract.classes, contract.classes)
        table.check(submission, plan.row_ids, contract.classes)
        table.write(submission, Path(scratch) / "submission.csv")
        return time.perf_counter() - start


def decode_ms(files: Sequence[SoundFile], rate: int) -> float:
    """One core's time to decode a file."""
    start = time.perf_counter()
    for file in files:
        audio.read(file.path, rate)
    return 1000 * (time.perf_counter() - start) / len(files)


def scaling(of: Measured, files: Sequence[SoundFile]) -> list[dict[str, float]]:
    """Decode to CSV for more and more files, each in a fresh process."""
    found = []
    for count in (50, 200, 700):
        # By path, so that the table has a row for each: the same minute under other names.
        with tempfile.TemporaryDirectory() as scratch:
            many = list(_links(files, count, Path(scratch)))
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                layout = of.calibration.layout
                seconds, mib = pool.apply(score_alone, (of.contender, layout, many))
        found.append({"files": count, "seconds": seconds, "peak_mib": mib})
        print(f"{count} files: {seconds:.1f} s, {mib:.0f} MiB", flush=True)
    return found


def _links(files: Sequence[SoundFile], count: int, folder: Path) -> Iterator[SoundFile]:
    for index in range(count):
        source = files[index % len(files)]
        link = folder / f"{index}{source.path.suffix}"
        link.symlink_to(source.path.resolve())
        yield SoundFile(link, source.n_windows)


def machine() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    lower = [name for name in ("bf16", "int8") if not lacking(name)]
    return (
        f"{model}, {usable_cores()} cores, {' and '.join(lower) or 'neither bf16 nor int8'} in hardware"
    )


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        report = measure(args, Path(scratch))
    print(bench_report.markdown(report))
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    if args.chart:
        bench_report.chart(report, args.chart)
    if args.readme:
        bench_report.into(args.readme, report)
    return 0


if __name__ == "__main__":
    run_command(main)
