"""One model's training loop: deterministic by step, and exactly resumable.

Everything random in step s — batch, masks, dropout — is seeded by (seed, s). A state saved after any
step therefore holds no random state, and a run that was killed goes on as if it had not been.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from timm.optim import param_groups_weight_decay
from timm.utils import ModelEmaV3
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader
from tqdm import tqdm

from birdkit.errors import UserError
from train.config.recipe import member_seed
from train.config.settings import Fit, Recipe
from train.data.augment import spec_augment
from train.data.batches import Batches
from train.fit.depthwise import FastDepthwise
from train.fit.losses import clipwise_loss, logit_loss
from train.models import checkpoint
from train.models.checkpoint import MadeBy
from train.models.sed import Predictor

# Chunks whose log-mel a CPU computes at once: they stay in its cache, for half of the time.
CPU_PICTURES = 8

# Output of validation: set of data → output → macro-AUC.
Metrics = dict[str, dict[str, float]]


@dataclass
class Progress:
    """How far a fit is. `losses` has one entry a step, `epochs` one line of figures an epoch."""

    step: int = 0
    losses: list[float] = field(default_factory=list)
    epochs: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Precision:
    """Autocast in what the device has: bf16, or fp16 with a GradScaler (T4, P100), else f32."""

    device: torch.device
    dtype: torch.dtype

    @classmethod
    def choose(cls, device: torch.device, amp: str) -> Precision:
        named = {"bf16": torch.bfloat16, "fp16": torch.float16, "f32": torch.float32}
        if amp in named:
            return cls(device, named[amp])
        if amp != "auto":
            raise UserError(f"fit.amp '{amp}' is unknown; choose auto, {', '.join(named)}")
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


def choose_device(name: str) -> torch.device:
    """Of a command's `--device`. Raises `UserError` for one that is unknown or not there."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device {name} is unknown; choose cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device {name}: this torch sees no CUDA device; see README, Install")
    # The log-mel must not be rounded to TF32 on the way.
    torch.set_float32_matmul_precision("highest")
    return device


