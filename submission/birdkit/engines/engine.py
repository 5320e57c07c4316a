"""ONNX Runtime and OpenVINO behind one call: chunks or stretches in, named arrays out."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from birdkit.contract import INPUT_NAME, Contract
from birdkit.engines import onnx_graphs, openvino_graphs, wheels
from birdkit.engines.layout import Layout
from birdkit.errors import UserError

Answers = dict[str, NDArray[np.float32]]


class Engine(Protocol):
    """Anything that answers for sound: an inference engine here, a torch model in training."""

    @property
    def contract(self) -> Contract: ...

    def __call__(self, inputs: NDArray[np.float32], /) -> Answers:
        """(batch, input_samples) float32 in [-1, 1] → one array for each of `contract.tensors`.

        (batch, classes) each, or (batch, frames, classes) of a model that hears stretches.
        """
        ...


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
        self._turn = threading.Semaphore(layout.streams)
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.contract = Contract.from_metadata(metadata, str(path)).only(members)
        self._batch = layout.inputs(self.contract)
        if len(self.contract.tensors) < len(self._session.get_outputs()):
            self._session = open_session(
                onnx_graphs.with_outputs(path.read_bytes(), self.contract.tensors)
            )

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
        core = wheels.obtain("openvino").Core()
        model = core.read_model(path)
        self.contract = openvino_graphs.contract_of(model, str(path)).only(members)
        model = openvino_graphs.with_outputs(model, self.contract.tensors)
        self._batch = layout.inputs(self.contract)
        # A shape that never changes is planned once, and is a few percent faster.
        model.reshape({INPUT_NAME: [self._batch, self.contract.input_samples]})
        parts = openvino_graphs.split(model) if precision == "bf16" else (model,)
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
    """(n, samples) → (size, samples) in turn; the last one is shorter where `size` doesn't divide n."""
    for start in range(0, len(chunks), size):
        yield chunks[start : start + size]
