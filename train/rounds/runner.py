"""Runs the rounds of a run: pseudo labels, students, scores. Finished work is not repeated."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from birdkit.errors import UserError
from birdkit.files import write_whole
from birdkit.log import LOG
from birdkit.scoring.parts import SoundFile
from train.config import provenance
from train.config import recipe as recipes
from train.config.job import Job
from train.config.provenance import differences
from train.config.settings import Recipe
from train.data.batches import Sources
from train.data.dataset import Dataset
from train.data.folds import left_out_of_fold
from train.fit.processes import Processes
from train.fit.stop import Stop
from train.models import checkpoint, pretrained
from train.models.checkpoint import Final
from train.outside import teachers as outside
from train.outside.answers import KeptEmbeddings
from train.outside.teachers import Model as OutsideModel
from train.outside.teachers import Outside
from train.rounds import class_table, pseudo_labels, side_by_side, stop_rule, teachers
from train.rounds.alarms import alarms
from train.rounds.plan import Member, Stage
from train.rounds.pseudo_labels import Summary
from train.rounds.teachers import Teacher
from train.rounds.training import Training, write_events
from train.scoring import summary
from train.scoring.evaluate import (
    HELD_OUT,
    TruthSet,
    held_out_set,
    soundscape_set,
)
from train.scoring.summary import Scored, Tables

# Names of a checkpoint's parents.
LABELS, START = "pseudo labels", "the round before's model"
EMBEDDINGS = "embeddings of {}"


@dataclass(frozen=True)
class Runner:
    """A run's settings, data and device, and the processes that train it together.

    `restart` trains finished models again that changed; `tensorboard` writes their curves for it;
    `stop` says how long the run goes on, and `jobs` how many models train at a time (0: as many as gain
    by it).
    """

    recipe: Recipe
    dataset: Dataset
    device: torch.device
    validation: TruthSet | None
    restart: bool = False
    tensorboard: bool = False
    jobs: int = 0
    stop: Stop = field(default_factory=Stop)
    outside: Mapping[str, Outside] = field(default_factory=dict)  # teachers from outside, by name
    processes: Processes = field(default_factory=Processes)
    _files: dict[bool, list[SoundFile]] = field(default_factory=dict, repr=False, compare=False)

    def made_by(self, member: Member, stage: Stage) -> dict[str, Any]:
        """The inputs of a model's checkpoint. All files among them must be there."""
        parents = {START: checkpoint.sha256(member.start)} if member.start else {}
        parents |= pretrained.parents(member.job.model)
        parents |= self.dataset.background_parents(member.job)
        if name := member.job.fit.distil_from:
            parents[EMBEDDINGS.format(name)] = provenance.key(self.outside[name].made_by)
        if stage.draws(member):
            parents[LABELS] = checkpoint.sha256(stage.folder / pseudo_labels.NAME)
        return checkpoint.made_by(member.job, self.dataset.fingerprint, parents)

    def done(self, stages: Sequence[Stage]) -> set[Path]:
        """Checkpoints, and folders of pseudo labels, that need not be made again.

        Raises `UserError` where a finished model would be made again, unless the run restarts, and
        where there are no soundscapes to label.
        """
        done: set[Path] = set()
        for stage, before in zip(stages, [None, *stages], strict=False):
            if self._is_labelled(stage, before, done):
                done.add(stage.folder)
            for member in stage.members:
                needed = {member.start} if member.start else set()
                needed |= {stage.folder} if stage.draws(member) else set()
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

    def _is_labelled(self, stage: Stage, before: Stage | None, done: Set[Path]) -> bool:
        """Whether the round's table of teacher probabilities is there.

        A folder without soundscapes, and a teacher from outside that can't answer for them, are refused
        here, before the first round trains.
        """
        if not stage.draws_soundscapes:
            return False
        self._unlabelled(stage)
        for name in stage.outside(before):
            self.outside[name].check(self.to_label(stage))
        if not {member.final for member in stage.teachers(before)} <= done:
            return False
        wanted = self.teacher(stage, before).made_by(self.to_label(stage), stage.round.pseudo)
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

    def teacher(self, stage: Stage, before: Stage | None) -> Teacher:
        models = {member.name: member.final for member in stage.teachers(before)}
        outside = [self.outside[name] for name in stage.outside(before)]
        weights = {name: each.weight for name, each in recipes.teachers_of(self.recipe).items()}
        return Teacher.load(models, self.device, outside, weights)

    def label(self, stage: Stage, teacher: Teacher, last: Summary | None) -> Summary:
        """Make the round's pseudo labels. Raises `UserError` at an alarm, where the recipe says so."""
        pseudo = stage.round.pseudo
        files = self.to_label(stage)
        LOG.info(
            f"\nround {stage.index}: {pseudo.output} of {' + '.join(teacher.names)} on "
            f"{len(files)} soundscapes",
        )
        path = teachers.label(teacher, files, pseudo, stage.folder, self.stop.check)
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

    def train(self, stage: Stage, before: Stage | None) -> dict[str, Final]:
        """The models of a round, of which those that are not done are trained now."""
        finals, to_train = {}, []
        for member in stage.members:
            made_by = self.made_by(member, stage)
            done = self._load_if_done(member, made_by)
            if done is None:
                to_train.append(self.training(member, stage, before, made_by))
                continue
            finals[member.name] = done
            LOG.info(f"{member.final}: done already")
            if self.tensorboard:
                write_events(member)
        on = self._devices([training.n_steps for training in to_train])
        if len(on) > 1:
            names = " and ".join(training.member.name for training in to_train)
            LOG.info(f"\nround {stage.index}: {names}, {len(on)} at a time")
            side_by_side.train(to_train, on, self.stop)
            finals |= {each.member.name: Final.load(each.member.final) for each in to_train}
        else:
            for training in to_train:
                member = training.member
                self.stop.check()
                LOG.info(f"\nround {stage.index}, {member.name}: {member.job.model.encoder}")
                finals[member.name] = training.run(self.device, self.stop, self.processes)
        return {member.name: finals[member.name] for member in stage.members}

    def at_a_time(self, n_steps: Sequence[int]) -> int:
        """How many trainings of so many steps each run at a time."""
        return len(self._devices(n_steps))

    def _devices(self, n_steps: Sequence[int]) -> list[torch.device]:
        """Where each of the trainings at a time runs.

        Processes that share each batch train one model after another, and so does a run that counts
        its steps to an end.
        """
        if self.processes.world > 1 or math.isfinite(self.stop.steps_left):
            return [self.device]
        return side_by_side.devices(self.device, n_steps, self.jobs)

    def training(
        self, member: Member, stage: Stage, before: Stage | None, made_by: dict[str, Any]
    ) -> Training:
        """What a model needs to be trained."""
        job = member.job
        return Training(
            member,
            self.dataset.contract(job),
            replace(job.model, weights=str(member.start)) if member.start else job.model,
            self._sources(member, stage),
            tuple(self._validation_sets(job)),
            made_by,
            checkpoint.commit(),
            self._taught_by(member, stage, before),
            self.tensorboard,
        )

    def _sources(self, member: Member, stage: Stage) -> Sources:
        sources, pseudo = self.dataset.sources(member.job), member.job.pseudo
        if member.job.fit.distil_from:
            sources = replace(sources, embeddings=self._embeddings(member, stage))
        if not stage.draws(member):
            return sources
        paths = self.dataset.soundscapes(validating=pseudo.validating)
        leave_out = left_out_of_fold(paths, member.name, member.job.folds_among)
        labels = pseudo_labels.read(stage.folder / pseudo_labels.NAME)
        return replace(sources, pseudo=pseudo_labels.windows_of(labels, pseudo, paths, leave_out))

    def _embeddings(self, member: Member, stage: Stage) -> KeptEmbeddings:
        """The embeddings that a model learns, of all that it draws."""
        teacher = self.outside[member.job.fit.distil_from]
        assert isinstance(teacher, OutsideModel)  # a table is refused where it is opened
        drawn = outside.files_of(self.dataset, member.job)
        return teacher.embeddings_of([*drawn, *(self.to_label(stage) if stage.draws(member) else ())])

    def ask_teachers(self, stages: Sequence[Stage]) -> None:
        """Have teachers from outside answer for all that is yet to be taught, before the first step."""
        for stage, before in zip(stages, [None, *stages], strict=False):
            if all(member.final.is_file() for member in stage.members):
                continue
            for name in stage.outside(before) if stage.draws_soundscapes else ():
                self.outside[name].scores_of(self.to_label(stage))
            for member in stage.members:
                if member.job.fit.distil_from:
                    self._embeddings(member, stage)

    def _taught_by(self, member: Member, stage: Stage, before: Stage | None) -> tuple[str, ...]:
        """Teachers from outside of a model, of those that taught it and of the one it began as."""
        drawn = stage.draws(member)
        names = [*(stage.outside(before) if drawn else ()), member.job.fit.distil_from]
        credits = {self.outside[name].credit for name in names if name}
        start = member.start or Path(member.job.model.weights)
        finals = [teacher.final for teacher in stage.teachers(before)] if drawn else []
        for path in [*finals, *([start] if start.name == checkpoint.FINAL_NAME else [])]:
            credits |= {*Final.load(path).taught_by}
        return tuple(sorted(credits))

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

    def run(self, stages: list[Stage], out: Path) -> list[Stage]:
        """Run all rounds in order, and write the figures after each. `Stopped` is raised by `stop`.

        A round that must gain and does not ends the run: the recipe that is written, and so all that
        reads the run, ends with the round before. Returns the rounds up to there.
        """
        table = class_table.class_table(self.dataset, self.recipe.data.window_s)
        write_whole(out / class_table.NAME, table.to_csv(index=False).encode())
        labelled: Summary | None = None
        last: list[Scored] = []
        tables: list[Tables] = []
        self.ask_teachers(stages)
        for stage, before in zip(stages, [None, *stages], strict=False):
            if stage.draws_soundscapes:
                labelled = self.label(stage, self.teacher(stage, before), labelled)
            finals = self.train(stage, before)
            self.stop.check()
            scored = self.score(stage, finals)
            tables.append(summary.of_round(stage.index, scored, last))
            summary.write(tables, out)
            for line in summary.lines(tables[-1].models):
                LOG.info(line)
            if stage.round.must_gain and not stop_rule.goes_on(stage.index, last, scored):
                stages = stages[: stage.index]
                break
            last = scored
        recipe = self.recipe
        if len(stages) < len(recipes.rounds_of(recipe)):
            recipe = replace(recipe, rounds=tuple(stage.round for stage in stages))
        write_whole(out / checkpoint.RECIPE_NAME, f"{recipes.to_json(recipe)}\n".encode())
        return stages
