"""Settings of what trains, and of a model's input and window."""

from __future__ import annotations

from dataclasses import dataclass

from train.config.settings.checks import one_of, share


@dataclass(frozen=True)
class Data:
    """Which recordings train, the model's input length, and the window that an output row is for."""

    chunk_s: float = 5.0
    """Length of a model's input in seconds."""
    window_s: float = 5.0
    """The seconds in the middle of it that the outputs are for; one value for the whole run."""
    n_folds: int = 5
    """Folds of the recordings, by author."""
    fold: int = 0
    """The fold that is held out; -1 trains on every recording."""
    secondary_target: float = 1.0
    """Target of a secondary label; below 0: unknown, so it has no loss. Under the write-up's loss on
    clipwise every target of 0.5 or less acts as a negative."""
    skip_bad: bool = False
    """Leave out recordings and soundscapes that are absent or can't be decoded, instead of stopping."""
    balance: float = 0.5
    """A class of n recordings is drawn in proportion to n**balance: 0 draws all classes alike, 1 draws
    them as often as they come."""
    first_s: float = 60.0
    """Crops of a longer recording come from these first seconds, where the call is most often."""
    speech: str = "keep"
    """Human speech in recordings: "keep", "cut" it out, or "half": cut it out of every other crop."""
    duplicates: str = "keep"
    """"keep", or "drop": recordings uploaded twice count once, with the labels of all copies."""
    classes: str = "first"
    """The classes of several data folders: those of the "first" one's taxonomy, or the "union"."""
    labelled: str = "validate"
    """Labelled soundscapes "validate", "train", or "split": every n_folds-th site validates."""
    labelled_share: float = 0.2
    """Share of the samples that are labelled soundscapes, where they train."""
    cache: bool = True
    """Decode each recording once, to a file that is memory-mapped."""
    workers: int = -1
    """Loader processes; -1: none on a CPU, up to 8 beside a GPU."""

    def __post_init__(self) -> None:
        one_of("data.speech", self.speech, ("keep", "cut", "half"))
        one_of("data.duplicates", self.duplicates, ("keep", "drop"))
        one_of("data.classes", self.classes, ("first", "union"))
        one_of("data.labelled", self.labelled, ("validate", "train", "split"))
        share("data.labelled_share", self.labelled_share)
