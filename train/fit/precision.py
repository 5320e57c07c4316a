"""The device that trains, and the precision that it trains in."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch

from birdkit.errors import UserError
from train.fit import processes
from train.fit.depthwise import FastDepthwise


@dataclass(frozen=True)
class Precision:
    """Autocast in the best precision of the device: bf16, fp16 with a GradScaler (T4, P100), or f32."""

    device: torch.device
    dtype: torch.dtype

    @classmethod
    def choose(cls, device: torch.device, amp: str) -> Precision:
        named = {"bf16": torch.bfloat16, "fp16": torch.float16, "f32": torch.float32}
        if amp in named:
            return cls(device, named[amp])
        if device.type == "cuda":
            native = torch.cuda.is_bf16_supported(including_emulation=False)
            return cls(device, torch.bfloat16 if native else torch.float16)
        # Emulated bf16 is slower than f32, so a CPU must have the instructions.
        has_bf16 = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
        return cls(device, torch.bfloat16 if has_bf16 else torch.float32)

    @contextmanager
    def autocast(self) -> Iterator[None]:
        enabled = self.dtype != torch.float32
        fast = self.device.type == "cpu" and self.dtype == torch.bfloat16
        with (
            torch.autocast(self.device.type, self.dtype, enabled=enabled),
            FastDepthwise() if fast else nullcontext(),
        ):
            yield

    def grad_scaler(self) -> torch.amp.GradScaler:
        return torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)

    def __str__(self) -> str:
        return str(self.dtype).removeprefix("torch.")


@contextmanager
def of_one_size() -> Iterator[None]:
    """Have cuDNN search for the fastest convolutions: for inputs of a size that comes again and again.

    What validates has many sizes, and a search for each would take far longer than it saves.
    """
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def add_device_option(parser: argparse._ActionsContainer, help: str) -> None:
    """Add `--device`, which `choose_device` reads; the GPU is the default where there is one."""
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help=help)


def choose_device(name: str) -> torch.device:
    """The device of a `--device` option. Raises `UserError` for one that is unknown or absent."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device {name} is unknown; choose cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device {name}: this torch sees no CUDA device; see README, Install")
    if device.type == "cuda" and device.index is None and processes.local_rank():
        device = torch.device("cuda", processes.local_rank())
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        n_devices = torch.cuda.device_count()
        raise UserError(f"{device}: this host has {n_devices} CUDA devices; start a process for each")
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    # TF32 would round the log-mel.
    torch.set_float32_matmul_precision("highest")
    return device
