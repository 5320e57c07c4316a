"""A model from outside as a member of an ensemble, with the kit's chunks and classes.

It never ends a submission. Where an engine fails, the next one takes over, and where none is left it
answers with NaN, as for classes that it does not know.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from birdkit.activations import logit
from birdkit.contract import Contract
from birdkit.engines import golden
from birdkit.engines.engine import Answers
from birdkit.engines.ladder import Opened
from birdkit.engines.layout import Layout
from birdkit.errors import UserError, first_line
from birdkit.log import timed
from birdkit.outside import card as cards
from birdkit.outside.card import Card
from birdkit.outside.labels import ClassMap
from birdkit.outside.model import OutsideModel
from birdkit.outside.probe import SUFFIX as PROBE_SUFFIX
from birdkit.outside.probe import Probe
from birdkit.outside.runners import RUNNERS, package
from birdkit.tables import read_json

MEMBER_KEY = "member"  # in a card: the contract that a member keeps, and its labels' columns
PROBE_KEY = "probe"  # there: whether a probe lies beside the card
CONTRACT_KEYS = ("sample_rate", "chunk_s", "window_s", "classes")


def contract_for(card: Card, kit: Contract) -> Contract:
    """The contract of a member beside the kit's own: their classes, windows and rate."""
    chunk_s = max(kit.window_s, card.window_s)
    return Contract(kit.sample_rate, chunk_s, kit.window_s, kit.classes)


@dataclass(frozen=True)
class Membership:
    """What a model folder holds of a model from outside, besides its file.

    classes : which of its labels speak of which class
    contract : what the member keeps, as the kit's own do
    probe : a layer over its embedding that was trained for these classes, where there is one
    """

    card: Card
    classes: ClassMap
    contract: Contract
    probe: Probe | None = None

    @property
    def known(self) -> NDArray[np.bool_]:
        """(classes,): which classes it answers for."""
        return self.classes.known if self.probe is None else self.classes.known | self.probe.known

    @property
    def tensors(self) -> list[str]:
        """What is asked of the model file."""
        return [self.card.output] if self.probe is None else [self.card.output, self.card.embedding]

    def with_probe(self, share: float | None) -> Membership:
        """The same with such a share of its probe; None leaves the probe out."""
        if self.probe is None or share is None:
            return replace(self, probe=None)
        return replace(self, probe=replace(self.probe, share=share))

    def save(self, path: Path) -> None:
        """Write the card, which says the classes that its labels were mapped to, and the probe."""
        columns = dict(zip(self.classes.classes, map(list, self.classes.columns), strict=True))
        kept = {key: getattr(self.contract, key) for key in CONTRACT_KEYS}
        probed = {PROBE_KEY: self.probe is not None}
        self.card.save(path, **{MEMBER_KEY: {**kept, **probed, "columns": columns}})
        probe_file(path).unlink(missing_ok=True)
        if self.probe is not None:
            self.probe.save(probe_file(path))

    @classmethod
    def read(cls, path: Path) -> Membership:
        """Read what `save` wrote. Raises `UserError` for what is no member's card, or a bad probe."""
        card, values = cards.load(path), read_json(path).get(MEMBER_KEY, {})
        try:
            contract = Contract(**{key: _plain(values[key]) for key in CONTRACT_KEYS})
            columns = tuple(tuple(map(int, values["columns"][name])) for name in contract.classes)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: is no member's card ({error!r}); add the member again") from error
        if not all(0 <= column < len(card.labels) for of_class in columns for column in of_class):
            raise UserError(f"{path}: names a label that it lacks; add the member again")
        probe = Probe.load(probe_file(path)) if values.get(PROBE_KEY) else None
        if probe is not None and len(probe.bias) != len(contract.classes):
            raise UserError(
                f"{probe_file(path)}: answers for {len(probe.bias)} classes, and the member's card has "
                f"{len(contract.classes)}; add the member again"
            )
        return cls(card, ClassMap(contract.classes, columns, {}), contract, probe)


