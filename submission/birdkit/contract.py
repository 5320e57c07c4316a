"""The contract of a model file: sample rate, chunk, window, classes and outputs.

Export embeds the contract in the model's metadata, and every engine reads it back from there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypeVar

from birdkit.errors import UserError

T = TypeVar("T")

CONTRACT_VERSION = 2
METADATA_KEY = "birdkit.contract"
INPUT_NAME = "waveform"
# The log-mel inside the graph, where a lower precision may begin. Graphs exported by earlier kits call
# it "picture".
LOG_MEL_NAME = "log_mel"
LOG_MEL_NAMES = (LOG_MEL_NAME, "picture")
# clipwise holds probabilities; segmentwise logits, the max over time; framewise logits on a time axis.
KNOWN_OUTPUTS = ("clipwise", "segmentwise", "framewise")


class ContractError(UserError):
    """A model file whose contract is missing, has another version or contradicts itself."""


@dataclass(frozen=True)
class Contract:
    """The inputs and outputs of one model file.

    A model takes `chunk_s` seconds at `sample_rate` Hz and scores the `window_s` seconds in the middle
    of them, with one column for each of `classes`, in that order. A fused file holds several
    `members` behind one front end; the file of a single model names none.
    """

    sample_rate: int
    chunk_s: float
    window_s: float
    classes: tuple[str, ...]
    outputs: tuple[str, ...] = ("clipwise", "segmentwise")
    members: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.sample_rate <= 0 or not 0 < self.window_s <= self.chunk_s:
            raise ContractError(
                f"contract: needs sample_rate > 0 and 0 < window_s <= chunk_s, got "
                f"{self.sample_rate} Hz, window {self.window_s} s, chunk {self.chunk_s} s"
            )
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise ContractError("contract: classes must be distinct and at least one")
        unknown = [name for name in self.outputs if name not in KNOWN_OUTPUTS]
        if unknown or not self.outputs:
            raise ContractError(f"contract: outputs {unknown or '[]'} are not among {KNOWN_OUTPUTS}")

    @property
    def chunk_samples(self) -> int:
        """Samples of a chunk."""
        return round(self.chunk_s * self.sample_rate)

    @property
    def window_samples(self) -> int:
        """Samples of a window."""
        return round(self.window_s * self.sample_rate)

    @property
    def tensors(self) -> tuple[str, ...]:
        """The graph's names of its outputs: `clipwise`, or `<member>.clipwise` in a fused graph."""
        prefixes = [f"{member}." for member in self.members] or [""]
        return tuple(prefix + output for prefix in prefixes for output in self.outputs)

    def only(self, members: Sequence[str] | None) -> Contract:
        """The contract of a fused file cut to these members; None changes nothing."""
        if members is None or not self.members:
            return self
        return replace(self, members=tuple(name for name in self.members if name in members))

    def of_member(self, answers: Mapping[str, T], member: str) -> dict[str, T]:
        """One member's outputs, by the names that the file of a single model gives them."""
        prefix = f"{member}." if self.members else ""
        return {output: answers[prefix + output] for output in self.outputs}

    def to_metadata(self) -> dict[str, str]:
        """The contract as the string map that ONNX `metadata_props` holds."""
        return {METADATA_KEY: json.dumps({"version": CONTRACT_VERSION, **asdict(self)})}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], where: str) -> Contract:
        """Read back what `to_metadata` wrote. `where` names the file in errors.

        Raises
        ------
        ContractError
            Naming the missing field, or the version, and the remedy.
        """
        if METADATA_KEY not in metadata:
            raise ContractError(
                f"{where}: no '{METADATA_KEY}' in its metadata; export it with export/to_onnx.py"
            )
        try:
            values: dict[str, Any] = json.loads(metadata[METADATA_KEY])
        except json.JSONDecodeError as error:
            raise ContractError(
                f"{where}: its contract is not JSON ({error}); export it again"
            ) from error
        version = values.pop("version", None)
        if version != CONTRACT_VERSION:
            raise ContractError(
                f"{where}: contract version {version}, this kit reads {CONTRACT_VERSION}; "
                "export it again"
            )
        missing = [field.name for field in fields(cls) if field.name not in values]
        if missing:
            raise ContractError(f"{where}: contract lacks {', '.join(missing)}; export it again")
        return cls(
            sample_rate=int(values["sample_rate"]),
            chunk_s=float(values["chunk_s"]),
            window_s=float(values["window_s"]),
            classes=tuple(map(str, values["classes"])),
            outputs=tuple(values["outputs"]),
            members=tuple(values["members"]),
        )
