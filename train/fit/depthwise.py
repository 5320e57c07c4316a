"""Depthwise convolutions whose backward pass runs on a CPU's fast bf16 kernels.

oneDNN has such kernels for the forward pass and for the gradient of 3 x 3 weights. The gradient of the
input at a stride, and that of the weights of larger kernels, run in its reference code, which
took more than half of an EfficientNet's training step. Both are expressed here by fast kernels. The
input's gradient is a forward pass over the output's gradient, spread out with zeros, with the kernel
turned round. The weights' gradient is assembled from tiles of 3 x 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad
from torch.nn.grad import conv2d_weight
from torch.overrides import TorchFunctionMode

TILE = 3
Pair = tuple[int, int]


class FastDepthwise(TorchFunctionMode):
    """Within it, `conv2d` calls that are depthwise are computed in bf16, with the backward pass above.

    Meant for the inside of an autocast to bf16 on a CPU, which would cast them likewise.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is torch.conv2d:
            return _conv2d(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


# Seven arguments: those of torch's conv2d.
def _conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    depthwise = groups > 1 and groups == input.shape[-3] == weight.shape[0]
    dilated = _pair(dilation) != (1, 1)
    if not depthwise or dilated or isinstance(padding, str) or input.ndim != 4:
        return conv2d(input, weight, bias, stride, padding, dilation, groups)
    x = input.bfloat16().contiguous(memory_format=torch.channels_last)
    y: Tensor = _Depthwise.apply(  # type: ignore[no-untyped-call]
        x, weight.bfloat16(), _pair(stride), _pair(padding)
    )
    return y if bias is None else y + bias.to(y.dtype)[:, None, None]


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return conv2d(x, weight, None, stride, padding, 1, weight.shape[0])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        grad = grads[0].contiguous(memory_format=torch.channels_last)
        for_x, for_weight, *_ = ctx.needs_input_grad
        return (
            of_input(grad, weight, x.shape, ctx.stride, ctx.padding) if for_x else None,
            of_weight(grad, x, weight.shape, ctx.stride, ctx.padding) if for_weight else None,
            None,
            None,
        )


def of_input(grad: Tensor, weight: Tensor, shape: torch.Size, stride: Pair, padding: Pair) -> Tensor:
    """The gradient of an input of `shape`, from that of the output."""
    kernel = weight.shape[2:]
    if stride != (1, 1):
        height, width = (
            shape[i + 2] - kernel[i] + 1 + 2 * padding[i] for i in range(2)
        )  # as the output would be at a stride of 1
        spread = torch.empty(
            (*shape[:2], height, width), dtype=grad.dtype, memory_format=torch.channels_last
        ).zero_()
        spread[:, :, :: stride[0], :: stride[1]] = grad
        grad = spread
    back = [kernel[i] - 1 - padding[i] for i in range(2)]
    return conv2d(grad, weight.flip(2, 3), None, 1, back, 1, weight.shape[0])


def of_weight(grad: Tensor, x: Tensor, shape: torch.Size, stride: Pair, padding: Pair) -> Tensor:
    """The gradient of a weight of `shape`, (channels, 1, height, width), from that of the output."""
    height, width = shape[2:]
    if max(height, width) <= TILE or min(height, width) < TILE:
        return conv2d_weight(x, shape, grad, stride, padding, groups=shape[0])
    x = pad(x, (padding[1], padding[1], padding[0], padding[0]))
    covered = [(grad.shape[i + 2] - 1) * stride[i] + TILE for i in range(2)]
    tile = torch.Size((*shape[:2], TILE, TILE))
    weight_grad = grad.new_empty(shape)
    for top in _tiles(height):
        for left in _tiles(width):
            part = x[:, :, top : top + covered[0], left : left + covered[1]]
            part = part.contiguous(memory_format=torch.channels_last)
            weight_grad[:, :, top : top + TILE, left : left + TILE] = conv2d_weight(
                part, tile, grad, stride, groups=shape[0]
            )
    return weight_grad


def _tiles(length: int) -> list[int]:
    """Starts of the tiles that cover a kernel's side; the last may overlap the one before."""
    return [*range(0, length - TILE, TILE), length - TILE]


def _pair(value: int | Sequence[int]) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
