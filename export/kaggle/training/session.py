"""One session of a training on Kaggle, from the packages of its image to the output that it leaves.

It runs in the notebook there, and the training in processes of its own. What the next session needs is
copied from the earlier output into this one, since the last version's output alone is attached.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from birdkit.errors import UserError
from birdkit.kaggle import manifest, mounts
from birdkit.log import LOG
from export.kaggle.training import image
from export.kaggle.training.settings import RUN, Training
from train.config import recipe as recipes
from train.fit.stop import EXIT_STATUS, Stop


def main(kaggle: Path, kit: Path, started: float) -> str:
    """Train until the end or the time of a session is over; a line on what to do next.

    Parameters
    ----------
    kaggle : /kaggle, with `input` and `working`
    kit : the mounted dataset
    started : Unix time from which the session's time counts

    Raises
    ------
    UserError
        Where this can't work here, or the training failed before it saved anything.
    """
    training = Training.read(kit)
    if problems := manifest.problems(kit):
        raise UserError(f"{kit}: {problems[0]}; bundle and push it again")
    scratch = Path(tempfile.gettempdir()) / "birdkit"  # large, and no part of the output
    run, cache = kaggle / "working" / RUN, scratch / "waveforms"
    image.check(training)
    image.install(training, scratch / "packages")
    from export.kaggle.training import output  # now, since it imports what was installed

    data = mounts.find_competition(kaggle / "input")
    output.take_over(kaggle / "input", run, cache, training)
    command = command_of(kit, training, started, ["--data", data, "--out", run, "--cache", cache])
    status = train(command, kit, scratch / "packages")
    # Where something is there, an exception could lose it.
    if status not in (0, EXIT_STATUS) and not any(run.glob("round*/*")):
        raise UserError(f"the training ended with exit status {status}; the lines above say why")
    output.leave(run, cache, training)
    return output.verdict(run, status)


def command_of(
    kit: Path, training: Training, started: float, places: Sequence[str | Path]
) -> list[str]:
    """The call of train/run.py, with the time that is left of the session."""
    command = [*launcher(training), str(kit / "train" / "run.py"), "--recipe", training.recipe]
    command += ["--device", training.device]
    command += [word for override in training.overrides for word in ("--set", override)]
    return [*command, *map(str, places), "--stop-after", left(training.stop_after, started)]


def launcher(training: Training) -> list[str]:
    """What starts train/run.py; all GPUs share each model where the models of a round do not."""
    recipe = recipes.from_json(json.dumps(training.resolved), training.recipe)
    n_gpus = torch.cuda.device_count()
    if n_gpus < 2 or all(len(each.models) % n_gpus == 0 for each in recipes.rounds_of(recipe)):
        return [sys.executable]
    a_gpu = ["--standalone", "--nproc-per-node", str(n_gpus)]
    return [sys.executable, "-m", "torch.distributed.run", *a_gpu]


def left(stop_after: str, started: float) -> str:
    """The session's time without what is over of it. Raises `UserError` where none is left."""
    limit = Stop.after(stop_after)
    if limit.steps_left < float("inf"):
        return stop_after
    left_s = limit.at - time.monotonic() - (time.time() - started)
    if left_s < 1:
        raise UserError(f"--stop-after {stop_after} was over before the training began")
    return f"{left_s:.0f}s"


def train(command: Sequence[str], kit: Path, packages: Path) -> int:
    """Run a training in the kit's folder, where paths of weights begin; its lines are shown."""
    environment = os.environ | {"PYTHONPATH": str(packages), "PYTHONUNBUFFERED": "1"}
    LOG.info(f"$ {' '.join(command)}")
    with subprocess.Popen(
        command,
        cwd=kit,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            LOG.info(line.rstrip())
    return process.returncode
