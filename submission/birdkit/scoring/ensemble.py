"""Runs several models and combines their scores into one table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from birdkit.contract import WINDOW_OUTPUTS, Contract
from birdkit.engines import golden
from birdkit.engines.engine import Answers, Engine
from birdkit.engines.ladder import open_model
from birdkit.engines.layout import Layout
from birdkit.engines.precision import LOWER_PRECISIONS, REMOVED_PRECISIONS
from birdkit.errors import UserError
from birdkit.files import is_plain, write_whole
from birdkit.grid import cut_inputs
from birdkit.outside.member import OutsideMember, open_member
from birdkit.scoring import window_scores as of_windows
from birdkit.scoring.averaging import (
    AVERAGINGS,
    average,
    constant_where_unknown,
    without_incomplete,
)
from birdkit.scoring.pooling import POOLINGS
from birdkit.scoring.postprocess import smooth
from birdkit.scoring.predict import Scores

SPEC_NAME = "ensemble.json"
SPEC_VERSION = 2
# In windows, or in stretches for a model that hears those. A half comes first, since it covers most
# calls that the unshifted windows cut.
SHIFTS = (0.5, 0.25, 0.75)
STEADY = (0.1, 0.2, 0.4, 0.2, 0.1)  # the kernel of the 2025 winners


@dataclass(frozen=True)
class Spec:
    """The content of `ensemble.json`: the models, their weights, and the post-processing of their mean.

    `members` maps a model to its weight; where time is short the first ones are kept. `output` names
    the output that is used. `files` maps the stem of a model file to the members it holds, where that
    is not one member of its own name. `precisions` are the lower ones that passed their gate, the best
    first. `shifts` are the time shifts of the further passes, in windows or stretches, the most useful
    first. `smoothing` is the kernel of `postprocess.smooth`. `pooling` makes windows of framewise
    answers, one of `POOLINGS`. `soft` names the members from outside, without which a submission goes
    on; each has a file and a card of its name. `steady` are the columns of classes that call on and on,
    such as frogs: these are smoothed by `steady_smoothing` besides.
    """

    members: dict[str, float]
    output: str = "clipwise"
    smoothing: tuple[float, ...] = (1.0,)
    averaging: str = "probability"
    files: dict[str, list[str]] = field(default_factory=dict)
    precisions: tuple[str, ...] = ()
    shifts: tuple[float, ...] = SHIFTS
    pooling: str = "plain"
    soft: tuple[str, ...] = ()
    steady: tuple[int, ...] = ()
    steady_smoothing: tuple[float, ...] = STEADY
    version: int = SPEC_VERSION

    @property
    def stems(self) -> tuple[str, ...]:
        """The names of the kit's own model files, without suffix."""
        return tuple(self.members_of())

    def members_of(self) -> dict[str, list[str]]:
        """Stem of each of the kit's own model files → the members it holds."""
        return self.files or {name: [name] for name in self.members if name not in self.soft}

    def only(self, members: Sequence[str] | None) -> Spec:
        """The spec cut to these members; None changes nothing."""
        if members is None:
            return self
        weights = {name: weight for name, weight in self.members.items() if name in members}
        held = {
            stem: [name for name in of if name in weights] for stem, of in self.members_of().items()
        }
        soft = tuple(name for name in self.soft if name in weights)
        files = {stem: of for stem, of in held.items() if of}
        return replace(self, members=weights, files=files, soft=soft)

    def save(self, model_dir: Path) -> None:
        """Write `ensemble.json` into a model folder."""
        write_whole(model_dir / SPEC_NAME, f"{json.dumps(asdict(self), indent=2)}\n".encode())

    @classmethod
    def load(cls, model_dir: Path) -> Spec:
        """Read back what `save` wrote. Raises `UserError` for an unreadable or invalid file."""
        path = model_dir / SPEC_NAME
        if not path.is_file():
            raise UserError(f"{path}: not found; run export/to_onnx.py, or give --model DIR")
        try:
            settings = json.loads(path.read_text())
            if settings["version"] != SPEC_VERSION:
                raise UserError(
                    f"{path}: version {settings['version']}, this kit reads {SPEC_VERSION}; "
                    "export the models again"
                )
            known = {setting.name for setting in fields(cls)}
            spec = cls(**{key: value for key, value in settings.items() if key in known})
            current = tuple(name for name in spec.precisions if name not in REMOVED_PRECISIONS)
            spec = replace(
                spec,
                precisions=current,
                smoothing=tuple(spec.smoothing),
                shifts=tuple(spec.shifts),
                soft=tuple(spec.soft),
                steady=tuple(spec.steady),
                steady_smoothing=tuple(spec.steady_smoothing),
            )
            fault = spec.fault()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: can't be read ({error!r}); export the models again") from error
        if fault:
            raise UserError(f"{path}: {fault}; export the models again")
        return spec

    def fault(self) -> str:
        """The first value that the submission could not use, by name; empty where there is none.

        Raises `TypeError` or `AttributeError` where a value is of another kind.
        """
        weights, held = self.members.values(), [name for of in self.files.values() for name in of]
        if not (self.members and all(_within(w, 0, 1e9) for w in weights) and sum(weights) > 0):
            return "needs members with weights >= 0 and a positive sum"
        if unplain := [name for name in (*self.members, *self.files) if not is_plain(name)]:
            return f"'{unplain[0]}' is no plain name of a model"
        if strangers := [name for name in self.soft if name not in self.members]:
            return f"soft names {strangers[0]}, which is no member"
        if self.files and sorted(held) != sorted(set(self.members) - set(self.soft)):
            return f"its files hold {', '.join(held) or 'nothing'}, not its members"
        for key, value, known in (
            ("output", self.output, WINDOW_OUTPUTS),
            ("pooling", self.pooling, tuple(POOLINGS)),
            ("averaging", self.averaging, AVERAGINGS),
            *(("precision", name, LOWER_PRECISIONS) for name in self.precisions),
        ):
            if value not in known:
                return f"{key} '{value}' is none of {', '.join(known)}"
        if not all(_within(shift, 1e-6, 1 - 1e-6) for shift in self.shifts):
            return f"shifts {list(self.shifts)} must be between 0 and 1"
        for key, kernel in (
            ("smoothing", self.smoothing), ("steady_smoothing", self.steady_smoothing)
        ):  # fmt: skip
            if len(kernel) % 2 == 0 or not all(_within(w, 0, 1e9) for w in kernel) or sum(kernel) <= 0:
                return f"{key} {list(kernel)} needs an odd number of weights >= 0, sum > 0"
        if not all(_within(column, 0, 1e9) and isinstance(column, int) for column in self.steady):
            return f"steady {list(self.steady)} must be numbers of classes, from 0"
        return ""

    def smooth(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """(windows, classes) of a whole recording → the same, smoothed over its windows."""
        scores = smooth(scores, self.smoothing)
        if self.steady:
            columns = list(self.steady)
            scores = scores.copy()
            scores[:, columns] = smooth(scores[:, columns], self.steady_smoothing)
        return scores


def _within(value: object, lowest: float, highest: float) -> bool:
    """Whether a value is a number in this range; NaN and booleans are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and lowest <= value <= highest


class Ensemble:
    """The engines of a model folder, as many as it has files, behind one call a recording."""

    def __init__(self, engines: Mapping[str, Engine], spec: Spec) -> None:
        self.engines = dict(engines)
        self.spec = spec
        self.contract = common_contract({name: e.contract for name, e in engines.items()})
        held = sorted(m for name, e in engines.items() for m in e.contract.members or (name,))
        if held != sorted(spec.members):
            raise UserError(
                f"{SPEC_NAME} names the members {', '.join(sorted(spec.members))}, but the model "
                f"files hold {', '.join(held)}; export them again"
            )
        if beyond := [column for column in spec.steady if column >= len(self.contract.classes)]:
            raise UserError(
                f"{SPEC_NAME}: steady names class {beyond[0]}, but the models have "
                f"{len(self.contract.classes)}; export them again"
            )
        if spec.output not in self.contract.outputs:
            outputs = ", ".join(self.contract.outputs)
            raise UserError(f"{SPEC_NAME}: output '{spec.output}' is not among the model's: {outputs}")

    @property
    def hears_stretches(self) -> bool:
        """Whether a member hears several windows at once."""
        return any(engine.contract.stretch_s for engine in self.engines.values())

    def run(self, waveform: NDArray[np.float32], n_windows: int, shift: float = 0.0) -> list[Answers]:
        """Every engine's own answers for a recording's windows, as `score` asks for them."""
        return [
            engine(cut_inputs(waveform, n_windows, engine.contract, shift))
            for engine in self.engines.values()
        ]

    def score(
        self, waveform: NDArray[np.float32], n_windows: int, shift: float = 0.0
    ) -> NDArray[np.float32]:
        """(samples,) → (members, n_windows, classes) probabilities of the spec's output.

        With a `shift` what the models hear begins that much earlier; the scores are still the rows'.
        """
        (scores,) = self.every_score(waveform, n_windows, [self.spec.output], shift)
        return np.asarray(scores)

    def every_score(
        self,
        waveform: NDArray[np.float32],
        n_windows: int,
        outputs: Sequence[str],
        shift: float = 0.0,
    ) -> NDArray[np.float32]:
        """(samples,) → (outputs, members, n_windows, classes) probabilities."""
        scores: of_windows.WindowScores = {}
        for name, engine in self.engines.items():
            of_file = of_windows.window_scores(
                engine, waveform, n_windows, outputs=outputs, shift=shift, pooling=self.spec.pooling
            )
            if name not in self.spec.soft:
                of_windows.refuse_nan(of_file)
            scores |= {member or name: of_member for member, of_member in of_file.items()}
        members = [scores[name] for name in self.spec.members]
        return np.stack([np.stack([of[output] for of in members]) for output in outputs])

    @property
    def lost(self) -> dict[str, str]:
        """Members from outside that failed at work → why."""
        outside = {n: e for n, e in self.engines.items() if isinstance(e, OutsideMember)}
        return {name: engine.fault for name, engine in outside.items() if engine.fault}

    def windows_heard(self, n_windows: int, shift: float = 0.0) -> int:
        """How many windows' sound is computed on to score so many: what the time goes with."""
        contracts = [engine.contract for engine in self.engines.values()]
        return max(of_windows.windows_heard(contract, n_windows, shift) for contract in contracts)


def combine(scores: Sequence[Scores], spec: Spec) -> list[Scores]:
    """Combine the members: (members, windows, classes) of each file → (windows, classes) to submit.

    All files are combined together, because ranks are among all windows, and a member that failed in
    one of them counts in none. A file without scores stays None.
    """
    scored = [of_file for of_file in scores if of_file is not None]
    if not scored:
        return list(scores)
    every = without_incomplete(np.concatenate(scored, axis=1))
    mean = average(every, list(spec.members.values()), spec.averaging)
    mean = constant_where_unknown(mean)
    parts = iter(np.split(mean, np.cumsum([of_file.shape[1] for of_file in scored])[:-1]))
    return [None if of_file is None else spec.smooth(next(parts)) for of_file in scores]


def common_contract(contracts: Mapping[str, Contract]) -> Contract:
    """What all models share, with the longest chunk. Raises `UserError` where they differ in it."""
    contracts = {name: contract.windowed for name, contract in contracts.items()}
    (first_name, first), *others = contracts.items()
    for name, contract in others:
        for field_name in ("classes", "sample_rate", "window_s", "outputs"):
            if getattr(contract, field_name) != getattr(first, field_name):
                raise UserError(
                    f"members {first_name} and {name} differ in {field_name}; "
                    "an ensemble needs the same: export them from one competition"
                )
    return max(contracts.values(), key=lambda contract: contract.chunk_s)


@dataclass(frozen=True)
class Loaded:
    """An ensemble from a model folder, with what its members run on and what failed to load."""

    ensemble: Ensemble
    engines: Sequence[str]
    fallbacks: Sequence[str]
    origins: Sequence[str] = ()  # where the engines' packages lie
    absent: Sequence[str] = ()  # members from outside that no engine runs here


def load(
    model_dir: Path,
    layout: Layout,
    engine: str = "auto",
    precisions: Sequence[str] | None = None,
    members: Sequence[str] | None = None,
    avoid: Sequence[str] = (),
) -> Loaded:
    """Open the files of a model folder. Raises `UserError` where one of the kit's can't be opened.

    A member from outside that can't be opened is left out, which is a fallback.

    Parameters
    ----------
    precisions : lower ones to try before f32; None takes those of the spec
    members : names of the members to load; None loads all
    avoid : descriptions of the kit's engines that failed at work
    """
    spec = Spec.load(model_dir).only(members)
    lower: Sequence[str] = precisions or ()
    unchecked: list[str] = []
    if precisions is None:
        lower, unchecked = golden.recorded(model_dir, spec.stems, spec.precisions)
    opened = {
        stem: open_model(model_dir / stem, layout, engine, lower, of, avoid)
        for stem, of in spec.members_of().items()
    }
    outside, faults = _open_outside(model_dir, spec, layout, engine)
    spec = spec.only([name for name in spec.members if name not in faults])
    if not spec.members:
        raise UserError(
            f"{model_dir}: none of its members can be opened ({'; '.join(faults.values())})"
        )
    engines = {stem: model.engine for stem, model in opened.items()} | outside
    models = [*opened.values(), *(member.opened for member in outside.values())]
    return Loaded(
        Ensemble(engines, spec),
        sorted({model.description for model in models}),
        [*unchecked, *(reason for model in models for reason in model.fallbacks), *faults.values()],
        sorted({model.origin for model in models}),
        tuple(faults),
    )


def _open_outside(
    model_dir: Path, spec: Spec, layout: Layout, engine: str
) -> tuple[dict[str, OutsideMember], dict[str, str]]:
    """The spec's members from outside that can be opened, and why the others can't."""
    opened: dict[str, OutsideMember] = {}
    faults: dict[str, str] = {}
    for name in spec.soft:
        try:
            opened[name] = open_member(model_dir, name, layout, engine)
        except UserError as error:
            faults[name] = f"left out, since it can't be opened: {name} ({error})"
    return opened, faults
