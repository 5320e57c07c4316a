"""The training of one model, with all that it needs: another process can be sent it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from birdkit.contract import Contract
from birdkit.files import write_whole
from birdkit.log import LOG
from birdkit.scoring.ensemble import Spec
from train.config.job import Job
from train.config.settings import Model
from train.data.batches import Batches, Sources
from train.fit import curves
from train.fit.events import events
from train.fit.loop import Metrics, Progress, run_fit, total_steps
from train.fit.processes import Processes
from train.fit.stop import Stop
from train.fit.trainer import Trainer
from train.models import checkpoint, pretrained
from train.models.checkpoint import Final
from train.models.sed import Predictor
from train.rounds.plan import Member
from train.scoring.evaluate import TruthSet, engines_for, evaluate


@dataclass(frozen=True)
class Training:
    """A model that is to be trained, on what, and what its checkpoint will say of it.

    first : the settings by which its first weights are found
    validating : the sets that judge it after each epoch
    commit : of the code when it begins, which may be edited while it trains
    taught_by : teachers from outside, with their licences
    tensorboard : whether its curves are written for that, too
    """

    member: Member
    contract: Contract
    first: Model
    sources: Sources
    validating: tuple[TruthSet, ...]
    made_by: dict[str, Any]
    commit: str
    taught_by: tuple[str, ...]
    tensorboard: bool = False

    @property
    def n_steps(self) -> int:
        return total_steps(self.member.job.fit, len(self.sources.recordings))

    def run(self, device: torch.device, stop: Stop, processes: Processes = Processes()) -> Final:  # noqa: B008  (frozen)
        """Train to the end, from the saved state where there is one.

        Writes `state.pt`, `final.pt`, `history.json` and `curves.png`. `Stopped` is raised by `stop`.
        """
        member, job, contract = self.member, self.member.job, self.contract
        member.folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(job.seed)
        predictor = Predictor(job.frontend, job.model, contract)
        weights_from = pretrained.start(predictor, self.first)
        LOG.info(weights_from)
        trainer = Trainer(predictor, job, self.n_steps, device, self.sources, processes)
        LOG.info(f"{self.n_steps} steps of {job.fit.batch} on {trainer}")

        def validate(averaged: Predictor) -> Metrics:
            return macro_aucs(averaged, self.validating, job, device)

        batches = Batches(self.sources, contract, job)
        state_path = member.folder / checkpoint.STATE_NAME
        with events(member.folder, trainer.steps_an_epoch, wanted=self.tensorboard) as watch:
            progress = run_fit(trainer, batches, validate, state_path, self.made_by, watch, stop)
        _write_history(progress, member)
        final = Final(
            contract,
            self.made_by,
            weights_from,
            self.commit,
            # Copied, because pickle stores a shared string otherwise than an equal one: the bytes, and
            # so the hash, must not depend on whether the figures were read back from a state.
            metrics=json.loads(json.dumps(progress.epochs[-1]["metrics"])),
            state={key: value.cpu() for key, value in trainer.averaged().state_dict().items()},
            trained_on=tuple(sorted({*self.sources.soundscapes(), *pretrained.trained_on(self.first)})),
            taught_by=self.taught_by,
        )
        final.save(member.final)
        return final


def _write_history(progress: Progress, member: Member) -> None:
    curves.draw_curves(progress, member.folder / "curves.png", member.job.model.encoder)
    write_whole(member.folder / checkpoint.HISTORY_NAME, f"{json.dumps(asdict(progress))}\n".encode())


def write_events(member: Member) -> None:
    """Write a finished model's curves for TensorBoard from its history, if that is there."""
    history = member.folder / checkpoint.HISTORY_NAME
    if history.is_file():
        progress = Progress(**json.loads(history.read_text()))
        with events(member.folder, progress.step // len(progress.epochs), wanted=True) as write:
            write(progress)


def macro_aucs(
    predictor: Predictor, sets: Sequence[TruthSet], job: Job, device: torch.device
) -> Metrics:
    """Macro-AUC of a model on each set, for each output."""
    postprocess = job.postprocess
    spec = Spec({"model": 1.0}, smoothing=postprocess.smoothing, pooling=postprocess.pooling)
    aucs = {}
    for truth_set in sets:
        engines = engines_for({"model": predictor}, {"model": postprocess.stretch_s}, device, truth_set)
        found = evaluate(engines, spec, truth_set)
        aucs[truth_set.name] = {output: auc.macro for output, auc in found.items()}
    return aucs
