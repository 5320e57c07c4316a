"""Runs the rounds of a run: pseudo labels, students, scores. Finished work is not repeated."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from birdkit.contract import Contract
from birdkit.errors import UserError
from birdkit.files import write_whole
from birdkit.log import LOG
from birdkit.scoring.ensemble import Spec
from birdkit.scoring.parts import SoundFile
from train.config import recipe as recipes
from train.config.job import Job
from train.config.provenance import differences
from train.config.settings import Model, Recipe
from train.data.batches import Batches, Sources
from train.data.dataset import Dataset
from train.data.folds import left_out_of_fold
from train.fit import curves
from train.fit.events import events
from train.fit.loop import Metrics, Progress, run_fit, total_steps
from train.fit.trainer import Trainer
from train.models import checkpoint, pretrained
from train.models.checkpoint import Final
from train.models.sed import Predictor
from train.rounds import class_table, pseudo_labels, teachers
from train.rounds.alarms import alarms
from train.rounds.plan import Member, Stage
from train.rounds.pseudo_labels import Summary
from train.rounds.teachers import Teacher
from train.scoring import summary
from train.scoring.evaluate import (
    HELD_OUT,
    TruthSet,
    engines_for,
    evaluate,
    held_out_set,
    soundscape_set,
)
from train.scoring.summary import Scored, Tables

# Names of a checkpoint's parents.
LABELS, START = "pseudo labels", "the round before's model"


@dataclass(frozen=True)
class Runner:
    """A run's settings, data and device.

    `restart` trains finished models again that changed; `tensorboard` writes their curves for it.
    """

    recipe: Recipe
    dataset: Dataset
    device: torch.device
    validation: TruthSet | None
    restart: bool = False
    tensorboard: bool = False
    _files: dict[bool, list[SoundFile]] = field(default_factory=dict, repr=False, compare=False)

    def made_by(self, member: Member, stage: Stage) -> dict[str, Any]:
        """The inputs of a model's checkpoint. All files among them must be there."""
        parents = {START: checkpoint.sha256(member.start)} if member.start else {}
        parents |= pretrained.parents(member.job.model)
        if stage.index and member.job.pseudo.share:
            parents[LABELS] = checkpoint.sha256(stage.folder / pseudo_labels.NAME)
        return checkpoint.made_by(member.job, self.dataset.fingerprint, parents)

    def done(self, stages: Sequence[Stage]) -> set[Path]:
        """Checkpoints, and folders of pseudo labels, that need not be made again.

        Raises `UserError` where a finished model would be made again, unless the run restarts, and
        where there are no soundscapes to label.
        """
        done: set[Path] = set()
        for stage, before in zip(stages, [None, *stages], strict=False):
            if before is not None and self._is_labelled(stage, before, done):
                done.add(stage.folder)
            for member in stage.members:
                needed = {member.start} if member.start else set()
                needed |= {stage.folder} if stage.index and member.job.pseudo.share else set()
                made_by = self.made_by(member, stage) if needed <= done else None
                if self._load_if_done(member, made_by) is not None:
                    done.add(member.final)
        return done

    def _load_if_done(self, member: Member, made_by: dict[str, Any] | None) -> Final | None:
        """A finished model that is kept; `made_by` is None where its parents are yet to be made."""
        if not member.final.is_file():
            return None
        final = Final.load(member.final)
        changed = ["round before"] if made_by is None else differences(made_by, final.made_by)
        if changed and not self.restart:
            raise UserError(
                f"{member.final}: finished with another {' and '.join(changed)}; name another --out, "
                "or train it again with --restart"
            )
        if changed:
            LOG.info(f"{member.final}: made with another {' and '.join(changed)}; it is trained again")
        return None if changed else final

    def _is_labelled(self, stage: Stage, before: Stage, done: Set[Path]) -> bool:
        """Whether the round's table of teacher probabilities is there."""
        if not stage.draws_soundscapes:
            return False
        self._unlabelled(stage)  # refuses a folder without soundscapes before the first round trains
        if not {member.final for member in stage.teachers(before)} <= done:
            return False
        teacher, pseudo = self.teacher(stage, before), stage.round.pseudo
        files = self.to_label(stage)
        wanted = pseudo_labels.made_by(teacher.hashes, teacher.postprocess.smoothing, files, pseudo)
        return pseudo_labels.can_be_kept(stage.folder / pseudo_labels.NAME, wanted)

    def to_label(self, stage: Stage) -> list[SoundFile]:
        """The soundscapes that a round's teacher labels."""
        validating = stage.round.pseudo.validating
        if validating not in self._files:
            paths = self._unlabelled(stage)
            self._files[validating] = teachers.soundscape_files(paths, self.recipe.data.window_s)
        return self._files[validating]

    def _unlabelled(self, stage: Stage) -> list[Path]:
        paths = self.dataset.soundscapes(validating=stage.round.pseudo.validating)
        if not paths:
            raise UserError(
                f"{self.dataset.competition.roots[0] / 'train_soundscapes'}: holds no unlabelled "
                "soundscapes; remove the recipe's later rounds, or set pseudo.validating=true"
            )
        return paths

    def teacher(self, stage: Stage, before: Stage) -> Teacher:
        return Teacher.load({m.name: m.final for m in stage.teachers(before)}, self.device)

    def label(self, stage: Stage, teacher: Teacher, last: Summary | None) -> Summary:
        """Make the round's pseudo labels. Raises `UserError` at an alarm, where the recipe says so."""
        pseudo = stage.round.pseudo
        files = self.to_label(stage)
        LOG.info(
            f"\nround {stage.index}: {pseudo.output} of {' + '.join(teacher.finals)} on "
            f"{len(files)} soundscapes",
        )
        path = teachers.label(teacher, files, pseudo, stage.folder)
        labels = pseudo_labels.read(path)
        now = pseudo_labels.summarise(labels, pseudo)
        now.save(stage.folder)
        LOG.info(now.line(path))
        for name, why in labels.failures.items():
            LOG.warning(f"left out: {name}: {why}")
        raised = alarms(now, last, pseudo.alarms)
        for line in raised:
            LOG.warning(f"alarm: {line}")
        if raised and pseudo.alarms.action == "stop":
            raise UserError(
                f"{path}: {len(raised)} alarms, the first: {raised[0]}; mend the teacher, or go on "
                "with pseudo.alarms.action='warn'"
            )
        return now

    def train(self, member: Member, stage: Stage) -> Final:
        """Train one model, or load it where it is done.

        Writes `state.pt`, `final.pt`, `history.json` and `curves.png`.
        """
        made_by = self.made_by(member, stage)
        done = self._load_if_done(member, made_by)
        if done is not None:
            LOG.info(f"{member.final}: done already")
            _write_events(member, wanted=self.tensorboard)
            return done
        member.folder.mkdir(parents=True, exist_ok=True)
        commit = checkpoint.commit()  # now, since the code may be edited while it trains
        job, contract = member.job, self.dataset.contract(member.job)
        first = replace(job.model, weights=str(member.start)) if member.start else job.model
        predictor, weights_from = _initial(job, first, contract)
        LOG.info(weights_from)
        sources = self._sources(member, stage)
        trainer = Trainer(predictor, job, total_steps(job.fit, len(sources.recordings)), self.device)
        steps = f"{trainer.total_steps} steps of {job.fit.batch}"
        LOG.info(f"{steps} on {self.device}, {trainer.precision}")
        known = self._validation_sets(job)

        def validate(averaged: Predictor) -> Metrics:
            return macro_aucs(averaged, known, job, self.device)

        batches = Batches(sources, contract, job)
        state_path = member.folder / checkpoint.STATE_NAME
        per_epoch = trainer.total_steps // job.fit.epochs
        with events(member.folder, per_epoch, wanted=self.tensorboard) as watch:
            progress = run_fit(trainer, batches, validate, state_path, made_by, watch)
        _write_history(progress, member)
        final = Final(
            contract,
            made_by,
            weights_from,
            commit,
            # Copied, because pickle stores a shared string otherwise than an equal one: the bytes, and
            # so the hash, must not depend on whether the figures were read back from a state.
            metrics=json.loads(json.dumps(progress.epochs[-1]["metrics"])),
            state={key: value.cpu() for key, value in trainer.averaged().state_dict().items()},
            trained_on=tuple(sorted({*sources.soundscapes(), *pretrained.trained_on(first)})),
        )
        final.save(member.final)
        return final

    def _sources(self, member: Member, stage: Stage) -> Sources:
        sources, pseudo = self.dataset.sources(member.job), member.job.pseudo
        if not stage.index or not pseudo.share:
            return sources
        paths = self.dataset.soundscapes(validating=pseudo.validating)
        leave_out = left_out_of_fold(paths, member.name, member.job.folds_among)
        labels = pseudo_labels.read(stage.folder / pseudo_labels.NAME)
        return replace(sources, pseudo=pseudo_labels.windows_of(labels, pseudo, paths, leave_out))

    def _validation_sets(self, job: Job) -> list[TruthSet]:
        contract = self.dataset.contract(job)
        _, held_out, _ = self.dataset.recordings_of(job.data)
        sets = [
            held_out_set(held_out, contract),
            soundscape_set(self.dataset.validating, contract),
        ]
        return [truth_set for truth_set in sets if truth_set is not None]

    def score(self, stage: Stage, finals: Mapping[str, Final]) -> list[Scored]:
        """The round's models and their mean on every set whose truth is known."""
        hashes = {member.name: checkpoint.sha256(member.final) for member in stage.members}
        postprocess = self.recipe.postprocess
        scored = []
        for truth_set, names in self._sets(stage):
            of_set = {name: finals[name] for name in names}
            made_by = {name: hashes[name] for name in names}
            scored.append(
                summary.score_round(of_set, made_by, truth_set, postprocess, self.device, stage.folder)
            )
        return scored

    def _sets(self, stage: Stage) -> list[tuple[TruthSet, list[str]]]:
        """Labelled soundscapes, `--validation` and held-out recordings, and the models they score.

        Models that hold out other recordings than one another have a set a fold.
        """
        contract = self.dataset.contract(stage.members[0].job)
        everyone = [member.name for member in stage.members]
        sets = [(soundscape_set(self.dataset.validating, contract), everyone)]
        sets.append((self.validation, everyone))
        folds: dict[tuple[int, int], list[Member]] = {}
        for member in stage.members:
            folds.setdefault((member.job.data.fold, member.job.data.n_folds), []).append(member)
        for (fold, n_folds), members in folds.items():
            _, held_out, _ = self.dataset.recordings_of(members[0].job.data)
            name = HELD_OUT if len(folds) == 1 else f"{HELD_OUT}_{fold}_of_{n_folds}"
            sets.append((held_out_set(held_out, contract, name), [member.name for member in members]))
        return [(truth_set, names) for truth_set, names in sets if truth_set is not None]

    def run(self, stages: Sequence[Stage], out: Path) -> None:
        """Run all rounds in order, and write the figures after each."""
        table = class_table.class_table(self.dataset, self.recipe.data.window_s)
        write_whole(out / class_table.NAME, table.to_csv(index=False).encode())
        labelled: Summary | None = None
        last: list[Scored] = []
        tables: list[Tables] = []
        for stage, before in zip(stages, [None, *stages], strict=False):
            if before is not None and stage.draws_soundscapes:
                labelled = self.label(stage, self.teacher(stage, before), labelled)
            finals = {}
            for member in stage.members:
                LOG.info(f"\nround {stage.index}, {member.name}: {member.job.model.encoder}")
                finals[member.name] = self.train(member, stage)
            scored = self.score(stage, finals)
            tables.append(summary.of_round(stage.index, scored, last))
            last = scored
            summary.write(tables, out)
            for line in summary.lines(tables[-1].models):
                LOG.info(line)
        write_whole(out / checkpoint.RECIPE_NAME, f"{recipes.to_json(self.recipe)}\n".encode())


def _initial(job: Job, first: Model, contract: Contract) -> tuple[Predictor, str]:
    """The model before its first step, and a line on where its weights come from."""
    torch.manual_seed(job.seed)
    predictor = Predictor(job.frontend, job.model, contract)
    return predictor, pretrained.start(predictor, first)


def _write_history(progress: Progress, member: Member) -> None:
    curves.draw_curves(progress, member.folder / "curves.png", member.job.model.encoder)
    write_whole(member.folder / checkpoint.HISTORY_NAME, f"{json.dumps(asdict(progress))}\n".encode())


def _write_events(member: Member, *, wanted: bool) -> None:
    """Write a finished model's curves from its history, if that is there."""
    history = member.folder / checkpoint.HISTORY_NAME
    if wanted and history.is_file():
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