def probe_file(path: Path) -> Path:
    """The probe beside the card at `path`."""
    return path.with_name(path.name.removesuffix(cards.CARD_SUFFIX) + PROBE_SUFFIX)


def _plain(value: Any) -> Any:
    return tuple(map(str, value)) if isinstance(value, list) else value


class MappedEngine:
    """A model from outside behind the call that the kit's engines have."""

    def __init__(self, model: OutsideModel, member: Membership) -> None:
        self._model, self._member, self.contract = model, member, member.contract

    def __call__(self, inputs: NDArray[np.float32]) -> Answers:
        # Chunks one after another are a recording whose windows are as long as they.
        chunk_s, rate = self.contract.chunk_s, self.contract.sample_rate
        heard = self._model.hear(inputs.reshape(-1), rate, len(inputs), chunk_s)
        clipwise = self._member.classes.onto_classes(heard.scores)
        if self._member.probe is not None and heard.embeddings is not None:
            clipwise = self._member.probe.beside(clipwise, heard.embeddings)
        return {"clipwise": clipwise, "segmentwise": logit(clipwise)}


class OutsideMember:
    """A member in the first engine that runs it, and then the next; `fault` says why none is left.

    Parameters
    ----------
    opened : the engine to begin with
    reopen : opens the next engine, given the descriptions of those that failed; raises `UserError`
    """

    def __init__(self, opened: Opened, reopen: Callable[[Sequence[str]], Opened]) -> None:
        self.opened, self._reopen = opened, reopen
        self.contract = opened.engine.contract
        self.fault = ""
        self._lost: list[str] = []
        self._lock = threading.Lock()

    def __call__(self, inputs: NDArray[np.float32]) -> Answers:
        while not self.fault:
            opened = self.opened
            try:
                return opened.engine(inputs)
            except Exception as error:  # whatever an engine throws, the submission goes on
                self._replace(opened, error)
        shape = (len(inputs), len(self.contract.classes))
        return {name: np.full(shape, np.nan, dtype=np.float32) for name in self.contract.tensors}

    def _replace(self, failed: Opened, error: Exception) -> None:
        """Open the next engine; the first of several callers to fail does."""
        with self._lock:
            if self.opened is not failed or self.fault:
                return
            self._lost.append(failed.description)
            try:
                self.opened = self._reopen(self._lost)
            except UserError:
                self.fault = f"{failed.description} failed at work ({first_line(error)})"


def open_member(folder: Path, name: str, layout: Layout, engine: str = "auto") -> OutsideMember:
    """Open a member of a model folder. Raises `UserError` where no engine runs it.

    Parameters
    ----------
    engine : the one engine to use where its kind of file has several, or "auto"
    """

    def open_next(avoid: Sequence[str]) -> Opened:
        return _open(folder, name, layout, engine, avoid)

    return OutsideMember(open_next(()), open_next)


def _open(folder: Path, name: str, layout: Layout, engine: str, avoid: Sequence[str]) -> Opened:
    """The first engine that runs the member and answers its golden input as recorded."""
    path = cards.card_of(folder, name)
    member = Membership.read(path)
    card, contract = member.card, member.contract
    file = cards.model_file(path, card.kind)
    runners = RUNNERS[card.kind]
    chosen = [load for load in runners if load.name == engine] or runners
    failed: list[str] = []
    for load in chosen:
        description = f"{load.name} ({file.name}, f32)"
        if description in avoid:
            continue
        try:
            with timed(f"{description} opened as {layout}"):
                runner = load(file, card, layout, member.tensors)
                model = OutsideModel(card, runner, member.probe is not None, str(file))
                mapped = MappedEngine(model, member)
                answers = mapped(golden.question(contract))
            if fault := golden.fault(folder, name, "f32", contract, answers):
                raise RuntimeError(fault)
            return Opened(mapped, description, failed, str(package(load.name).__file__))
        except Exception as error:  # whatever an engine throws, the next one is tried
            failed.append(f"{load.name} on {file.name}: {type(error).__name__}: {first_line(error)}")
    raise UserError(f"{folder}: no engine runs {name} ({'; '.join(failed) or 'all failed before'})")
