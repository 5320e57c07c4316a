"""Embeddings of a teacher are learnt by a projection that no checkpoint has."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from birdkit.contract import Contract
from tests.conftest import tiny_job, tiny_predictor
from train.data.batches import Sources
from train.data.waveforms import Waveforms
from train.fit.distil import Projection, cosine_loss
from train.fit.trainer import Trainer

CPU = torch.device("cpu")
N = 7  # numbers in an embedding


class Unknown(NamedTuple):
    """A teacher's embeddings, of a size, that say nothing."""

    size: int

    def __call__(self, path: Path, start_s: float, end_s: float) -> NDArray[np.float32]:
        return np.full(self.size, np.nan, dtype=np.float32)


def trainer_of(contract: Contract, weight: float, n_embedding: int = N) -> Trainer:
    job = tiny_job(f"fit.distil_weight={weight}", "teachers=[{}]", "fit.amp=f32", "fit.warmup=0.0")
    embeddings = Unknown(n_embedding) if n_embedding else None
    sources = Sources((), Waveforms(contract.sample_rate), {}, embeddings=embeddings)
    return Trainer(tiny_predictor(contract), job, 40, CPU, sources)


def batch(contract: Contract) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    sounds = 0.5 * torch.randn(4, contract.chunk_samples, generator=generator)
    return sounds, torch.eye(4, 3), torch.randn(4, N, generator=generator)


def test_the_loss_is_one_minus_the_cosine_of_the_known_rows() -> None:
    one, other = torch.tensor([[1.0, 0.0], [3.0, 4.0], [1.0, 1.0]]), torch.tensor([[0.0, 2.0]] * 3)
    assert cosine_loss(one, other).item() == pytest.approx(np.mean([1.0, 0.2, 1 - np.sqrt(0.5)]))
    other[0, 1] = torch.nan
    assert cosine_loss(one, other).item() == pytest.approx(np.mean([0.2, 1 - np.sqrt(0.5)]))
    unknown = torch.full_like(other, torch.nan)
    one.requires_grad_()
    loss = cosine_loss(one, unknown)
    loss.backward()
    assert loss.item() == 0.0
    assert one.grad is not None
    assert not one.grad.isnan().any()


def test_a_projection_takes_the_mean_over_mels_and_frames() -> None:
    projection, encoded = Projection(5, N), torch.randn(2, 5, 3, 4)
    torch.testing.assert_close(projection(encoded), projection.linear(encoded.flatten(2).mean(dim=2)))


def test_distillation_alone_moves_the_encoder_and_leaves_the_head(contract: Contract) -> None:
    trainer = trainer_of(contract, 1.0)
    sounds, labels, embeddings = batch(contract)
    network = trainer.predictor.network
    before = {key: value.clone() for key, value in network.named_parameters()}
    losses = [trainer.step(sounds, labels, step, embeddings) for step in range(12)]
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.1  # 1 where it points anywhere
    moved = {key for key, value in network.named_parameters() if not torch.equal(value, before[key])}
    assert any(key.startswith("encoder.") for key in moved)
    assert not any(key.startswith(("att_block.", "hidden.")) for key in moved)


def test_both_losses_count_by_the_weight(contract: Contract) -> None:
    sounds, labels, embeddings = batch(contract)

    def loss(weight: float, n_embedding: int = N) -> float:
        torch.manual_seed(0)  # of the projection
        return float(trainer_of(contract, weight, n_embedding).step(sounds, labels, 0, embeddings))

    on_labels, on_embeddings = loss(0.5, n_embedding=0), loss(1.0)
    assert loss(0.25) == pytest.approx(0.75 * on_labels + 0.25 * on_embeddings, rel=1e-4)
    assert on_labels != pytest.approx(on_embeddings, rel=0.1)


def test_what_is_kept_and_exported_has_no_trace_of_it_and_a_state_has_all(contract: Contract) -> None:
    plain, distilled = trainer_of(contract, 0.0, 0), trainer_of(contract, 0.5)
    distilled.step(*batch(contract)[:2], 0, batch(contract)[2])
    kept, without = distilled.averaged().state_dict(), plain.averaged().state_dict()
    assert {key: value.shape for key, value in kept.items()} == {
        key: value.shape for key, value in without.items()
    }
    resumed = trainer_of(contract, 0.5)
    resumed.load_state(distilled.state())
    again = [each.step(*batch(contract)[:2], 1, batch(contract)[2]) for each in (distilled, resumed)]
    assert again[0] == again[1]
