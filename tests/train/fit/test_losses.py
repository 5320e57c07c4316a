"""Each loss against a slow one by its definition, and what doesn't count in it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from train.config.settings import Fit, FocalGroup
from train.fit.losses import LOSSES, Exponents, clipwise_loss, mixmax, sed_loss

FIT = Fit()
EXPONENTS = Exponents.of(FIT)
Answered = tuple[Tensor, Tensor]
TARGETS = torch.tensor(
    [[1.0, 0.0, torch.nan], [0.3, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.8, 0.0], [torch.nan, 0.0, 0.5]]
)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def known_cells(logits: Tensor) -> Iterator[tuple[float, float]]:
    """Logit and target of each cell of a table whose target is known."""
    for logit, target in zip(logits.flatten().tolist(), TARGETS.flatten().tolist(), strict=True):
        if not math.isnan(target):
            yield logit, target


def slow_focal(logits: Tensor, positive: float, negative: float) -> float:
    total = 0.0
    for x, t in known_cells(logits):
        p = sigmoid(x)
        wrong = abs(t - p) ** (t * positive + (1 - t) * negative)
        total -= wrong * (t * math.log(p) + (1 - t) * math.log(1 - p))
    return total / logits.numel()


def slow_auc(logits: Tensor) -> float:
    of_classes = []
    for x, t in zip(logits.T.tolist(), TARGETS.T.tolist(), strict=True):
        known = [(a, b) for a, b in zip(x, t, strict=True) if not math.isnan(b)]
        pairs = [(p * (1 - q), math.log1p(math.exp(b - a))) for a, p in known for b, q in known]
        of_classes.append(np.average([cost for _, cost in pairs], weights=[w for w, _ in pairs]))
    return float(np.mean(of_classes))


def slow_cross_entropy(logits: Tensor) -> float:
    of_samples = []
    for x, t in zip(logits.tolist(), TARGETS.tolist(), strict=True):
        known = [(a, b) for a, b in zip(x, t, strict=True) if not math.isnan(b)]
        norm = math.log(sum(math.exp(a) for a, _ in known))
        of_samples.append(sum(b * (norm - a) for a, b in known) / max(1.0, sum(b for _, b in known)))
    return float(np.mean(of_samples)) / logits.shape[1]


REFERENCES: dict[str, Callable[[Tensor], float]] = {
    "bce": lambda logits: slow_focal(logits, 0.0, 0.0),
    "focal": lambda logits: slow_focal(logits, 1.0, 4.0),
    "auc": slow_auc,
    "bce+auc": lambda logits: slow_focal(logits, 0.0, 0.0) + slow_auc(logits),
    "cross_entropy": slow_cross_entropy,
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("scale", [0.5, 8.0])
def test_a_loss_is_its_definition_of_known_cells(name: str, scale: float) -> None:
    exponents = Exponents.of(replace(FIT, focal_positive=1.0, focal_negative=4.0))
    logits = scale * torch.randn(TARGETS.shape, generator=torch.Generator().manual_seed(7))
    assert float(LOSSES[name](logits, TARGETS, exponents)) == pytest.approx(
        REFERENCES[name](logits), rel=1e-4
    )


@pytest.mark.parametrize("name", LOSSES)
def test_an_unknown_cell_teaches_nothing_and_gradients_are_finite_everywhere(name: str) -> None:
    logits = torch.linspace(-90, 90, TARGETS.numel()).reshape(TARGETS.shape).requires_grad_()
    LOSSES[name](logits, TARGETS, Exponents.of(replace(FIT, focal_positive=0.5))).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert not logits.grad[torch.isnan(TARGETS)].any()


@pytest.mark.parametrize("exponents", [(2.0, 2.0), (0.0, 2.0), (0.5, 4.0)])
@pytest.mark.parametrize("target", [0.1, 0.3, 0.9])
def test_the_focal_loss_of_a_soft_target_is_lowest_at_it(
    target: float, exponents: tuple[float, float]
) -> None:
    of_all = Exponents(*torch.tensor([exponents]).T)
    grid = torch.linspace(0.02, 0.98, 97)
    of_grid = [
        float(LOSSES["focal"](p.logit()[None, None], torch.tensor([[target]]), of_all)) for p in grid
    ]
    assert float(grid[int(np.argmin(of_grid))]) == pytest.approx(target, abs=0.011)


def test_the_classes_of_a_group_have_exponents_of_their_own_in_windows_and_frames() -> None:
    frogs = FocalGroup("Amphibia", positive=0.0, negative=4.0)
    fit = replace(FIT, focal_positive=1.0, focal_negative=0.5, focal_groups=(frogs,))
    of_classes = Exponents.of(fit, ("a", "b", "c"), {"a": "Aves", "b": "Amphibia"})
    logits = torch.randn(5, 3, 4)
    targets = TARGETS[:, :, None].expand_as(logits)
    for k, (positive, negative) in enumerate([(1.0, 0.5), (0.0, 4.0), (1.0, 0.5)]):
        alone = Exponents.of(replace(FIT, focal_positive=positive, focal_negative=negative))
        grads = [
            torch.autograd.grad(LOSSES["focal"](logits.requires_grad_(), targets, exponents), logits)[0]
            for exponents in (of_classes, alone)
        ]
        torch.testing.assert_close(grads[0][:, k], grads[1][:, k])
    one = LOSSES["focal"](logits[:, :, 0], TARGETS, of_classes)
    assert one.isclose(LOSSES["focal"](logits[:, :, :1], TARGETS[:, :, None], of_classes))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("target", [0.0, 1.0, torch.nan])
def test_a_batch_of_one_target_or_unknown_is_no_fault(name: str, target: float) -> None:
    logits = torch.randn(2, 3, requires_grad=True)
    loss = LOSSES[name](logits, torch.full((2, 3), target), EXPONENTS)
    loss.backward()
    assert torch.isfinite(loss)


@pytest.mark.parametrize("name", LOSSES)
def test_a_step_downhill_brings_targets_and_logits_together(name: str) -> None:
    logits = torch.zeros(TARGETS.shape, requires_grad=True)
    for _ in range(200):
        (gradient,) = torch.autograd.grad(LOSSES[name](logits, TARGETS, EXPONENTS), logits)
        logits = (logits - gradient).detach().requires_grad_()
    present, absent = TARGETS == 1.0, TARGETS == 0.0
    for c in range(3):
        assert logits[present[:, c], c].min() > logits[absent[:, c], c].max() - 1e-6


@pytest.mark.parametrize("name", LOSSES)
def test_every_frame_has_the_chunks_labels_and_its_share_of_the_loss(name: str) -> None:
    loss = LOSSES[name]
    fit = replace(FIT, loss=cast(Any, name), clipwise_weight=0.3)
    clipwise, framewise = torch.rand(5, 3), torch.randn(5, 3, 4)

    def summed(share: float) -> Tensor:
        answers, of_frames = (clipwise, framewise), replace(fit, framewise=share)
        return sed_loss(answers, TARGETS, of_frames, EXPONENTS, True)

    on_clipwise = clipwise_loss(clipwise, TARGETS)
    on_loudest = loss(framewise.amax(dim=2), TARGETS, EXPONENTS)
    each = torch.stack([loss(framewise[:, :, i], TARGETS, EXPONENTS) for i in range(4)]).mean()
    assert summed(0.0).isclose(0.3 * on_clipwise + 0.7 * on_loudest)
    assert summed(0.6).isclose(0.3 * on_clipwise + 0.7 * (0.4 * on_loudest + 0.6 * each))


def test_the_defaults_are_the_write_ups_bce_with_logits_on_both_outputs() -> None:
    clipwise, framewise = torch.rand(4, 3), torch.randn(4, 3, 5)
    target = torch.randint(0, 2, (4, 3)).float()
    expected = [binary_cross_entropy_with_logits(x, target) for x in (clipwise, framewise.amax(2))]
    loss = sed_loss((clipwise, framewise), target, FIT, EXPONENTS, True)
    assert loss.isclose(torch.stack(expected).mean())


def test_proper_bce_of_clipwise_is_lowest_at_the_targets() -> None:
    target = torch.tensor([[0.0, 0.3, 1.0]])
    right = clipwise_loss(target, target, as_logits=False)
    assert right.isclose(torch.tensor(-(0.3 * math.log(0.3) + 0.7 * math.log(0.7)) / 3))
    assert clipwise_loss(torch.tensor([[0.1, 0.3, 0.9]]), target, as_logits=False) > right
    assert clipwise_loss(torch.tensor([[0.0, 0.5, 1.0]]), target, as_logits=False) > right


def test_a_probability_above_1_by_rounding_is_no_fault() -> None:
    above = torch.tensor([[1.0 + 3e-7, 0.5]])
    assert torch.isfinite(clipwise_loss(above, torch.tensor([[1.0, 0.0]]), as_logits=False))


def test_soft_labels_can_be_left_to_segmentwise_and_unknown_ones_count_for_neither() -> None:
    target = torch.tensor([[0.0, 0.3, 1.0, torch.nan]])

    def heeded(*settings: bool) -> list[bool]:
        answer = torch.rand(1, 4, requires_grad=True)
        clipwise_loss(answer, target, *settings).backward()
        assert answer.grad is not None
        return (answer.grad[0] != 0).tolist()

    assert heeded(False) == heeded(False, False) == [True, False, True, False]
    assert heeded() == heeded(True, False) == [True, True, True, False]


def slow_mixmax(mix: Answered, first: Answered, second: Answered, weight: float) -> float:
    """BCE by its definition, cell by cell, with loops over chunks, classes and frames."""

    def bce(p: float, target: float) -> float:
        return -(target * math.log(p) + (1 - target) * math.log(1 - p))

    def loudest(answer: Answered, chunk: int, name: int) -> float:
        return sigmoid(max(answer[1][chunk][name].tolist()))

    cells = [(chunk, name) for chunk in range(len(mix[0])) for name in range(mix[0].shape[1])]
    on_clipwise = [
        bce(float(mix[0][cell]), max(float(first[0][cell]), float(second[0][cell]))) for cell in cells
    ]
    on_segmentwise = [
        bce(loudest(mix, *cell), max(loudest(first, *cell), loudest(second, *cell))) for cell in cells
    ]
    return float(weight * np.mean(on_clipwise) + (1 - weight) * np.mean(on_segmentwise))


def answered(seed: int) -> Answered:
    generator = torch.Generator().manual_seed(seed)
    framewise = 2 * torch.randn(4, 3, 6, generator=generator)
    return torch.rand(4, 3, generator=generator), framewise


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_mixmax_is_the_bce_of_a_mix_against_the_maximum_of_its_parts(weight: float) -> None:
    mix, first, second = map(answered, range(3))
    fit = replace(FIT, clipwise_weight=weight)
    expected = slow_mixmax(mix, first, second, weight)
    assert float(mixmax(mix, first, second, fit)) == pytest.approx(expected, rel=1e-5)
    assert mixmax(mix, second, first, fit).isclose(mixmax(mix, first, second, fit))


def test_mixmax_teaches_the_mix_alone_and_nothing_where_it_is_the_maximum() -> None:
    first, second = answered(1), answered(2)
    for tensor in (*first, *second):
        tensor.requires_grad_()
    mix = tuple(
        torch.maximum(a, b).detach().requires_grad_() for a, b in zip(first, second, strict=True)
    )
    mixmax((mix[0], mix[1]), first, second, FIT).backward()
    assert all(tensor.grad is None for tensor in (*first, *second))
    for tensor in mix:
        assert tensor.grad is not None
        assert tensor.grad.abs().max() < 1e-6
