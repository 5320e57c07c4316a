"""A recording in parts, so that a day of it takes no more memory than two minutes do."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from birdkit import audio
from birdkit.contract import Contract
from birdkit.errors import one_line

# A recording is decoded and scored in parts of that many windows, so that a day of it takes no more
# memory than two minutes do; two stretches of a minute fit it.
PART_WINDOWS = 24


@dataclass(frozen=True)
class SoundFile:
    """A recording and how many windows of it are asked for.

    The first `parts_done` parts of it were scored before; they are decoded and not scored again.
    """

    path: Path
    n_windows: int
    parts_done: int = 0

    @property
    def name(self) -> str:
        """The file's name, on one line."""
        return one_line(self.path.name)


@dataclass(frozen=True)
class Part:
    """A part of a recording: windows, and the samples of them and of the neighbours they hear."""

    samples: NDArray[np.float32]
    span: Span


def _overhang_s(contract: Contract) -> float:
    """Seconds of a chunk before its window, and after it."""
    return (contract.chunk_s - contract.window_s) / 2


@dataclass(frozen=True)
class Span:
    """Windows of a recording that are scored together, some before and after only for their sake."""

    first: int  # of the windows
    count: int
    before: int
    after: int

    @property
    def heard(self) -> int:
        """How many windows are scored."""
        return self.before + self.count + self.after

    @property
    def kept(self) -> slice:
        """Which of the scored ones are kept."""
        return slice(self.before, self.before + self.count)


def spans(file: SoundFile, contract: Contract) -> list[Span]:
    """The parts of a recording. With their neighbours all are as long as the first, or shorter."""
    most_before = math.ceil(_overhang_s(contract) / contract.window_s) + 1
    found, first = [], 0
    while first < file.n_windows:
        before, left = min(first, most_before), file.n_windows - first
        fits = max(PART_WINDOWS // 2, PART_WINDOWS - before)
        # One window after a part is heard: frames of it count for the part's last window.
        count, after = (left, 0) if left <= fits else (fits - 1, 1)
        found.append(Span(first, count, before, after))
        first += count
    return found


def parts(file: SoundFile, contract: Contract) -> Iterator[Part]:
    """The parts of a recording in order, as much of it decoded as the chunks of its windows need.

    What was scored before is decoded anew: a resampler that begins in the middle answers otherwise.
    """
    # Time-shifted windows begin earlier, and are one more than asked for.
    needed_s = (file.n_windows + 1) * contract.window_s + _overhang_s(contract)
    blocks = audio.blocks(file.path, contract.sample_rate, max_s=needed_s)
    held, begin = np.zeros(0, dtype=np.float32), 0  # samples from the window `begin` on
    for number, span in enumerate(spans(file, contract)):
        dropped = span.first - span.before - begin
        held, begin = held[dropped * contract.window_samples :], span.first - span.before
        needed = (span.heard + 1) * contract.window_samples + contract.chunk_samples
        pieces = [held]
        while (
            sum(piece.size for piece in pieces) < needed and (block := next(blocks, None)) is not None
        ):
            pieces.append(block)
        held = np.concatenate(pieces)
        if number >= file.parts_done:
            yield Part(held[:needed], span)
