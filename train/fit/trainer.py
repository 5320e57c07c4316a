"""Training steps, each of them deterministic, and computed by one process or by several together.

Everything random in step s (batch, masks, dropout) is seeded by (seed, s). A state saved after any step
therefore holds no random state, and any number of processes can go on from it. No step waits for the
device: what a GPU is told in one is not read back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from timm.optim import param_groups_weight_decay
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from birdkit.errors import UserError
from train.config.job import Job
from train.data.augment import band_contrast, draw_contrast, draw_masks, mixed_evenly, spec_augment
from train.data.batches import Sources
from train.fit.distil import Projection, cosine_loss
from train.fit.losses import Answers, Exponents, mixmax, sed_loss
from train.fit.precision import Precision, of_one_size
from train.fit.processes import Part, Processes
from train.fit.whole_batch import AsWhole, gathered
from train.models.sed import Predictor

# Chunks whose log-mel a CPU computes at once: they stay in its cache, which halves the time.
CPU_CHUNKS = 8
# Between two looks at the losses on a GPU.
STEPS_A_READING = 50


class Trainer:
    """A predictor, its optimiser and its moving average, one step at a time.

    Each of several processes has one, and after each step all of them are the same.
    """

    def __init__(
        self,
        predictor: Predictor,
        job: Job,
        total_steps: int,
        device: torch.device,
        sources: Sources | None = None,
        processes: Processes = Processes(),  # noqa: B008  (frozen)
    ) -> None:
        """Of `sources` it takes the groups of classes, and the size of a teacher's embeddings."""
        fit = job.fit
        self.processes = processes
        self.job = job
        self.total_steps = total_steps
        self.average_from = round(fit.average_from * total_steps)
        self.device = device
        self.precision = Precision.choose(device, fit.amp)
        self.predictor = predictor.to(device)
        self.predictor.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = ModelEmaV3(self.predictor, decay=fit.ema_decay, use_warmup=True)
        groups = param_groups_weight_decay(self.predictor, fit.weight_decay)
        self.exponents = Exponents.of(
            fit, predictor.contract.classes, sources.groups if sources else None
        ).to(device)
        self.projection: Projection | None = None
        if sources and sources.embeddings is not None:
            n_features: int = predictor.network.encoder.num_features  # type: ignore[assignment]
            self.projection = Projection(n_features, sources.embeddings.size).to(device)
            groups += param_groups_weight_decay(self.projection, fit.weight_decay)
        on_cuda = device.type == "cuda"
        # Fused, it skips a step of infinite gradients by itself; others read that from the device.
        self.optimizer = torch.optim.AdamW(groups, lr=fit.lr, fused=True if on_cuda else None)
        self.scaler = self.precision.grad_scaler()
        if fit.compile and processes.world > 1:
            raise UserError("fit.compile: trains in one process only; leave it out, or torchrun")
        if fit.mixmax and processes.world > 1:  # its pairs are chunks of two processes
            raise UserError("fit.mixmax: trains in one process only; leave it out, or torchrun")
        encoded = self.predictor.network.encoded
        self._encoded = torch.compile(encoded) if fit.compile else encoded

    def __str__(self) -> str:
        return f"{self.processes}{self.device}, {self.precision}"

    @property
    def steps_a_reading(self) -> int:
        """Steps after which losses are read: to read one is to wait for a GPU."""
        return 1 if self.device.type == "cpu" else STEPS_A_READING

    @property
    def steps_an_epoch(self) -> int:
        return self.total_steps // self.job.fit.epochs

    @property
    def own(self) -> list[int]:
        """The samples of each batch that this process computes."""
        fit = self.job.fit
        return [i for part in self.processes.parts(fit.batch, fit.accumulate) for i in part.own]

    def step(
        self, waveforms: Tensor, targets: Tensor, step: int, embeddings: Tensor | None = None
    ) -> Tensor:
        """One optimiser step on waveforms (batch, samples), targets (batch, classes).

        Of several processes each gives its own samples.

        Parameters
        ----------
        step : seeds all that is random in it
        embeddings : (batch, embedding) of the teacher, where the trainer has a size for them

        Returns
        -------
        The loss of the whole batch, a number that is still on the device.
        """
        fit = self.job.fit
        seed = self.job.seed * 1_000_003 + step
        torch.manual_seed(seed)
        rate = fit.lr * lr_factor(min(step, self.average_from), self.total_steps, fit.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.predictor.train()
        self.optimizer.zero_grad(set_to_none=True)
        n_samples = fit.batch if self.processes.world > 1 else len(waveforms)
        parts = self.processes.parts(n_samples, min(fit.accumulate, n_samples))
        own = [len(part.own) for part in parts]
        generator = torch.Generator().manual_seed(seed)
        masks = draw_masks(n_samples, self.job.augment, generator)
        own_draws = (
            torch.cat([draws[part.own.start : part.own.stop] for part in parts])
            for draws in (masks, draw_contrast(n_samples, generator))
        )
        if embeddings is None:
            embeddings = targets.new_empty(len(targets), 0)
        tensors = (
            self._on_device(tensor).split(own)
            for tensor in (waveforms, targets, embeddings, *own_draws)
        )
        with of_one_size():
            losses = [self._backward(*micro_batch) for micro_batch in zip(parts, *tensors, strict=True)]
        self._update(fit.grad_clip)
        self._average(step)
        return torch.stack(losses).sum()

    def _on_device(self, tensor: Tensor) -> Tensor:
        if self.device.type == "cuda" and tensor.device.type == "cpu":
            tensor = tensor.contiguous().pin_memory()  # nothing where it is already
        return tensor.to(self.device, non_blocking=True)

    def _backward(
        self, part: Part, waveforms: Tensor, targets: Tensor, embeddings: Tensor, *draws: Tensor
    ) -> Tensor:
        """Add the gradients of a micro-batch, and return its loss, both weighted by its share."""
        job, processes = self.job, self.processes
        encoded, answers = self._answers(part, waveforms, draws)
        targets = gathered(targets, part, processes)
        loss = sed_loss(answers, targets, job.fit, self.exponents, job.pseudo.soft_clipwise)
        if job.fit.mixmax:
            loss = loss + job.fit.mixmax * self._mixmax(part, waveforms, answers, draws)
        if self.projection is not None:
            projected = gathered(self.projection(encoded.float()), part, processes)
            on_embeddings = cosine_loss(projected, gathered(embeddings, part, processes))
            weight = job.fit.distil_weight
            loss = on_embeddings if weight == 1.0 else (1 - weight) * loss + weight * on_embeddings
        loss = loss * part.share
        self.scaler.scale(loss).backward()
        return loss.detach()

    def _answers(
        self, part: Part, waveforms: Tensor, draws: Sequence[Tensor]
    ) -> tuple[Tensor, Answers]:
        """What the encoder makes of a process's own chunks, whose log-mels are augmented.

        And what the whole network says of the micro-batch: clipwise and framewise.
        """
        augment, network = self.job.augment, self.predictor.network
        masks, contrast = draws
        with torch.no_grad():
            log_mel = self._log_mel(waveforms)
            if augment.contrast:
                log_mel = band_contrast(log_mel, augment, contrast)
            masked = spec_augment(log_mel, augment, masks)
            masked = masked.contiguous(memory_format=torch.channels_last)
        as_whole = AsWhole(part, self.processes) if self.processes.world > 1 else nullcontext()
        with self.precision.autocast(), as_whole:
            encoded = self._encoded(masked)
            clipwise, framewise = network.answers_over_time(encoded)
        return encoded, (
            gathered(clipwise, part, self.processes), gathered(framewise, part, self.processes),
        )  # fmt: skip

    def _mixmax(
        self, part: Part, waveforms: Tensor, answers: Answers, draws: Sequence[Tensor]
    ) -> Tensor:
        """The consistency of the micro-batch: each chunk of its first half with one of the second."""
        n_mixes = len(waveforms) // 2
        one, other = slice(n_mixes), slice(n_mixes, 2 * n_mixes)
        mixed = mixed_evenly(waveforms[one], waveforms[other])
        _, of_mixes = self._answers(part, mixed, [each[one] for each in draws])
        clipwise, framewise = answers
        parts = (clipwise[one], framewise[one]), (clipwise[other], framewise[other])
        return mixmax(of_mixes, *parts, self.job.fit)

    def _log_mel(self, waveforms: Tensor) -> Tensor:
        """(batch, samples) → (batch, 1, mels, frames)."""
        front_end = self.predictor.front_end
        if self.device.type != "cpu":
            return front_end(waveforms)
        return torch.cat([front_end(part) for part in waveforms.split(CPU_CHUNKS)])

    def _update(self, grad_clip: float) -> None:
        parameters = [*self.predictor.parameters(), *(self.projection or nn.Identity()).parameters()]
        self.processes.sum_gradients(parameters)
        self.scaler.unscale_(self.optimizer)
        if grad_clip > 0:
            torch.nn.utils.clip_grad_norm_(parameters, grad_clip)
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
