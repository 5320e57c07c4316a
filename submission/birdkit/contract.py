"""The contract of a model file: sample rate, chunk, window, classes and outputs.

Export embeds the contract in the model's metadata, and every engine reads it back from there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypeVar

from birdkit.errors import UserError

T = TypeVar("T")

CONTRACT_VERSION = 4
# Earlier versions are read, too, with the fields that they did not know as if these were absent.
UNKNOWN_TO: dict[int, dict[str, Any]] = {
    2: {"stretch_s": 0.0, "frame_s": 0.0, "by_window": ()},
    3: {"by_window": ()},
    CONTRACT_VERSION: {},
}
METADATA_KEY = "birdkit.contract"
INPUT_NAME = "waveform"
# The log-mel inside the graph, where a lower precision may begin. Graphs exported by earlier kits call
# it "picture".
LOG_MEL_NAME = "log_mel"
LOG_MEL_NAMES = (LOG_MEL_NAME, "picture")
# The member of a file that holds one and names none, as `Contract.by_window` calls it.
ALONE = ""
# What the submission asks of every model, a window at a time: clipwise holds probabilities; segmentwise
# logits, the largest over time.
WINDOW_OUTPUTS = ("clipwise", "segmentwise")
# What a model of whole stretches answers, a frame at a time, and `scoring/pooling.py` makes windows of:
# logits, and the attention that clipwise weighs them by, in [-1, 1] before its softmax.
FRAME_OUTPUTS = ("framewise", "attention")


def whole_windows(stretch_s: float, window_s: float) -> bool:
    """Whether a stretch is made of whole windows, at least one."""
    windows = stretch_s / window_s
    return 1 <= windows < math.inf and abs(windows - round(windows)) < 1e-6


class ContractError(UserError):
    """A model file whose contract is missing, has another version or contradicts itself."""


@dataclass(frozen=True)
class Contract:
    """The inputs and outputs of one model file.

    A model takes `chunk_s` seconds at `sample_rate` Hz and scores the `window_s` seconds in the middle
    of them, with one column for each of `classes`, in that order. A fused file holds several
    `members` behind one front end; the file of a single model names none.

    Where `stretch_s` is above 0 a model takes that many seconds instead, normalises them a chunk at a
    time as in training, and answers for each frame; frame i begins at i * `frame_s`. Members named in
    `by_window` hear each window of the stretch on its own, so that they share the log-mel of others
    that hear all of it: frame i of window w begins at w * `window_s` + i * `frame_s`.
    """

    sample_rate: int
    chunk_s: float
    window_s: float
    classes: tuple[str, ...]
    outputs: tuple[str, ...] = WINDOW_OUTPUTS
    members: tuple[str, ...] = ()
    stretch_s: float = 0.0
    frame_s: float = 0.0
    by_window: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.sample_rate <= 0 or not 0 < self.window_s <= self.chunk_s:
            raise ContractError(
                f"contract: needs sample_rate > 0 and 0 < window_s <= chunk_s, got "
                f"{self.sample_rate} Hz, window {self.window_s} s, chunk {self.chunk_s} s"
            )
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise ContractError("contract: classes must be distinct and at least one")
        if self.by_window and not (self.stretch_s and self.chunk_s == self.window_s):
            raise ContractError(
                "contract: by_window is for stretches, and for chunks as long as a window"
            )
        if self.stretch_s:
            self._check_stretch()
        elif not self.outputs or not set(self.outputs) <= set(WINDOW_OUTPUTS):
            unknown = [name for name in self.outputs if name not in WINDOW_OUTPUTS]
            raise ContractError(f"contract: outputs {unknown} are not among {WINDOW_OUTPUTS}")

    def _check_stretch(self) -> None:
        if self.outputs != FRAME_OUTPUTS:
            raise ContractError(
                f"contract: a model of stretches has the outputs {FRAME_OUTPUTS}, not {self.outputs}"
            )
        if not whole_windows(self.stretch_s, self.window_s):
            raise ContractError(
                f"stretches of {self.stretch_s:g} s are not made of whole windows of "
                f"{self.window_s:g} s; give a multiple of that"
            )
        if not 0 < self.frame_s <= self.stretch_s:
            raise ContractError(
                f"contract: needs 0 < frame_s <= {self.stretch_s:g} s, got {self.frame_s} s"
            )

    @property
    def chunk_samples(self) -> int:
        """Samples of a chunk."""
        return round(self.chunk_s * self.sample_rate)

    @property
    def window_samples(self) -> int:
        """Samples of a window."""
        return round(self.window_s * self.sample_rate)

    @property
    def stretch_windows(self) -> int:
        """Windows of a stretch; 0 for a model that hears a window at a time."""
        return round(self.stretch_s / self.window_s)

    @property
    def input_samples(self) -> int:
        """Samples of one input: of a stretch, or of a chunk."""
        return self.stretch_windows * self.window_samples or self.chunk_samples

    def over_stretches(self, stretch_s: float, frame_s: float) -> Contract:
        """The contract of the same model where it hears stretches."""
        return replace(self, outputs=FRAME_OUTPUTS, stretch_s=stretch_s, frame_s=frame_s)

    @property
    def windowed(self) -> Contract:
        """What the submission sees of a model: windows, whatever it hears at a time."""
        if not self.stretch_s:
            return self
        return replace(self, outputs=WINDOW_OUTPUTS, stretch_s=0.0, frame_s=0.0, by_window=())

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

    def alone(self, member: str) -> Contract:
        """The contract of one member, as if it had a file of its own."""
        return replace(self, members=(), by_window=(ALONE,) if member in self.by_window else ())

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
        if version not in UNKNOWN_TO:
            raise ContractError(
                f"{where}: contract version {version}, this kit reads {min(UNKNOWN_TO)} to "
                f"{CONTRACT_VERSION}; export it again"
            )
        values |= UNKNOWN_TO[version]
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
            stretch_s=float(values["stretch_s"]),
            frame_s=float(values["frame_s"]),
            by_window=tuple(values["by_window"]),
        )
