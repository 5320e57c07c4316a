"""Describes this machine, and measures the peak rate of its cores."""

from __future__ import annotations

import platform
import time
from pathlib import Path
from typing import Any

import numpy as np

from birdkit.engines import wheels
from birdkit.engines.layout import Layout, usable_cores
from birdkit.engines.precision import lacking

openvino = wheels.obtain("openvino")

# Large enough to be bound by arithmetic, small enough for a cache.
PEAK_SIZE = 2048
PEAK_ROUNDS = 21


def describe(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """CPU, cores usable here, and the lower precisions it computes in hardware."""
    try:
        lines = cpuinfo.read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    lower = " and ".join(name for name in ("bf16", "int8") if not lacking(name))
    return f"{model}, {usable_cores()} cores, {lower or 'neither bf16 nor int8'} in hardware"


def peak_gflops(precision: str) -> float | None:
    """The best rate of a large matrix product here, in 1e9 operations a second; None for INT8."""
    if precision == "int8":
        return None
    rng = np.random.default_rng(0)
    left = openvino.opset13.parameter([PEAK_SIZE, PEAK_SIZE], np.float32)
    right = openvino.opset13.constant(rng.random((PEAK_SIZE, PEAK_SIZE), np.float32))
    product = openvino.Model([openvino.opset13.matmul(left, right, False, False)], [left])
    layout = Layout(1, usable_cores(), 1)
    hint = "bf16" if precision == "bf16" else "f32"
    compiled = openvino.Core().compile_model(product, "CPU", layout.openvino(hint))
    request: Any = compiled.create_infer_request()
    given, times = rng.random((PEAK_SIZE, PEAK_SIZE), np.float32), []
    for _ in range(PEAK_ROUNDS):
        start = time.perf_counter()
        request.infer({0: given}, share_inputs=True)
        times.append(time.perf_counter() - start)
    return 2 * PEAK_SIZE**3 / min(times) / 1e9
