"""The rounds of a run: pseudo labels, students, scores. What is done already is not done again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from birdkit.errors import UserError
from birdkit.scoring.ensemble import Spec
from birdkit.scoring.predict import SoundFile
from train.config import recipe
from train.config.settings import Recipe
from train.data.batches import Batches, Sources
from train.data.dataset import Material
from train.fit import curves
from train.fit.trainer import Metrics, Trainer, run_fit
from train.models import checkpoint, pretrained
from train.models.checkpoint import Final, MadeBy
from train.models.sed import Predictor
from train.rounds import pseudo
from train.rounds.alarms import alarms
from train.rounds.plan import Member, Stage
from train.scoring import summary
from train.scoring.evaluate import TorchEngine, TruthSet, evaluate, held_out_set, soundscape_set
from train.scoring.summary import Scored, Tables

# As parents of what was trained on them, and from it.
LABELS, START = "pseudo labels", "the round before's model"


@dataclass(frozen=True)
class Runner:
    """A run's settings, data and device."""

    config: Recipe
    material: Material
    device: torch.device
    validation: TruthSet | None

    def wanted(self, member: Member, stage: Stage, teacher: pseudo.Teacher | None) -> MadeBy:
        """What a model's checkpoint must be made by; what it is made from must be there."""
        parents = {START: checkpoint.sha256(member.start)} if member.start else {}
        parents |= pretrained.parents(member.config.models[0])
        if teacher is not None:
            heeds = stage.round.pseudo
            if heeds.share:
                parents[LABELS] = checkpoint.sha256(stage.folder / pseudo.NAME)
            if heeds.distil:
                parents |= {f"teacher {name}": each for name, each in teacher.hashes.items()}
        return MadeBy(recipe.to_json(member.config), self.material.fingerprint, parents)

    def done(self, stages: Sequence[Stage]) -> set[Path]:
        """Checkpoints, and folders of pseudo labels, that need not be made again."""
        found: set[Path] = set()
        for stage, before in zip(stages, [None, *stages], strict=False):
            teacher = None
            if before is not None:
                if not {member.final for member in before.members} <= found:
                    break
                teacher = self.teacher(stage, before)
                if not self._is_labelled(stage, teacher):
                    break
                found.add(stage.folder)
            for member in stage.members:
                if _load_if_done(member, self.wanted(member, stage, teacher)) is not None:
                    found.add(member.final)
        return found

    def _is_labelled(self, stage: Stage, teacher: pseudo.Teacher) -> bool:
        """Whether all that the teacher has to say is there."""
        settings = stage.round.pseudo
        if not settings.share:
            return True
        by = pseudo.made_by(teacher, self.to_label(stage), settings)
        return pseudo.is_made_by(stage.folder / pseudo.NAME, by, settings)

    def to_label(self, stage: Stage) -> list[SoundFile]:
        paths = self.material.soundscapes(validating=stage.round.pseudo.validating)
        if not paths:
            raise UserError(
                f"{self.material.competition.roots[0] / 'train_soundscapes'}: holds no unlabelled "
                "soundscapes; remove the recipe's later rounds, or set pseudo.validating=true"
            )
        return pseudo.soundscape_files(paths, self.material.contract)

    def teacher(self, stage: Stage, before: Stage) -> pseudo.Teacher:
        checkpoints = {m.name: m.final for m in before.members if m.name in stage.round.teacher}
        return pseudo.Teacher.load(checkpoints, self.device)

    def label(
        self, stage: Stage, teacher: pseudo.Teacher, last: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """The round's pseudo labels; returns their provenance.

        Raises `UserError` at an alarm, where the recipe says so.
        """
        settings = stage.round.pseudo
        files = self.to_label(stage)
        print(
            f"\nround {stage.index}: {settings.output} of {' + '.join(teacher.finals)} on "
            f"{len(files)} soundscapes",
            flush=True,
        )
        path = pseudo.label(teacher, files, settings, stage.folder)
        facts = pseudo.describe(path, settings)
        print(pseudo.line(facts, path))
        for name, why in facts["failures"].items():
            print(f"left out: {name}: {why}")
        raised = alarms(facts, last, settings.alarms)
        for each in raised:
            print(f"alarm: {each}")
        if raised and settings.alarms.action == "stop":
            raise UserError(
                f"{path}: {len(raised)} alarms, the first: {raised[0]}; mend the teacher, or go on "
                "with pseudo.alarms.action='warn'"
            )
        return facts

    def train(self, member: Member, stage: Stage, teacher: pseudo.Teacher | None) -> Final:
        """Train one model, or load it where it is done. Round 0 has no teacher.

        Writes `state.pt`, `final.pt`, `history.json` and `curves.png`.
        """
        made_by = self.wanted(member, stage, teacher)
        done = _load_if_done(member, made_by)
        if done is not None:
            print(f"{member.final}: done already")
            return done
        member.folder.mkdir(parents=True, exist_ok=True)
        commit = checkpoint.commit()  # of the code that starts, not of edits made while it trains
        config, contract = member.config, self.material.contract
        model = config.models[0]
        torch.manual_seed(recipe.member_seed(config))
        predictor = Predictor(config.frontend, model, contract)
        first = replace(model, weights=str(member.start)) if member.start else model
        weights_from = pretrained.start(predictor, first)
        print(weights_from)
        sources = self._sources(member, stage)
        total = member.steps(len(sources.recordings))
        teachers = teacher.predictors.values() if teacher and stage.round.pseudo.distil else ()
        trainer = Trainer(predictor, config, total, self.device, tuple(teachers))
        print(f"{total} steps of {config.fit.batch} on {self.device}, {trainer.precision}", flush=True)
        known = self._validation_sets()

        def validate(averaged: Predictor) -> Metrics:
            return figures(averaged, known, config, self.device)

        batches = Batches(sources, contract, config, total)
        progress = run_fit(trainer, batches, validate, member.folder / checkpoint.STATE_NAME, made_by)
        curves.draw_curves(progress, member.folder / "curves.png", model.encoder)
        (member.folder / "history.json").write_text(json.dumps(asdict(progress)) + "\n")
        final = Final(
            contract,
            made_by,
            weights_from,
            commit,
            # Its strings made anew, for pickle tells shared ones from equal ones: the bytes, and so the
            # hash, must not depend on whether the figures were read back from a state.
            metrics=json.loads(json.dumps(progress.epochs[-1]["metrics"])),
            state={key: value.cpu() for key, value in trainer.averaged().state_dict().items()},
            trained_on=sources.soundscapes(),
        )
        final.save(member.final)
        return final

    def _sources(self, member: Member, stage: Stage) -> Sources:
        sources = self.material.sources()
        settings = stage.round.pseudo
        if not stage.index or not settings.share:
            return sources
        paths = self.material.soundscapes(validating=settings.validating)
        leave_out: list[str] = []
        if settings.out_of_fold:
            names = [each.name for each in stage.members]
            part, n_parts = names.index(member.name), len(names)
            leave_out = [path.name for path in paths[part::n_parts]]
        labels = pseudo.read(stage.folder / pseudo.NAME)
        return replace(sources, pseudo=pseudo.to_train_on(labels, settings, paths, leave_out))

    def _validation_sets(self) -> list[TruthSet]:
        contract = self.material.contract
        sets = [
            held_out_set(self.material.held_out, contract),
            soundscape_set(self.material.validating, contract),
        ]
        return [each for each in sets if each is not None]

    def score(self, stage: Stage, finals: Mapping[str, Final]) -> list[Scored]:
        """The round's models and their mean on labelled soundscapes, and on `--validation`."""
        sets = [soundscape_set(self.material.validating, self.material.contract), self.validation]
        hashes = {member.name: checkpoint.sha256(member.final) for member in stage.members}
        smoothing = self.config.postprocess.smoothing
        return [
            summary.score_round(finals, hashes, each, smoothing, self.device, stage.folder)
            for each in sets
            if each is not None
        ]

    def run(self, stages: Sequence[Stage], out: Path) -> None:
        """Every round in turn, its figures after it."""
        facts: dict[str, Any] | None = None
        last: list[Scored] = []
        tables: list[Tables] = []
        for stage, before in zip(stages, [None, *stages], strict=False):
            teacher = None
            if before is not None:
                teacher = self.teacher(stage, before)
                if stage.round.pseudo.share:
                    facts = self.label(stage, teacher, facts)
            finals = {}
            for member in stage.members:
                print(f"\nround {stage.index}, {member.name}: {member.config.models[0].encoder}")
                finals[member.name] = self.train(member, stage, teacher)
            scored = self.score(stage, finals)
            tables.append(summary.of_round(stage.index, scored, last))
            last = scored
            summary.write(tables, out)
            for line in summary.lines(tables[-1].models):
                print(line)
        (out / checkpoint.RECIPE_NAME).write_text(recipe.to_json(self.config) + "\n")


def _load_if_done(member: Member, made_by: MadeBy) -> Final | None:
    if not member.final.is_file():
        return None
    final = Final.load(member.final)
    changed = made_by.differences(final.made_by)
    if changed:
        print(f"{member.final}: made by another {changed}; it is to be trained again")
        return None
    return final


def figures(
    predictor: Predictor, sets: Sequence[TruthSet], config: Recipe, device: torch.device
) -> Metrics:
    """Macro-AUC of a model on each set, for each output."""
    spec = Spec({"model": 1.0}, smoothing=config.postprocess.smoothing)
    engines = {"model": TorchEngine(predictor.to(device), device)}
    return {
        each.name: {output: auc.macro for output, auc in evaluate(engines, spec, each).items()}
        for each in sets
    }
