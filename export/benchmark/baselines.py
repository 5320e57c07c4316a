"""The setups that `bench.py` compares: the same members, behind other front ends and engines.

(a) librosa's mel and torch eager, a file at a time: what most published notebooks do.
(b) the mel as one Conv1d in the graph, all members in one ONNX, as the 2025 2nd place exported it.
(c) ours, window by window and in stretches. (a) and (b) are the baselines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import librosa
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from birdkit.contract import Contract
from birdkit.engines.engine import Answers
from birdkit.engines.layout import Layout, one_stream, usable_cores
from birdkit.engines.openvino_graphs import contract_of
from birdkit.scoring import ensemble
from birdkit.scoring.calibration import candidates
from birdkit.scoring.ensemble import Ensemble, Spec
from export.gates import parity
from export.models import fuse, onnx, openvino, quantize
from export.models.fuse import FUSED_STEM
from train.config.job import Job
from train.config.settings import FrontEnd, Model
from train.models import checkpoint
from train.models.checkpoint import Final
from train.models.frontend import LogMel, mel_matrix
from train.models.sed import Predictor

WRITE_UP = ("tf_efficientnet_b3.ns_jft_in1k", "tf_efficientnetv2_b3.in21k")
WRITE_UP_CLASSES = 206


class ConvMel(LogMel):
    """The front end of baseline (b): a log-mel with its DFT as one strided Conv1d."""

    def __init__(self, config: FrontEnd) -> None:
        super().__init__(config)
        n_fft = config.n_fft
        n, k = np.arange(n_fft), np.arange(n_fft // 2 + 1)[:, None]
        window = 0.5 - 0.5 * np.cos(2 * np.pi * n / n_fft)
        wave = window * np.exp(-2j * np.pi * (k * n % n_fft) / n_fft)
        kernel = np.concatenate([wave.real, wave.imag])[:, None]
        self.kernel: Tensor
        for name, matrix in (("kernel", kernel), ("mel", mel_matrix(config))):
            self.register_buffer(name, torch.tensor(matrix, dtype=torch.float32), persistent=False)

    def mel_power(self, waveform: Tensor) -> Tensor:
        padded = nn.functional.pad(waveform, (self.config.n_fft // 2,) * 2)
        real, imag = nn.functional.conv1d(padded[:, None], self.kernel, stride=self.config.hop).chunk(
            2, dim=1
        )
        return torch.matmul(self.mel, real * real + imag * imag)


class EagerEngine:
    """The engine of baseline (a): librosa's mel, then the members' networks in torch eager."""

    def __init__(self, predictors: Mapping[str, Predictor], threads: int) -> None:
        torch.set_num_threads(threads)
        first = next(iter(predictors.values()))
        self.contract = replace(first.contract, members=tuple(predictors))
        self.front_end = first.front_end
        self.predictors = dict(predictors)

    def __call__(self, chunks: NDArray[np.float32]) -> Answers:
        mel_power = torch.from_numpy(np.stack([self.mel(chunk) for chunk in chunks]))
        log_mel = self.front_end.from_power(mel_power)
        named: Answers = {}
        with torch.inference_mode():
            for member, predictor in self.predictors.items():
                answers = predictor.answers(log_mel)
                for output, answer in zip(self.contract.outputs, answers, strict=True):
                    named[f"{member}.{output}"] = answer.numpy()
        return named

    def mel(self, chunk: NDArray[np.float32]) -> NDArray[np.float32]:
        """Mel power (mels, frames) of a chunk (samples,)."""
        config = self.front_end.config
        mel_power: NDArray[np.float32] = librosa.feature.melspectrogram(
            y=chunk,
            sr=config.sample_rate,
            n_fft=config.n_fft,
            hop_length=config.hop,
            n_mels=config.n_mels,
            fmin=config.fmin_hz,
            fmax=config.fmax_hz,
            pad_mode="constant",
        )
        return mel_power


@dataclass(frozen=True)
class Setup:
    """One row of the bench: a folder, and what runs it. Plain values, so that a fresh process can."""

    name: str
    folder: Path  # a model folder; of checkpoints where the engine is torch
    engine: str  # torch, onnxruntime, openvino
    precision: str = "f32"
    shifts: tuple[float, ...] = ()  # of its further passes

    def layouts(self) -> list[Layout]:
        cores = usable_cores()
        return [one_stream(cores)] if self.engine == "torch" else candidates(cores)

    def open(self, layout: Layout) -> ensemble.Loaded:
        if self.engine != "torch":
            lower = () if self.precision == "f32" else (self.precision,)
            return ensemble.load(self.folder, layout, self.engine, lower)
        finals = {path.stem: Final.load(path) for path in sorted(self.folder.glob("*.pt"))}
        predictors = {name: final.predictor() for name, final in finals.items()}
        engine = EagerEngine(predictors, layout.threads)
        spec = Spec(dict.fromkeys(predictors, 1.0))
        return ensemble.Loaded(Ensemble({FUSED_STEM: engine}, spec), ["torch eager"], [])


def write_up() -> dict[str, Final]:
    """The two final models of the 6th place of BirdCLEF+ 2025, with random weights, for timing."""
    contract = Contract(32000, 5.0, 5.0, tuple(f"class{i:03}" for i in range(WRITE_UP_CLASSES)))
    names = ("b3", "v2_b3")
    return {
        name: untrained(Job("write-up", model=Model(encoder, "none")), contract)
        for name, encoder in zip(names, WRITE_UP, strict=True)
    }


def untrained(job: Job, contract: Contract) -> Final:
    """A checkpoint of random weights whose answers spread, as a trained one's do."""
    torch.manual_seed(3)
    predictor = Predictor(job.frontend, job.model, contract)
    spread_answers(predictor)
    state = {key: value.clone() for key, value in predictor.state_dict().items()}
    return Final(contract, checkpoint.made_by(job, "none", {}), "random", "none", {}, state)


