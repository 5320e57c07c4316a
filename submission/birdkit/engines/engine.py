"""ONNX Runtime and OpenVINO behind one call: chunks in, named arrays out."""

from __future__ import annotations

import math
import os
import queue
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from birdkit.contract import INPUT_NAME, METADATA_KEY, PICTURE_NAME, Contract
from birdkit.engines import graphs, wheels
from birdkit.errors import UserError

# Each takes less time or space than the one full precision, and ships only where a gate passed it.
LOWER_PRECISIONS = ("bf16", "int8", "fp16")
# These are files of their own; bf16 is the f32 file, compiled otherwise.
STORED_PRECISIONS = ("int8", "fp16")

Answers = dict[str, NDArray[np.float32]]


class Engine(Protocol):
    """Anything that answers for chunks: an inference engine here, a torch model in training."""

    @property
    def contract(self) -> Contract: ...

    def __call__(self, chunks: NDArray[np.float32]) -> Answers:
        """(batch, chunk_samples) float32 in [-1, 1] → one array for each of `contract.tensors`."""
        ...


@dataclass(frozen=True)
class Layout:
    """How an engine uses the cores: `streams` calls at a time, each of `threads` threads, each on
    `batch` chunks at once. As many threads must call as there are streams, or cores stay idle."""

    streams: int
    threads: int
    batch: int

    def __str__(self) -> str:
        return f"{self.streams}x{self.threads}x{self.batch}"

    def openvino(self, precision: str) -> dict[str, Any]:
        """The same as settings of OpenVINO's CPU plugin."""
        return {
            "INFERENCE_PRECISION_HINT": precision,
            "NUM_STREAMS": self.streams,
            "INFERENCE_NUM_THREADS": self.streams * self.threads,
        }

    @classmethod
    def parse(cls, text: str) -> Layout:
        """Read back what `str` gives. Raises `UserError` for anything else."""
        try:
            streams, threads, batch = (int(part) for part in text.split("x"))
        except ValueError:
            streams = threads = batch = 0
        if min(streams, threads, batch) < 1:
            raise UserError(f"layout '{text}' is not STREAMSxTHREADSxBATCH, such as 4x1x2")
        return cls(streams, threads, batch)


def one_stream(cores: int) -> Layout:
    """All cores on one call: for a caller of one thread."""
    return Layout(1, cores, 12)


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


