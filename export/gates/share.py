"""The share of the mean that a member from outside gets, chosen on labelled soundscapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from birdkit.engines.layout import Layout, usable_cores
from birdkit.errors import UserError
from birdkit.outside.card import card_of, model_file
from birdkit.outside.member import MappedEngine, Membership
from birdkit.outside.model import open_with
from birdkit.outside.probe import joined
from birdkit.scoring import ensemble
from birdkit.scoring.averaging import AVERAGINGS
from birdkit.scoring.ensemble import Ensemble, Spec, combine
from export.gates.selection import Judgement, Labelled
from train.data.competition import class_groups
from train.scoring.auc import macro_auc, paired_bootstrap
from train.scoring.evaluate import TruthSet, member_scores

SHARES = (0.2, 0.35, 0.5, 0.65, 0.8)
# Where there is nothing to choose on; by logits BirdNET ranked best in every training.
UNTESTED, UNTESTED_AVERAGING = 0.5, "logit"
PROBE_SHARES: tuple[float | None, ...] = (None, 0.0, 0.25, 0.5, 0.75)  # None: not worth having
UNTESTED_PROBE = 0.25
LISTED = 8  # of what was tried, in a line of text


@dataclass(frozen=True)
class Asked:
    """A member from outside, and what was asked for; None is chosen."""

    name: str
    share: float | None
    averaging: str | None
    probed: bool = False  # whether it has a probe

    def candidates(self, spec: Spec) -> list[Option]:
        """The member in every way that was not ruled out."""
        shares = SHARES if self.share is None else (self.share,)
        averagings = AVERAGINGS if self.averaging is None else (self.averaging,)
        probes = PROBE_SHARES if self.probed else (None,)
        return [
            Option(with_share(spec, self.name, s, averaging), probe)
            for averaging in averagings
            for s in shares
            for probe in probes
        ]


@dataclass(frozen=True)
class Option:
    """The spec with a member, and the share of its probe in what it answers; None is without one."""

    spec: Spec
    probe: float | None

    def said(self, name: str) -> str:
        share = self.spec.members[name] / sum(self.spec.members.values())
        probe = "" if self.probe is None else f", probe {self.probe:.2g}"
        return f"{self.spec.averaging} {share:.2g}{probe}"


def with_share(spec: Spec, name: str, share: float, averaging: str) -> Spec:
    """The spec with a member last, which is the first to go where the time is short."""
    kit = sum(spec.members.values())
    if share == 1.0:
        members = dict.fromkeys(spec.members, 0.0) | {name: 1.0}
    else:
        members = spec.members | {name: kit * share / (1.0 - share)}
    return replace(spec, members=members, averaging=averaging, soft=(*spec.soft, name))


def without(spec: Spec, name: str) -> Spec:
    """The spec without an older member of this name. Raises `UserError` where it is no soft one."""
    if name in spec.members and name not in spec.soft:
        raise UserError(f"--name {name}: is a model of the folder's own; give another name")
    return spec.only([member for member in spec.members if member != name])


def add(
    folder: Path, spec: Spec, asked: Asked, labelled: Labelled, data: Path | None
) -> tuple[float | None, str]:
    """Write the spec with the member into a folder that holds its files.

    Returns
    -------
    The share that its probe should have, None where it should have none, and a line on the choice.
    """
    if labelled.truth_set is None or data is None:
        share, averaging = asked.share or UNTESTED, asked.averaging or UNTESTED_AVERAGING
        option = Option(
            with_share(spec, asked.name, share, averaging), UNTESTED_PROBE if asked.probed else None
        )
        option.spec.save(folder)
        said = option.said(asked.name)
        return option.probe, f"{asked.name}: {said}; not chosen, since {labelled.note}"
    options = asked.candidates(spec)
    options[0].spec.save(folder)
    layout = Layout(usable_cores(), 1, 4)
    loaded = ensemble.load(folder, layout, precisions=())
    if asked.name in loaded.absent:
        raise UserError(f"{folder}: {'; '.join(loaded.fallbacks)}")
    heard = Heard(member_scores(loaded.ensemble, labelled.truth_set, layout.streams))
    if asked.probed:
        alone = _by_its_labels(folder, asked.name, layout)
        heard = replace(heard, own=member_scores(alone, labelled.truth_set, layout.streams))
    chosen, line = _choose(asked.name, spec, options, heard, labelled.truth_set)
    chosen.spec.save(folder)
    earlier = Judgement.load(folder)
    lines = [of for of in (earlier.chosen if earlier else []) if not of.startswith(f"{asked.name}: ")]
    classes, groups = loaded.ensemble.contract.classes, class_groups(data)
    scores = {output: heard.scores(output, chosen.probe) for output in heard.every}
    Judgement.of(chosen.spec, scores, labelled, classes, groups, [*lines, line]).save(folder)
    return chosen.probe, line


@dataclass(frozen=True)
class Heard:
    """What the members say of labelled soundscapes: output → of each file.

    every : (members, windows, classes), the one from outside last, by its probe alone where it has one
    own : (1, windows, classes), by its own labels alone; empty where it has no probe
    """

    every: Mapping[str, Sequence[NDArray[np.float32]]]
    own: Mapping[str, Sequence[NDArray[np.float32]]] = field(default_factory=dict)

    def scores(self, output: str, probe: float | None) -> list[NDArray[np.float32]]:
        """(members, windows, classes) of each file, with such a share of the probe."""
        if not self.own:
            return list(self.every[output])
        pairs = zip(self.every[output], self.own[output], strict=True)
        return [np.concatenate([of[:-1], _last(of[-1:], own, probe)]) for of, own in pairs]


def _last(
    probed: NDArray[np.float32], own: NDArray[np.float32], share: float | None
) -> NDArray[np.float32]:
    return own if share is None else joined(own, probed, share)


def _by_its_labels(folder: Path, name: str, layout: Layout) -> Ensemble:
    """A member from outside alone, without its probe."""
    path = card_of(folder, name)
    member = Membership.read(path).with_probe(None)
    model = open_with(member.card, model_file(path, member.card.kind), layout)
    return Ensemble({name: MappedEngine(model, member)}, Spec({name: 1.0}, soft=(name,)))


def _choose(
    name: str, spec: Spec, options: Sequence[Option], heard: Heard, truth_set: TruthSet
) -> tuple[Option, str]:
    """The best of the options, and a line on the choice and its gain over `spec`, which lacks it."""
    before = truth_set.rows(combine([of[:-1] for of in heard.every[spec.output]], spec))
    of_probes = {
        probe: heard.scores(spec.output, probe) for probe in {option.probe for option in options}
    }
    tables = [truth_set.rows(combine(of_probes[option.probe], option.spec)) for option in options]
    aucs = [macro_auc(truth_set.truth, table).macro for table in tables]
    best = int(np.argmax(aucs))
    gain = paired_bootstrap(truth_set.truth, before, tables[best])
    order = sorted(range(len(options)), key=lambda index: -aucs[index])
    tried = ", ".join(f"{options[index].said(name)} {aucs[index]:.4f}" for index in order[:LISTED])
    line = (
        f"{name}: {options[best].said(name)} of the mean; macro-AUC without it "
        f"{macro_auc(truth_set.truth, before).macro:.4f}, gain {gain}, detectable "
        f"{gain.detectable:.4f}{_by_the_probe(options, order, tables, truth_set)}; the best of "
        f"{len(options)}: {tried}"
    )
    return options[best], line


def _by_the_probe(
    options: Sequence[Option],
    order: Sequence[int],
    tables: Sequence[NDArray[np.float32]],
    truth_set: TruthSet,
) -> str:
    """What the probe brings over the best option without it; nothing where there is none."""
    without = next((index for index in order if options[index].probe is None), None)
    probed = next((index for index in order if options[index].probe is not None), None)
    if without is None or probed is None:
        return ""
    gain = paired_bootstrap(truth_set.truth, tables[without], tables[probed])
    return f", of its probe {gain}"
