"""Training steps, each of them deterministic.

Everything random in step s (batch, masks, dropout) is seeded by (seed, s). A state saved after any step
therefore holds no random state.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from timm.optim import param_groups_weight_decay
from timm.utils import ModelEmaV3
from torch import Tensor

from train.config.job import Job
from train.data.augment import band_contrast, mixed_evenly, spec_augment
from train.fit.distil import Projection, cosine_loss
from train.fit.losses import Answers, mixmax, sed_loss
from train.fit.precision import Precision
from train.models.sed import Predictor

# Chunks whose log-mel a CPU computes at once: they stay in its cache, which halves the time.
CPU_CHUNKS = 8


class Trainer:
    """A predictor, its optimiser and its moving average, one step at a time."""

    def __init__(
        self,
        predictor: Predictor,
        job: Job,
        total_steps: int,
        device: torch.device,
        n_embedding: int = 0,
    ) -> None:
        """`n_embedding` is the size of the teacher's embeddings; 0 where none are learnt."""
        fit = job.fit
        self.job = job
        self.total_steps = total_steps
        self.average_from = round(fit.average_from * total_steps)
        self.device = device
        self.precision = Precision.choose(device, fit.amp)
        self.predictor = predictor.to(device)
        self.predictor.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = ModelEmaV3(self.predictor, decay=fit.ema_decay, use_warmup=True)
        groups = param_groups_weight_decay(self.predictor, fit.weight_decay)
        self.projection: Projection | None = None
        if n_embedding:
            n_features: int = predictor.network.encoder.num_features  # type: ignore[assignment]
            self.projection = Projection(n_features, n_embedding).to(device)
            groups += param_groups_weight_decay(self.projection, fit.weight_decay)
        self.optimizer = torch.optim.AdamW(groups, lr=fit.lr)
        self.scaler = self.precision.grad_scaler()

    def step(
        self, waveforms: Tensor, targets: Tensor, step: int, embeddings: Tensor | None = None
    ) -> float:
        """One optimiser step on waveforms (batch, samples), targets (batch, classes). Returns the loss.

        Parameters
        ----------
        step : seeds all that is random in it
        embeddings : (batch, embedding) of the teacher, where the trainer has a size for them
        """
        fit = self.job.fit
        seed = self.job.seed * 1_000_003 + step
        torch.manual_seed(seed)
        rate = fit.lr * lr_factor(min(step, self.average_from), self.total_steps, fit.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        waveforms = waveforms.to(self.device, non_blocking=True)
        targets = targets.to(self.device, non_blocking=True)
        self.predictor.train()
        generator = torch.Generator().manual_seed(seed)
        encoded, answers = self._answers(waveforms, generator)
        loss = sed_loss(*answers, targets, fit, self.job.pseudo.soft_clipwise)
        if fit.mixmax:
            loss = loss + fit.mixmax * self._mixmax(waveforms, answers, generator)
        if self.projection is not None and embeddings is not None:
            loss = self._with_embeddings(loss, encoded, embeddings)
        self._update(loss, fit.grad_clip)
        self._average(step)
        return float(loss.detach())

    def _answers(self, waveforms: Tensor, generator: torch.Generator) -> tuple[Tensor, Answers]:
        """What is made of (batch, samples), whose log-mels are augmented.

        By the encoder, and by the whole network: clipwise and framewise.
        """
        augment, network = self.job.augment, self.predictor.network
        with torch.no_grad():
            log_mel = self._log_mel(waveforms)
            if augment.contrast:
                log_mel = band_contrast(log_mel, augment, generator)
            masked = spec_augment(log_mel, augment, generator)
            masked = masked.contiguous(memory_format=torch.channels_last)
        with self.precision.autocast():
            encoded = network.encoded(masked)
            return encoded, network.answers_over_time(encoded)

    def _mixmax(self, waveforms: Tensor, answers: Answers, generator: torch.Generator) -> Tensor:
        """The consistency of the batch: each chunk of its first half with one of the second."""
        n_mixes = len(waveforms) // 2
        one, other = slice(n_mixes), slice(n_mixes, 2 * n_mixes)
        _, of_mixes = self._answers(mixed_evenly(waveforms[one], waveforms[other]), generator)
        clipwise, framewise = answers
        parts = (clipwise[one], framewise[one]), (clipwise[other], framewise[other])
        return mixmax(of_mixes, *parts, self.job.fit)

    def _with_embeddings(self, on_labels: Tensor, encoded: Tensor, embeddings: Tensor) -> Tensor:
        """The loss on the labels and, by its weight, that on the teacher's embeddings."""
        assert self.projection is not None
        projected = self.projection(encoded.float())
        on_embeddings = cosine_loss(projected, embeddings.to(self.device, non_blocking=True))
        weight = self.job.fit.distil_weight
        return on_embeddings if weight == 1.0 else (1 - weight) * on_labels + weight * on_embeddings

    def _log_mel(self, waveforms: Tensor) -> Tensor:
        """(batch, samples) → (batch, 1, mels, frames)."""
        front_end = self.predictor.front_end
        if self.device.type != "cpu":
            return front_end(waveforms)
        return torch.cat([front_end(part) for part in waveforms.split(CPU_CHUNKS)])

    def _update(self, loss: Tensor, grad_clip: float) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        if grad_clip > 0:
            projection = self.projection.parameters() if self.projection is not None else ()
            torch.nn.utils.clip_grad_norm_([*self.predictor.parameters(), *projection], grad_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _average(self, step: int) -> None:
        before = step - self.average_from
        if before >= 0:  # a plain mean of the weights after each step from there on
            self.ema.use_warmup, self.ema.decay = False, before / (before + 1)
        self.ema.update(self.predictor, step=step)

    def averaged(self) -> Predictor:
        """The model with averaged weights, which is validated and exported."""
        module = self.ema.module
        assert isinstance(module, Predictor)
        return module.eval()

    def state(self) -> dict[str, Any]:
        projection = {"projection": self.projection.state_dict()} if self.projection else {}
        return projection | {
            "model": self.predictor.state_dict(),
            "ema": self.ema.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.predictor.load_state_dict(state["model"])
        self.ema.module.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.projection is not None:
            self.projection.load_state_dict(state["projection"])


def lr_factor(step: int, total: int, warmup: float) -> float:
    """Linear warm-up over a share of the steps, then half a cosine to 0."""
    warm = max(1, round(warmup * total))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1.0 + math.cos(math.pi * (step - warm) / max(1, total - warm)))
