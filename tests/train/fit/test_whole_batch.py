"""Several processes compute of a batch what one computes of it; here threads stand for them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import pytest
import torch
from timm.layers import DropPath
from torch import Tensor, nn

from birdkit.errors import UserError
from train.fit.processes import Part, Processes
from train.fit.whole_batch import AsWhole, gathered

N_SAMPLES = 7

Result = TypeVar("Result")


@dataclass(frozen=True)
class Threads(Processes):
    """One thread among others, whose sums are those of all."""

    barrier: threading.Barrier = field(default_factory=lambda: threading.Barrier(1))
    tensors: dict[int, Tensor] = field(default_factory=dict)

    def sum(self, tensor: Tensor) -> Tensor:
        self.tensors[self.rank] = tensor
        self.barrier.wait(60)
        total = torch.stack([self.tensors[rank] for rank in range(self.world)]).sum(dim=0)
        self.barrier.wait(60)
        return tensor.copy_(total)


def in_threads(world: int, work: Callable[[Processes, Part], Result]) -> list[Result]:
    shared = threading.Barrier(world), dict[int, Tensor]()
    ranks = [Threads(rank, world, *shared) for rank in range(world)]
    with ThreadPoolExecutor(world) as pool:
        return list(pool.map(lambda one: work(one, one.parts(N_SAMPLES, 1)[0]), ranks))


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize("n_micro_batches", [1, 2])
def test_each_sample_is_one_process_s_own(world: int, n_micro_batches: int) -> None:
    if n_micro_batches * world > N_SAMPLES:
        with pytest.raises(UserError, match="7 has fewer samples than 2 micro-batches for 7"):
            Processes(0, world).parts(N_SAMPLES, n_micro_batches)
        return
    parts = [Processes(rank, world).parts(N_SAMPLES, n_micro_batches) for rank in range(world)]
    for together in zip(*parts, strict=True):
        assert [i for part in together for i in part.own] == list(together[0].whole)
    assert [i for part in parts[0] for i in part.whole] == list(range(N_SAMPLES))
    assert sum(part.share for part in parts[0]) == pytest.approx(1.0)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    last = nn.BatchNorm2d(4, affine=False)
    return nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.SiLU(), last).double()


def loss_of(answers: Tensor) -> Tensor:
    """No sum over samples, so that it needs all of them."""
    means = answers.mean(dim=(1, 2, 3))
    return (means[:, None] - means[None]).abs().pow(1.5).sum() + answers.pow(3).mean()


@pytest.mark.parametrize("world", [2, 3])
def test_batch_norm_has_the_moments_and_the_gradients_of_all_samples(world: int) -> None:
    torch.manual_seed(1)
    sounds = 3 + torch.randn(N_SAMPLES, 1, 9, 8, dtype=torch.float64)
    whole = network()
    loss = loss_of(whole(sounds))
    loss.backward()

    def train(processes: Processes, part: Part) -> tuple[nn.Module, Tensor]:
        of_part = models[processes.rank]
        with AsWhole(part, processes):
            answers = of_part(sounds[part.own.start : part.own.stop])
        loss = loss_of(gathered(answers, part, processes))
        loss.backward()
        return of_part, loss.detach()

    models = [network() for _ in range(world)]
    done = in_threads(world, train)
    for of_part, its_loss in done:
        torch.testing.assert_close(its_loss, loss.detach(), rtol=1e-10, atol=0)
        for name, buffer in whole.named_buffers():
            torch.testing.assert_close(of_part.get_buffer(name), buffer, rtol=1e-10, atol=1e-12)
    for name, parameter in whole.named_parameters():
        gradients = [of_part.get_parameter(name).grad for of_part, _ in done]
        total = torch.stack([gradient for gradient in gradients if gradient is not None]).sum(dim=0)
        torch.testing.assert_close(total, parameter.grad, rtol=1e-9, atol=1e-12)


def test_gathered_samples_have_their_order_and_the_gradient_of_the_whole() -> None:
    torch.manual_seed(1)
    answers = torch.randn(N_SAMPLES, 4, 2, 1)
    whole = answers.clone().requires_grad_()
    loss_of(whole).backward()

    def gradient(processes: Processes, part: Part) -> Tensor | None:
        own = answers[part.place].clone().requires_grad_()
        given = gathered(own, part, processes)
        torch.testing.assert_close(given.detach(), answers, rtol=0, atol=0)
        loss_of(given).backward()
        return own.grad

    assert whole.grad is not None
    found = [grad for grad in in_threads(3, gradient) if grad is not None]
    torch.testing.assert_close(torch.cat(found), whole.grad, rtol=0, atol=0)


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), DropPath(0.5)])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "transposed"])
def test_what_is_dropped_is_dropped_whoever_computes_it(layer: nn.Module, layout: str) -> None:
    torch.manual_seed(1)
    sounds = torch.randn(N_SAMPLES, 4, 5, 6)
    if layout == "channels_last":
        sounds = sounds.contiguous(memory_format=torch.channels_last)
    if layout == "transposed":
        sounds = sounds.transpose(1, 2)
    torch.manual_seed(2)
    whole = layer.train()(sounds)
    assert (whole == 0).any() and (whole != 0).any()  # noqa: PT018
    for rank in range(3):
        processes = Processes(rank, 3)
        (part,) = processes.parts(N_SAMPLES, 1)
        torch.manual_seed(2)
        with AsWhole(part, processes):
            found = layer(sounds[part.own.start : part.own.stop])
        torch.testing.assert_close(found, whole[part.own.start : part.own.stop], rtol=0, atol=0)
        after = torch.rand(1)
    torch.manual_seed(2)
    layer(sounds)
    assert torch.equal(torch.rand(1), after)
