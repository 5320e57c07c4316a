"""Training steps by as many processes as torchrun starts, in float64.

    torchrun --nproc-per-node N -m tests.train.fit.several FILE STEPS ACCUMULATE

The first process writes the weights, the averaged weights and the losses to FILE.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from birdkit.contract import Contract
from birdkit.errors import run_command
from tests.conftest import tiny_recipe
from train.config.job import job_of
from train.fit.processes import Processes, joined
from train.fit.trainer import Trainer
from train.models.sed import Predictor

# Batch norm, dropout, drop path, masks and a loss over pairs of samples.
LOG_MEL = 32, 32
ENCODER = "test_efficientnet"
SETTINGS = [
    *(f"models.encoder={ENCODER}", "models.drop_rate=0.5", "models.drop_path_rate=0.2"),
    *("fit.loss=bce+auc", "fit.batch=8", "fit.grad_clip=1.0"),
]


def trained(processes: Processes, n_steps: int, accumulate: int) -> dict[str, Any]:
    """The weights and losses of a training on noise."""
    recipe = tiny_recipe(*SETTINGS, f"fit.accumulate={accumulate}")
    job = job_of(recipe, 0, ENCODER)
    torch.manual_seed(0)
    contract = Contract(32000, 1.0, 1.0, ("a", "b", "1234"))
    predictor = Predictor(job.frontend, job.model, contract).double()
    # The log-mel is float32; samples that are one already keep all of their digits.
    predictor.front_end = nn.Unflatten(1, (1, *LOG_MEL))  # type: ignore[assignment]
    trainer = Trainer(predictor, job, n_steps, torch.device("cpu"), processes=processes)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for step in range(n_steps):
        sounds = torch.rand(job.fit.batch, math.prod(LOG_MEL), generator=generator)
        targets = torch.randint(0, 2, (job.fit.batch, 3), generator=generator).double()
        losses.append(trainer.step(sounds[trainer.own].double(), targets[trainer.own], step))
    state = trainer.state()
    return {"model": state["model"], "ema": state["ema"], "losses": torch.stack(losses)}


def main() -> int:
    path, n_steps, accumulate = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    with joined() as processes:
        result = trained(processes, n_steps, accumulate)
        if processes.rank:
            processes.receive()
        else:
            torch.save(result, path)
    return 0


if __name__ == "__main__":
    run_command(main)
