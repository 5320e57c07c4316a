"""ONNX Runtime and OpenVINO behind one call: chunks in, named arrays out."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from birdkit.contract import INPUT_NAME, METADATA_KEY, Contract
from birdkit.errors import UserError


class Engine(Protocol):
    """Anything that answers for chunks: an inference engine here, a torch model in training."""

    @property
    def contract(self) -> Contract: ...

    def __call__(self, chunks: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """(batch, chunk_samples) float32 in [-1, 1] → one array for each of `contract.outputs`."""
        ...


def usable_cores(cpu_max: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores this process may use: its affinity, and the container's quota where there is one."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    try:
        quota, period = cpu_max.read_text().split()
        cores = min(cores, max(1, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):
        pass  # no cgroup v2 here, or quota "max"
    return cores


class OnnxRuntimeEngine:
    """An ONNX file in ONNX Runtime, f32, on the CPU."""

    name = "onnxruntime"

    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.contract = Contract.from_metadata(metadata, str(path))

    def __call__(self, chunks: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        names = list(self.contract.outputs)
        return dict(zip(names, self._session.run(names, {INPUT_NAME: chunks}), strict=True))


class OpenVinoEngine:
    """An IR or ONNX file in OpenVINO on the CPU.

    f32 is pinned: the default is bf16 on CPUs that have it, which moves probabilities by 0.005 and
    the log-mel by up to 21 dB.
    """

    name = "openvino"

    def __init__(self, path: Path, threads: int) -> None:
        import openvino

        core = openvino.Core()
        model = core.read_model(path)
        self.contract = Contract.from_metadata(_rt_info(model), str(path))
        self._compiled = core.compile_model(
            model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": "f32",
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": threads,
            },
        )
        self._request = self._compiled.create_infer_request()

    def __call__(self, chunks: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        self._request.infer({INPUT_NAME: chunks}, share_inputs=True)
        # Copied: the request reuses its output buffers.
        return {name: np.array(self._request.get_tensor(name).data) for name in self.contract.outputs}


def _rt_info(model: Any) -> dict[str, str]:
    path = ["framework", METADATA_KEY]
    return {METADATA_KEY: str(model.get_rt_info(path).value)} if model.has_rt_info(path) else {}


# In order of speed. IR before ONNX: it loads faster, but another version may refuse to read it.
LADDER: tuple[tuple[str, str, Callable[[Path, int], Engine]], ...] = (
    ("openvino", ".xml", OpenVinoEngine),
    ("openvino", ".onnx", OpenVinoEngine),
    ("onnxruntime", ".onnx", OnnxRuntimeEngine),
)


@dataclass(frozen=True)
class Opened:
    """An engine that loaded, what it runs on, and what failed before it."""

    engine: Engine
    description: str
    fallbacks: list[str] = field(default_factory=list)


def open_model(stem: Path, threads: int, engine: str = "auto") -> Opened:
    """Load `stem`.xml or `stem`.onnx in the first engine that can.

    Parameters
    ----------
    stem : a model file's path without its suffix
    engine : "auto", or the one engine to use ("openvino", "onnxruntime")

    Raises
    ------
    UserError
        Where no engine loads it: naming each attempt and its reason.
    """
    rungs = [rung for rung in LADDER if engine in ("auto", rung[0])]
    if not rungs:
        names = sorted({name for name, _, _ in LADDER})
        raise UserError(f"engine '{engine}' is unknown; choose auto or one of {', '.join(names)}")
    failed: list[str] = []
    for name, suffix, load in rungs:
        path = stem.with_name(stem.name + suffix)
        if not path.is_file():
            continue
        try:
            return Opened(load(path, threads), f"{name} ({path.name}, f32)", failed)
        except Exception as error:  # the ladder: whatever an engine throws, the next one is tried
            failed.append(f"{name} on {path.name}: {type(error).__name__}: {_first_line(error)}")
    tried = "; ".join(failed) or f"no {stem.name}.xml or .onnx there"
    raise UserError(f"{stem.parent}: no engine loads {stem.name} ({tried})")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")
