"""One process's samples computed as those of the whole micro-batch, which other processes share.

Where samples depend on one another (batch norm, losses over pairs) or draw random numbers (dropout,
drop path), the result is that of one process with all of them, up to the rounding of sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import batch_norm, dropout
from torch.overrides import TorchFunctionMode

from train.fit.processes import Part, Processes


def gathered(tensor: Tensor, part: Part, processes: Processes) -> Tensor:
    """(own samples, …) → (samples of the micro-batch, …), with the gradient of the own ones.

    Every process computes the same loss from it, so that gradients need no way back.
    """
    if processes.world == 1:
        return tensor
    gathered: Tensor = _Gathered.apply(_unrounded(tensor), part, processes)  # type: ignore[no-untyped-call]
    return gathered


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, part: Part, processes: Processes) -> Tensor:
        ctx.place = part.place
        whole = own.new_zeros(len(part.whole), *own.shape[1:])
        whole[part.place] = own
        return processes.sum(whole)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0][ctx.place], None, None


class AsWhole(TorchFunctionMode):
    """Within it, a network in training mode treats its samples as a part of their micro-batch.

    torch's own SyncBatchNorm runs on CUDA only, and it replaces the modules that checkpoints hold.
    """

    def __init__(self, part: Part, processes: Processes) -> None:
        super().__init__()
        self._part, self._processes = part, processes

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        ours: dict[Callable[..., Any], Callable[..., Any]] = {
            batch_norm: self._batch_norm,
            dropout: self._dropout,
            Tensor.bernoulli_: self._bernoulli,
        }
        return ours.get(func, func)(*args, **(kwargs or {}))

    # Eight arguments: those of torch's batch_norm.
    def _batch_norm(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if not training:
            return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
        mean, var, count = _moments(input.detach(), self._processes)
        if running_mean is not None and running_var is not None:
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((var * count / (count - 1)).to(running_var.dtype), momentum)
        of = input.dtype if input.dtype == torch.float64 else torch.float32
        weight = torch.ones_like(mean, dtype=of) if weight is None else weight
        bias = torch.zeros_like(mean, dtype=of) if bias is None else bias
        moments = mean.to(of), var.to(of), count.to(of)
        normed: Tensor = _Normed.apply(input, weight, bias, moments, eps, self._processes)  # type: ignore[no-untyped-call]
        return normed

    def _dropout(
        self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        if not training or not p:
            return input
        kept = _ones_laid_out_as(input, len(self._part.whole))
        return input * dropout(kept, p)[self._part.place]

    def _bernoulli(self, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Random numbers of a sample each, as drop path draws them."""
        if tensor.ndim < 2 or len(tensor) != len(self._part.own):
            return tensor.bernoulli_(*args, **kwargs)
        whole = tensor.new_empty(len(self._part.whole), *tensor.shape[1:])
        return tensor.copy_(whole.bernoulli_(*args, **kwargs)[self._part.place])


def _ones_laid_out_as(tensor: Tensor, n_samples: int) -> Tensor:
    """Ones for so many samples, in the tensor's order in memory, in which random numbers are drawn."""
    axes = sorted(range(tensor.ndim), key=tensor.stride, reverse=True)
    sizes = (n_samples, *tensor.shape[1:])
    ones = tensor.new_ones([sizes[axis] for axis in axes])
    return ones.permute([axes.index(axis) for axis in range(tensor.ndim)])


def _unrounded(tensor: Tensor) -> Tensor:
    """At least float32, whatever the precision of training."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _moments(x: Tensor, processes: Processes) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance (channels,) of the whole micro-batch in float64, and the values a channel.

    Each process's own ones are joined by the sums of squares around their means, which loses no digits.
    """
    var, mean = torch.var_mean(_unrounded(x), dim=[d for d in range(x.ndim) if d != 1], correction=0)
    of_each = torch.zeros(processes.world, 3, len(mean), dtype=torch.float64, device=x.device)
    count = x.numel() / x.shape[1]
    own = of_each[processes.rank]
    own[0], own[1], own[2] = mean, var, count
    means, variances, counts = processes.sum(of_each).unbind(1)
    total = counts.sum(dim=0)
    mean = (means * counts).sum(dim=0) / total
    var = ((variances + (means - mean).square()) * counts).sum(dim=0) / total
    return mean, var, total


class _Normed(torch.autograd.Function):
    """Normalised by the moments of the whole micro-batch, which depend on the input."""

    # Seven arguments: an autograd function takes each tensor by itself.
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        moments: tuple[Tensor, Tensor, Tensor],
        eps: float,
        processes: Processes,
    ) -> Tensor:
        mean, var, count = moments
        ctx.save_for_backward(x, weight, mean, var, count)
        ctx.eps, ctx.processes = eps, processes
        return batch_norm(x, mean, var, weight, bias, False, 0.0, eps)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, var, count = ctx.saved_tensors
        fixed = (weight, mean, var, None, None, False, ctx.eps, [False, True, True])
        # The kernel of fixed moments sums the gradients of weight and bias; the moments' part follows.
        _, for_weight, for_bias = torch.ops.aten.native_batch_norm_backward(grads[0], x, *fixed)
        of_weight, of_bias = ctx.processes.sum(torch.stack([for_weight, for_bias])) / count
        spread = torch.rsqrt(var + ctx.eps)
        scale = weight * spread
        slope = -scale * spread * of_weight
        shift = -scale * of_bias - slope * mean
        scale, slope, shift = (v.view(1, -1, *[1] * (x.ndim - 2)) for v in (scale, slope, shift))
        for_x = (grads[0] * scale + x * slope + shift).to(x.dtype)
        return for_x, for_weight, for_bias, None, None, None
