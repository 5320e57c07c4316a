"""The backward pass of depthwise convolutions on a CPU: its gradients are torch's own."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import conv2d

from train.fit import depthwise
from train.fit.depthwise import FastDepthwise, of_input, of_weight
from train.fit.precision import Precision

Pair = tuple[int, int]


@settings(max_examples=60)
@given(
    kernel=st.tuples(*[st.sampled_from([1, 3, 4, 5, 7])] * 2),
    stride=st.tuples(*[st.integers(1, 3)] * 2),
    pads=st.tuples(*[st.integers(0, 3)] * 2),
    size=st.tuples(*[st.integers(7, 17)] * 2),
)
def test_gradients_are_torchs_own(kernel: Pair, stride: Pair, pads: Pair, size: Pair) -> None:
    padding = (min(pads[0], kernel[0] - 1), min(pads[1], kernel[1] - 1))
    generator = torch.Generator().manual_seed(0)
    # In f64, so that a wrong tap stands out from rounding.
    x = torch.randn(2, 6, *size, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(6, 1, *kernel, generator=generator, dtype=torch.float64, requires_grad=True)
    y = conv2d(x, weight, None, stride, padding, 1, 6)
    grad = torch.randn(y.shape, generator=generator, dtype=torch.float64)
    of_x, of_w = torch.autograd.grad(y, (x, weight), grad)
    with torch.no_grad():
        torch.testing.assert_close(of_input(grad, weight, x.shape, stride, padding), of_x)
        torch.testing.assert_close(of_weight(grad, x, weight.shape, stride, padding), of_w)


@pytest.mark.parametrize("bias", [False, True])
def test_a_depthwise_layer_learns_as_without(bias: bool) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(8, 8, 5, stride=2, padding=2, groups=8, bias=bias)
    x = torch.randn(4, 8, 21, 30)

    def gradients() -> list[torch.Tensor]:
        layer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            y = layer(x)
        y.float().square().sum().backward()
        grads = []
        for parameter in layer.parameters():
            assert parameter.grad is not None
            grads.append(parameter.grad.clone())
        return grads

    wanted = gradients()
    with FastDepthwise():
        found = gradients()
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == torch.float32
        assert (a - b).norm() < 0.01 * b.norm()


def test_other_convolutions_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("taken for a depthwise convolution")

    monkeypatch.setattr(depthwise._Depthwise, "apply", refuse)
    x = torch.randn(1, 4, 9, 9)
    for layer in (
        torch.nn.Conv2d(4, 8, 3),
        torch.nn.Conv2d(4, 8, 3, groups=2),
        torch.nn.Conv2d(4, 8, 3, groups=4),
        torch.nn.Conv2d(4, 4, 3, groups=4, dilation=2),
        torch.nn.Conv2d(4, 4, 3, groups=4, padding="same"),
    ):
        with FastDepthwise():
            inside = layer(x)
        assert torch.equal(inside, layer(x))
    with FastDepthwise(), pytest.raises(AssertionError, match="taken"):
        torch.nn.Conv2d(4, 4, 3, groups=4)(x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_training_takes_it_in_bf16_and_only_there(dtype: torch.dtype) -> None:
    layer = torch.nn.Conv2d(4, 4, 5, groups=4, bias=False)
    with Precision(torch.device("cpu"), dtype).autocast():
        y = layer(torch.randn(1, 4, 9, 9))
    assert ("Depthwise" in y.grad_fn.name()) == (dtype == torch.bfloat16)