class Trainer:
    """A predictor, its optimiser and its moving average, one step at a time.

    `teachers`, of the same front end, are heard where the recipe distils.
    """

    def __init__(
        self,
        predictor: Predictor,
        recipe: Recipe,
        total_steps: int,
        device: torch.device,
        teachers: Sequence[Predictor] = (),
    ):
        fit = recipe.fit
        self.recipe = recipe
        self.seed = member_seed(recipe)
        self.total_steps = total_steps
        self.average_from = round(fit.average_from * total_steps)
        self.device = device
        self.precision = Precision.choose(device, fit.amp)
        self.distil_from = recipe.rounds[0].pseudo.first_step(total_steps)
        self.teachers = [
            each.network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
            for each in teachers
        ]
        self.predictor = predictor.to(device)
        self.predictor.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = ModelEmaV3(self.predictor, decay=fit.ema_decay, use_warmup=True)
        groups = param_groups_weight_decay(self.predictor, fit.weight_decay)
        self.optimizer = torch.optim.AdamW(groups, lr=fit.lr)
        self.scaler = self.precision.grad_scaler()

    def step(self, waveforms: Tensor, targets: Tensor, step: int) -> float:
        """One optimiser step; `step` seeds what is random in it. Returns the loss."""
        fit = self.recipe.fit
        seed = self.seed * 1_000_003 + step
        torch.manual_seed(seed)
        rate = fit.lr * lr_factor(min(step, self.average_from), self.total_steps, fit.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        waveforms = waveforms.to(self.device, non_blocking=True)
        targets = targets.to(self.device, non_blocking=True)
        self.predictor.train()
        with torch.no_grad():
            picture = self._picture(waveforms)
            generator = torch.Generator().manual_seed(seed)
            masked = spec_augment(picture, self.recipe.augment, generator)
            masked = masked.contiguous(memory_format=torch.channels_last)
        with self.precision.autocast():
            clipwise, framewise = self.predictor.network.over_time(masked)
        told = None
        if self.teachers and step >= self.distil_from:
            told = self._told(picture, framewise.shape[2])
        loss = self._loss(clipwise, framewise, targets, told)
        self._update(loss, fit.grad_clip)
        self._average(step)
        return float(loss.detach())

    def _picture(self, waveforms: Tensor) -> Tensor:
        front_end = self.predictor.front_end
        if self.device.type != "cpu":
            return front_end(waveforms)
        return torch.cat([front_end(part) for part in waveforms.split(CPU_PICTURES)])

    @torch.no_grad()
    def _told(self, picture: Tensor, n_frames: int) -> Tensor:
        """The teachers' mean probabilities (batch, classes, frames) of the sounds unmasked."""
        picture = picture.contiguous(memory_format=torch.channels_last)
        with self.precision.autocast():
            each = [network.over_time(picture)[1].float().sigmoid() for network in self.teachers]
        # Encoders may differ in how many frames they make of a chunk.
        return torch.stack([interpolate(told, n_frames, mode="linear") for told in each]).mean(dim=0)

    def _loss(
        self, clipwise: Tensor, framewise: Tensor, targets: Tensor, told: Tensor | None
    ) -> Tensor:
        fit, pseudo = self.recipe.fit, self.recipe.rounds[0].pseudo
        on_clipwise = clipwise_loss(clipwise, targets, pseudo.soft_clipwise)
        on_segmentwise = logit_loss(framewise.max(dim=2)[0], targets)
        if fit.framewise:
            of_frames = targets[:, :, None].expand_as(framewise)
            if told is not None:
                of_frames = (1.0 - pseudo.distil) * of_frames + pseudo.distil * told
            on_frames = logit_loss(framewise, of_frames)
            on_segmentwise = (1.0 - fit.framewise) * on_segmentwise + fit.framewise * on_frames
        return fit.clipwise_weight * on_clipwise + (1.0 - fit.clipwise_weight) * on_segmentwise

    def _update(self, loss: Tensor, grad_clip: float) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        if grad_clip > 0:
            torch.nn.utils.clip_grad_norm_(self.predictor.parameters(), grad_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _average(self, step: int) -> None:
        before = step - self.average_from
        if before >= 0:  # the plain mean, of weights before this step and these
            self.ema.use_warmup, self.ema.decay = False, before / (before + 1)
        self.ema.update(self.predictor, step=step)

    def averaged(self) -> Predictor:
        """The average of the weights: what is validated and exported."""
        module = self.ema.module
        assert isinstance(module, Predictor)
        return module.eval()

    def state(self) -> dict[str, Any]:
        return {
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


def lr_factor(step: int, total: int, warmup: float) -> float:
    """Linear warm-up over a share of the steps, then half a cosine to 0."""
    warm = max(1, round(warmup * total))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1.0 + math.cos(math.pi * (step - warm) / max(1, total - warm)))


def steps_per_epoch(fit: Fit, n_recordings: int) -> int:
    return fit.steps_per_epoch or max(1, math.ceil(n_recordings / fit.batch))


def run_fit(
    trainer: Trainer,
    batches: Batches,
    validate: Callable[[Predictor], Metrics],
    state_path: Path,
    made_by: MadeBy,
) -> Progress:
    """Train to the end, from the saved state where there is one.

    Parameters
    ----------
    validate : called after each epoch with the averaged model

    Raises
    ------
    UserError
        Where the loss stops being a number.
    """
    fit = trainer.recipe.fit
    progress = _resume(trainer, state_path, made_by)
    per_epoch = trainer.total_steps // fit.epochs
    loader = _loader(batches, range(progress.step, trainer.total_steps), trainer)
    saver = _Saver(trainer, progress, state_path, made_by)
    started, first_step = time.monotonic(), progress.step
    # By epochs and not by steps: killed in validation, a run may have a state of its last step.
    while len(progress.epochs) < fit.epochs:
        _train_to(per_epoch * (len(progress.epochs) + 1), trainer, loader, progress, saver)
        metrics = validate(trainer.averaged())
        mean_loss = sum(progress.losses[-per_epoch:]) / per_epoch
        progress.epochs.append({"loss": mean_loss, "metrics": metrics})
        saver.save()
        each_s = (time.monotonic() - started) / max(1, progress.step - first_step)
        left_s = each_s * (trainer.total_steps - progress.step)
        print(_epoch_line(progress, fit.epochs, left_s), flush=True)
    return progress


def _train_to(
    end: int,
    trainer: Trainer,
    loader: Iterator[tuple[Tensor, Tensor]],
    progress: Progress,
    saver: _Saver,
) -> None:
    """The steps up to `end`, the last of an epoch."""
    title = f"epoch {len(progress.epochs) + 1}"
    with tqdm(total=end, initial=progress.step, desc=title, leave=False, disable=None) as bar:
        while progress.step < end:
            waveforms, targets = next(loader)
            loss = trainer.step(waveforms, targets, progress.step)
            if not math.isfinite(loss):
                raise UserError(f"the loss is {loss} at step {progress.step}; lower fit.lr")
            progress.losses.append(loss)
            progress.step += 1
            bar.update()
            bar.set_postfix(loss=f"{loss:.4f}")
            saver.save_if_due()


class _Saver:
    """Writes the state of a fit, and knows when it last did."""

    def __init__(self, trainer: Trainer, progress: Progress, path: Path, made_by: MadeBy) -> None:
        self._trainer, self._progress, self._path = trainer, progress, path
        self._made_by = asdict(made_by)
        self._saved = time.monotonic()

    def save_if_due(self) -> None:
        if time.monotonic() - self._saved >= self._trainer.recipe.fit.checkpoint_every_s:
            self.save()

    def save(self) -> None:
        facts = {"progress": asdict(self._progress), "made_by": self._made_by}
        checkpoint.write(self._path, {"version": checkpoint.VERSION, **facts, **self._trainer.state()})
        self._saved = time.monotonic()


def _loader(batches: Batches, steps: range, trainer: Trainer) -> Iterator[tuple[Tensor, Tensor]]:
    workers = trainer.recipe.data.workers
    if workers < 0:
        beside_gpu = trainer.device.type == "cuda"
        workers = min(8, max(1, (os.cpu_count() or 2) - 1)) if beside_gpu else 0
    return iter(
        DataLoader(
            batches,
            batch_size=None,
            sampler=steps,
            num_workers=workers,
            # A fork after torch's thread pool has started can hang.
            multiprocessing_context="spawn" if workers else None,
            pin_memory=trainer.device.type == "cuda",
        )
    )


def _resume(trainer: Trainer, path: Path, made_by: MadeBy) -> Progress:
    if not path.is_file():
        return Progress()
    state = checkpoint.read(path)
    changed = made_by.differences(MadeBy(**state["made_by"]))
    if changed:
        print(f"{path}: made by another {changed}; starting again from step 0")
        return Progress()
    trainer.load_state(state)
    progress = Progress(**state["progress"])
    print(f"going on after step {progress.step} of {trainer.total_steps}")
    return progress


def _epoch_line(progress: Progress, n_epochs: int, left_s: float) -> str:
    last = progress.epochs[-1]
    figures = [
        f"{name} {'/'.join(f'{auc:.3f}' for auc in by_output.values())}"
        for name, by_output in last["metrics"].items()
    ]
    columns = "  ".join([f"loss {last['loss']:.4f}", *figures])
    return f"  epoch {len(progress.epochs):>3}/{n_epochs}  {columns}  {left_s / 60:.1f} min left"
