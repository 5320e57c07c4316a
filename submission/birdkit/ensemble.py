"""How several models become one table. The only sigmoid at run time is here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from birdkit.contract import Contract
from birdkit.engine import Engine, open_model
from birdkit.errors import UserError
from birdkit.grid import cut_chunks
from birdkit.postprocess import smooth

SPEC_NAME = "ensemble.json"
SPEC_VERSION = 1


@dataclass(frozen=True)
class Spec:
    """What `ensemble.json` says: which models, how much each counts, and what is done to the mean.

    `members` maps a model file's stem to its weight; `output` is the one used of each model.
    """

    members: dict[str, float]
    output: str = "clipwise"
    smoothing: tuple[float, ...] = (1.0,)
    version: int = SPEC_VERSION

    def save(self, model_dir: Path) -> None:
        (model_dir / SPEC_NAME).write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, model_dir: Path) -> Spec:
        path = model_dir / SPEC_NAME
        if not path.is_file():
            raise UserError(f"{path}: not found; run export/to_onnx.py, or give --model DIR")
        try:
            facts = json.loads(path.read_text())
            if facts["version"] != SPEC_VERSION:
                raise UserError(f"{path}: version {facts['version']}, this kit reads {SPEC_VERSION}")
            known = {field.name for field in fields(cls)}
            spec = cls(**{key: value for key, value in facts.items() if key in known})
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise UserError(f"{path}: can't be read ({error!r}); export the models again") from error
        if not spec.members or min(spec.members.values()) < 0 or sum(spec.members.values()) <= 0:
            raise UserError(f"{path}: needs members with weights >= 0 and a positive sum")
        return spec


def probabilities(outputs: Mapping[str, NDArray[np.float32]], output: str) -> NDArray[np.float32]:
    """One output of a model as probabilities: clipwise is one already, the others are logits."""
    if output not in outputs:
        raise UserError(f"output '{output}' is not among the model's: {', '.join(outputs)}")
    values = outputs[output]
    if output == "clipwise":
        return np.clip(values, 0.0, 1.0)
    # Neither end overflows, and very negative logits keep their order instead of becoming 0.
    small = np.exp(-np.abs(values))
    return np.asarray(np.where(values >= 0, 1.0, small) / (1.0 + small), dtype=np.float32)


# Member → output → (windows, classes)
MemberOutputs = dict[str, dict[str, NDArray[np.float32]]]


class Ensemble:
    """Engines with weights; scores one recording at a time."""

    def __init__(self, engines: Mapping[str, Engine], spec: Spec) -> None:
        self.engines = dict(engines)
        self.spec = spec
        self.contract = common_contract({name: e.contract for name, e in engines.items()})

    def run(self, waveform: NDArray[np.float32], n_windows: int) -> MemberOutputs:
        """(samples,) → every output of every member, (n_windows, classes) each."""
        return {
            name: engine(cut_chunks(waveform, n_windows, engine.contract))
            for name, engine in self.engines.items()
        }

    def combine(self, outputs: MemberOutputs, output: str) -> NDArray[np.float32]:
        """One output of the members → (n_windows, classes) weighted, post-processed probabilities."""
        weights = self.spec.members
        total = sum(weights[name] * probabilities(of, output) for name, of in outputs.items())
        mean = np.asarray(total, dtype=np.float32) / sum(weights[name] for name in outputs)
        return smooth(mean, self.spec.smoothing)

    def score(self, waveform: NDArray[np.float32], n_windows: int) -> NDArray[np.float32]:
        """(samples,) → (n_windows, classes): what goes into the submission."""
        return self.combine(self.run(waveform, n_windows), self.spec.output)


def common_contract(contracts: Mapping[str, Contract]) -> Contract:
    """The contract of the member that hears most; `UserError` unless all agree on the rest."""
    (first_name, first), *others = contracts.items()
    for name, contract in others:
        for fact in ("classes", "sample_rate", "window_s"):
            if getattr(contract, fact) != getattr(first, fact):
                raise UserError(
                    f"members {first_name} and {name} differ in {fact}; "
                    "an ensemble needs the same: export them from one competition"
                )
    return max(contracts.values(), key=lambda contract: contract.chunk_s)


@dataclass(frozen=True)
class Loaded:
    """An ensemble from a model folder, with what its members run on and what failed to load."""

    ensemble: Ensemble
    engines: Sequence[str]
    fallbacks: Sequence[str]


def load(model_dir: Path, threads: int, engine: str = "auto") -> Loaded:
    """Open every member of a model folder. Raises `UserError` where one can't be."""
    spec = Spec.load(model_dir)
    opened = {name: open_model(model_dir / name, threads, engine) for name in spec.members}
    ensemble = Ensemble({name: model.engine for name, model in opened.items()}, spec)
    return Loaded(
        ensemble,
        sorted({model.description for model in opened.values()}),
        [reason for model in opened.values() for reason in model.fallbacks],
    )
