"""A model from outside in ONNX Runtime, OpenVINO or LiteRT: inputs in, its own tensors out."""

from __future__ import annotations

import importlib
import queue
import threading
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from birdkit.engines import wheels
from birdkit.engines.engine import Answers, batches
from birdkit.engines.layout import Layout
from birdkit.errors import UserError
from birdkit.outside.card import Card

# Names of engines → packages, where they differ.
PACKAGES = {"litert": "ai_edge_litert"}
LITERT = PACKAGES["litert"]
# Inputs of LiteRT at a time: more are slower, since they leave the caches.
LITERT_BATCH = 4
NOT_SAID = -1  # a dimension that a file leaves open


class Runner(Protocol):
    """One file in one engine."""

    @property
    def name(self) -> str: ...

    def __call__(self, inputs: NDArray[np.float32], /) -> Answers:
        """(n, samples) → tensors by name, each (n, …)."""
        ...


class OnnxRuntimeRunner:
    """An ONNX file in ONNX Runtime, on the CPU."""

    name = "onnxruntime"

    def __init__(self, path: Path, card: Card, layout: Layout, tensors: Sequence[str]) -> None:
        onnxruntime = package(self.name)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = layout.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self._turn = threading.Semaphore(layout.streams)
        self._names = list(tensors)
        self._input = card.input
        inputs = {one.name: one.shape for one in self._session.get_inputs()}
        check_input(path, card, inputs)
        check_outputs(path, tensors, [one.name for one in self._session.get_outputs()])
        first = inputs[card.input][0]
        self._batch = first if isinstance(first, int) and first > 0 else layout.batch

    def __call__(self, inputs: NDArray[np.float32]) -> Answers:
        with self._turn:
            parts = [
                self._session.run(self._names, {self._input: padded(part, self._batch)})
                for part in batches(inputs, self._batch)
            ]
        joined = (np.concatenate(of)[: len(inputs)] for of in zip(*parts, strict=True))
        return dict(zip(self._names, joined, strict=True))


class OpenVinoRunner:
    """An ONNX file in OpenVINO on the CPU, in f32."""

    name = "openvino"

    def __init__(self, path: Path, card: Card, layout: Layout, tensors: Sequence[str]) -> None:
        core = package(self.name).Core()
        model = core.read_model(path)
        shapes = {
            name: [NOT_SAID if d.is_dynamic else d.get_length() for d in one.get_partial_shape()]
            for one in model.inputs
            for name in one.get_names()
        }
        check_input(path, card, shapes)
        check_outputs(path, tensors, [name for one in model.outputs for name in one.get_names()])
        first = shapes[card.input][0]
        self._batch = first if first > 0 else layout.batch
        model.reshape({card.input: [self._batch, card.samples]})
        compiled = core.compile_model(model, "CPU", layout.openvino("f32"))
        self._input, self._names = card.input, tuple(tensors)
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(layout.streams):
            self._idle.put(compiled.create_infer_request())

    def __call__(self, inputs: NDArray[np.float32]) -> Answers:
        request = self._idle.get()
        try:
            parts = [self._infer(request, part) for part in batches(inputs, self._batch)]
        finally:
            self._idle.put(request)
        return {name: np.concatenate([part[name] for part in parts]) for name in self._names}

    def _infer(self, request: Any, inputs: NDArray[np.float32]) -> Answers:
        request.infer({self._input: padded(inputs, self._batch)}, share_inputs=True)
        # Copied: the request reuses its output buffers.
        return {name: request.get_tensor(name).data[: len(inputs)].copy() for name in self._names}


