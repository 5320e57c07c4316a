"""Settings of what trains, and of a model's input and window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from birdkit.errors import UserError
from train.config.settings.ranges import Range, Seconds, Share


@dataclass(frozen=True)
class Data:
    """Which recordings train, the model's input length, and the window that an output row is for."""

    chunk_s: Seconds = 5.0
    """Length of a model's input in seconds."""
    window_s: Seconds = 5.0
    """The seconds in the middle of it that the outputs are for; one value for the whole run."""
    n_folds: Annotated[int, Range(2, 100)] = 5
    """Folds of the recordings, by author."""
    fold: Annotated[int, Range(-1, 99)] = 0
    """The fold that is held out; -1 trains on every recording."""
    secondary_target: Annotated[float, Range(-1, 1)] = 1.0
    """Target of a secondary label; below 0: unknown, so it has no loss. Under the write-up's loss on
    clipwise every target of 0.5 or less acts as a negative."""
    skip_bad: bool = False
    """Leave out recordings and soundscapes that are absent or can't be decoded, instead of stopping."""
    balance: Share = 0.5
    """A class of n recordings is drawn in proportion to n**balance: 0 draws all classes alike, 1 draws
    them as often as they come."""
    first_s: Annotated[float, Range(0.1, 1_000_000)] = 60.0
    """Crops of a longer recording come from these first seconds, where the call is most often."""
    speech: Literal["keep", "cut", "half"] = "keep"
    """Human speech in recordings: "keep", "cut" it out, or "half": cut it out of every other crop."""
    duplicates: Literal["keep", "drop", "unsearched"] = "keep"
    """Recordings uploaded twice: "keep" them and say so, "drop" all but one, which gets the labels of
    all, or leave them "unsearched", which saves decoding."""
    classes: Literal["first", "union"] = "first"
    """The classes of several data folders: those of the "first" one's taxonomy, or the "union"."""
    labelled: Literal["validate", "train", "split"] = "validate"
    """Labelled soundscapes "validate", "train", or "split": every n_folds-th site validates."""
    labelled_share: Share = 0.2
    """Share of the samples that are labelled soundscapes, where they train."""
    cache: bool = True
    """Decode each recording once, to a file that is memory-mapped."""
    workers: Annotated[int, Range(-1, 128)] = -1
    """Loader processes; -1: none on a CPU, up to 8 beside a GPU."""

    def __post_init__(self) -> None:
        if self.window_s > self.chunk_s:
            raise UserError(f"data.window_s {self.window_s:g} is above data.chunk_s {self.chunk_s:g}")
        if self.fold >= self.n_folds:
            raise UserError(f"data.fold {self.fold} is not below data.n_folds {self.n_folds}")