def spread_answers(predictor: Predictor) -> None:
    """Make a hardly trained model answer as a trained one does, and leave it in eval mode.

    Batch norm is set on noise first, for random weights alone let the signal die or explode; then the
    head is scaled until sigmoid(segmentwise) moves by half.
    """
    inputs = torch.from_numpy(parity.probe_inputs(predictor.contract))
    predictor.network.train()
    for module in predictor.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the mean over all that it saw
    with torch.no_grad():
        predictor(inputs)
        predictor.eval()
        cla = predictor.network.att_block.cla
        assert cla.bias is not None
        # Segmentwise is affine in the head's weights and bias, its maximum over frames included.
        _, segmentwise = predictor(inputs)
        scale = 3.0 / (segmentwise.amax(0) - segmentwise.amin(0)).median()
        cla.bias.copy_(scale * (cla.bias - segmentwise.mean(0)))
        cla.weight.mul_(scale)


def save_checkpoints(finals: Mapping[str, Final], folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, final in finals.items():
        final.save(folder / f"{name}.pt")


def export_fused(finals: Mapping[str, Final], folder: Path, front_end: type[LogMel] = LogMel) -> None:
    """A model folder, ONNX and IR, fused where that is possible, with another front end where asked."""
    folder.mkdir(parents=True)
    finals, stems = fuse.into_files(finals, fuse=True)
    for stem, members in stems.items():
        predictors = [finals[name].predictor() for name in members]
        for predictor in predictors:
            predictor.front_end = front_end(predictor.front_end.config)
        contract, path = fuse.contract_of(finals, members), folder / f"{stem}.onnx"
        onnx.write(predictors, contract, path, contract.to_metadata())
        openvino.write_ir(path, path.with_suffix(".xml"))
    Spec(dict.fromkeys(finals, 1.0), files=stems).save(folder)


def quantise(folder: Path) -> None:
    """Add INT8 beside a folder's IR. It is calibrated on noise, so only its speed is meaningful."""
    source = folder / f"{FUSED_STEM}.xml"
    model = openvino.read(source)
    contract = contract_of(model, str(source))
    noise = parity.probe_inputs(contract)
    log_mels = quantize.log_mels(model, contract, list(noise), 1)
    openvino.save(quantize.to_int8(model, log_mels), folder / f"{FUSED_STEM}.int8.xml")