class LiteRtRunner:
    """A TFLite file in LiteRT, on the CPU. An interpreter serves one call at a time."""

    name = "litert"

    def __init__(self, path: Path, card: Card, layout: Layout, tensors: Sequence[str]) -> None:
        package(self.name)
        interpreter = importlib.import_module(f"{LITERT}.interpreter")
        source: dict[str, Any] = {"model_path": str(path)}
        if card.embedding in tensors:
            outputs = interpreter.Interpreter(**source).get_output_details()
            if card.embedding not in [one["name"] for one in outputs]:
                source = {"model_content": with_output(path, card.embedding)}
        self._names, self._batch = tuple(tensors), min(layout.batch, LITERT_BATCH)
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(layout.streams):
            one = interpreter.Interpreter(**source, num_threads=layout.threads)
            inputs = {d["name"]: list(d["shape_signature"]) for d in one.get_input_details()}
            check_input(path, card, inputs)
            self._input = next(d["index"] for d in one.get_input_details() if d["name"] == card.input)
            one.resize_tensor_input(self._input, [self._batch, card.samples])
            one.allocate_tensors()
            places = {d["name"]: d["index"] for d in one.get_output_details()}
            check_outputs(path, tensors, list(places))
            self._places = [places[name] for name in tensors]
            self._idle.put(one)

    def __call__(self, inputs: NDArray[np.float32]) -> Answers:
        interpreter = self._idle.get()
        try:
            parts = [self._infer(interpreter, part) for part in batches(inputs, self._batch)]
        finally:
            self._idle.put(interpreter)
        return {name: np.concatenate([part[name] for part in parts]) for name in self._names}

    def _infer(self, interpreter: Any, inputs: NDArray[np.float32]) -> Answers:
        interpreter.set_tensor(self._input, padded(inputs, self._batch))
        interpreter.invoke()
        every = (interpreter.get_tensor(place)[: len(inputs)] for place in self._places)
        return dict(zip(self._names, every, strict=True))


def with_output(path: Path, tensor: str) -> bytes:
    """A TFLite file with one more output: a tensor inside its graph.

    LiteRT could preserve all tensors instead, but is six times slower then. Raises `UserError` where
    the file lacks it, `ImportError` where flatbuffers is absent, which a submission does without.
    """
    schema = importlib.import_module(f"{LITERT}.schema_py_generated")
    flatbuffers = importlib.import_module("flatbuffers")
    content = path.read_bytes()
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]
    names = [one.name.decode() for one in graph.tensors]
    check_outputs(path, [tensor], names)
    place = names.index(tensor)
    if place not in graph.outputs:
        graph.outputs = np.array([*graph.outputs, place], dtype=np.int32)
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


# Kind of file → what runs it, the fastest first.
RUNNERS: dict[str, tuple[type[OnnxRuntimeRunner | OpenVinoRunner | LiteRtRunner], ...]] = {
    "onnx": (OpenVinoRunner, OnnxRuntimeRunner),
    "tflite": (LiteRtRunner,),
}


def package(engine: str) -> ModuleType:
    """The package of an engine. Raises `EngineMissing`."""
    return wheels.obtain(PACKAGES.get(engine, engine))


def padded(inputs: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """(n, samples) → (size, samples): an engine's shape is fixed, and what is too much is silence."""
    return np.pad(inputs, ((0, size - len(inputs)), (0, 0)))


def check_input(path: Path, card: Card, shapes: dict[str, list[Any]]) -> None:
    """Raise `UserError` where a file has no such input, or one of another length."""
    if card.input not in shapes:
        raise UserError(
            f"{path}: has no input {card.input}, but {', '.join(shapes) or 'none'}; mend its card"
        )
    shape = shapes[card.input]
    length = shape[-1] if len(shape) == 2 else shape
    if isinstance(length, int | np.integer) and length in (NOT_SAID, card.samples):
        return
    if len(shape) == 2 and not isinstance(length, int | np.integer):
        return  # a name, or None: left open
    raise UserError(
        f"{path}: its input takes {length} samples, and its card says {card.samples} "
        f"({card.window_s:g} s at {card.sample_rate} Hz); mend its card"
    )


def check_outputs(path: Path, wanted: Sequence[str], there: Sequence[str]) -> None:
    """Raise `UserError` where a file lacks a tensor."""
    if lacking := [name for name in wanted if name not in there]:
        last = ", ".join(there[-LITERT_BATCH:])
        raise UserError(f"{path}: has no tensor {lacking[0]}, but {last}; mend its card")
