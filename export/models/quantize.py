"""Quantises the networks of an OpenVINO graph to INT8; its front end stays f32.

INT8 is NNCF's post-training quantisation, calibrated on log-mels of real soundscapes (NNCF is
OpenVINO's own tool). `export/gates/precision.py` judges whether the result is as good as the f32 one.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from birdkit.contract import INPUT_NAME, METADATA_KEY, Contract
from birdkit.engines import wheels
from birdkit.engines.engine import batches
from birdkit.engines.openvino_graphs import split
from birdkit.grid import cut_inputs

openvino = wheels.obtain("openvino")

# NNCF's own default; more windows hardly change the ranges.
CALIBRATION_WINDOWS = 300

LogMels = NDArray[np.float32]  # (windows, 1, mels, frames), as the front end gives them


def to_int8(model: Any, calibration: LogMels) -> Any:
    """The graph with the convolutions over log-mels in INT8."""
    import nncf

    front_end, networks = split(model)
    with _quiet(nncf):
        quantised = nncf.quantize(
            networks,
            nncf.Dataset(list(batches(calibration, 1))),
            subset_size=len(calibration),
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(names=without_time_and_frequency(networks)),
        )
    return join(front_end, quantised, model)


def without_time_and_frequency(networks: Any) -> list[str]:
    """Names of products without mel bands and frames in their output: squeeze-and-excitation, head.

    They cost little time, and quantisation harms them most.
    """
    products = ("Convolution", "GroupConvolution", "MatMul")
    names = []
    for op in networks.get_ordered_ops():
        if op.get_type_name() in products:
            shape = op.output(0).get_partial_shape()
            sizes = [dim.get_length() for dim in list(shape)[2:] if dim.is_static]
            if len(shape) != 4 or all(size == 1 for size in sizes):
                names.append(op.get_friendly_name())
    return names


def join(front_end: Any, networks: Any, original: Any) -> Any:
    """Undo `split`: one graph again, with the original's metadata."""
    front_end = front_end.clone()
    log_mel = front_end.output(0).get_node().input_value(0)
    inlet = networks.input(0)
    for target in inlet.get_target_inputs():
        target.replace_source_output(log_mel)
    joined = openvino.Model(networks.get_results(), front_end.get_parameters(), "joined")
    path = ["framework", METADATA_KEY]
    joined.set_rt_info(str(original.get_rt_info(path).value), path)
    return joined


def log_mels(
    model: Any, contract: Contract, waveforms: Sequence[NDArray[np.float32]], n_windows: int
) -> LogMels:
    """Log-mels of the first `n_windows` windows of each waveform (samples,), by its front end."""
    front_end, _ = split(model)
    compiled = openvino.Core().compile_model(
        front_end, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    )
    parts = [
        compiled({INPUT_NAME: cut_inputs(waveform, n_windows, contract)})[0].copy()
        for waveform in waveforms
    ]
    return np.concatenate(parts)


@contextlib.contextmanager
def _quiet(nncf: Any) -> Iterator[None]:
    """Hide NNCF's progress bars and info lines; warnings still appear."""
    nncf.set_log_level(logging.WARNING)
    with contextlib.redirect_stdout(io.StringIO()):
        yield