def import_openvino() -> Any:
    """The `openvino` package, without its telemetry.

    Imported plainly it writes to the home folder and reports each import to its maker. Where its
    telemetry package can't be imported it does neither, so that package is hidden from it.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return wheels.obtain("openvino")


class OnnxRuntimeEngine:
    """An ONNX file in ONNX Runtime, f32, on the CPU."""

    name = "onnxruntime"

    def __init__(
        self,
        path: Path,
        layout: Layout,
        precision: str = "f32",
        members: Sequence[str] | None = None,
    ) -> None:
        onnxruntime = wheels.obtain("onnxruntime")
        if precision != "f32":
            raise UserError(f"{path}: {self.name} runs f32 only, not {precision}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = layout.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        open_session = partial(
            onnxruntime.InferenceSession, sess_options=options, providers=["CPUExecutionProvider"]
        )
        self._session = open_session(str(path))
        self._batch = layout.batch
        self._turn = threading.Semaphore(layout.streams)
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.contract = Contract.from_metadata(metadata, str(path)).only(members)
        if len(self.contract.tensors) < len(self._session.get_outputs()):
            self._session = open_session(graphs.with_outputs(path.read_bytes(), self.contract.tensors))

    def __call__(self, chunks: NDArray[np.float32]) -> Answers:
        names = list(self.contract.tensors)
        with self._turn:
            parts = [
                self._session.run(names, {INPUT_NAME: batch}) for batch in batches(chunks, self._batch)
            ]
        return {
            name: np.concatenate(of) for name, of in zip(names, zip(*parts, strict=True), strict=True)
        }


class OpenVinoEngine:
    """An IR or ONNX file in OpenVINO on the CPU.

    f32 is pinned: the default is bf16 on CPUs that have it, which moves probabilities by 0.005 and
    the log-mel by up to 21 dB. In bf16 the front end is compiled apart, in f32.
    """

    name = "openvino"

    def __init__(
        self,
        path: Path,
        layout: Layout,
        precision: str = "f32",
        members: Sequence[str] | None = None,
    ) -> None:
        core = import_openvino().Core()
        model = core.read_model(path)
        self.contract = contract_of(model, str(path)).only(members)
        model = with_outputs(model, self.contract.tensors)
        self._batch = layout.batch
        # A shape that never changes is planned once, and is a few percent faster.
        model.reshape({INPUT_NAME: [layout.batch, self.contract.chunk_samples]})
        parts = split(model) if precision == "bf16" else (model,)
        hints = ("f32", precision)[: len(parts)]
        self.stages = [
            core.compile_model(part, "CPU", layout.openvino(hint))
            for part, hint in zip(parts, hints, strict=True)
        ]
        self._idle: queue.SimpleQueue[list[Any]] = queue.SimpleQueue()
        for _ in range(layout.streams):
            self._idle.put([stage.create_infer_request() for stage in self.stages])

    def __call__(self, chunks: NDArray[np.float32]) -> Answers:
        requests = self._idle.get()
        try:
            parts = [self._infer(requests, batch) for batch in batches(chunks, self._batch)]
        finally:
            self._idle.put(requests)
        return {name: np.concatenate([part[name] for part in parts]) for name in self.contract.tensors}

    def _infer(self, requests: Sequence[Any], chunks: NDArray[np.float32]) -> Answers:
        given = np.pad(chunks, ((0, self._batch - len(chunks)), (0, 0)))  # the shape is fixed
        for request in requests:
            request.infer({0: given}, share_inputs=True)
            given = request.get_output_tensor(0).data
        last = requests[-1]
        # Copied: the request reuses its output buffers.
        return {
            name: last.get_tensor(name).data[: len(chunks)].copy() for name in self.contract.tensors
        }


def batches(chunks: NDArray[np.float32], size: int) -> Iterator[NDArray[np.float32]]:
    for start in range(0, len(chunks), size):
        yield chunks[start : start + size]


def with_outputs(model: Any, names: Sequence[str]) -> Any:
    """The graph with no other outputs than these: what only others need is not computed."""
    wanted = [r for r in model.get_results() if r.output(0).get_names().intersection(names)]
    if len(wanted) == len(model.get_results()):
        return model
    return import_openvino().Model(wanted, model.get_parameters(), model.get_friendly_name())


def split(model: Any) -> tuple[Any, Any]:
    """Cut an OpenVINO graph at the log-mel: front end and networks, as two models of their own.

    Raises
    ------
    UserError
        Where the graph names no log-mel.
    """
    openvino = import_openvino()
    model = model.clone()
    every = (output for op in model.get_ordered_ops() for output in op.outputs())
    picture = next((output for output in every if PICTURE_NAME in output.get_names()), None)
    if picture is None:
        raise UserError(
            f"{model.get_friendly_name()}: its graph names no '{PICTURE_NAME}', so the front end "
            "can't be kept in f32; export it again, or run it in f32"
        )
    inlet = openvino.opset13.parameter(picture.get_partial_shape(), np.float32, name=PICTURE_NAME)
    for target in picture.get_target_inputs():
        target.replace_source_output(inlet.output(0))
    front_end = openvino.Model([picture], model.get_parameters(), "front_end")
    networks = openvino.Model(model.get_results(), [inlet], "networks")
    # Cloned, or each would still see the other through the constants that they share.
    return front_end.clone(), networks.clone()


def contract_of(model: Any, where: str) -> Contract:
    """What an OpenVINO graph promises. `where` names the file in errors."""
    path = ["framework", METADATA_KEY]
    facts = {METADATA_KEY: str(model.get_rt_info(path).value)} if model.has_rt_info(path) else {}
    return Contract.from_metadata(facts, where)


def lacking(precision: str, cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Why this CPU does not run a precision faster than f32; empty where it does."""
    wanted = {"bf16": ("avx512_bf16", "amx_bf16"), "int8": ("avx512_vnni", "avx_vnni")}
    try:
        flags = set(cpuinfo.read_text().split())
    except OSError:
        flags = set()
    needed = wanted.get(precision, ())
    return "" if not needed or flags.intersection(needed) else f"this CPU has no {' or '.join(needed)}"
