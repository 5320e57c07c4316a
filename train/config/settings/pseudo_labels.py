"""Settings of pseudo labels: teacher output, thresholds, mixing and alarms."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from birdkit.errors import UserError
from train.config.settings.ranges import Range, Share


@dataclass(frozen=True)
class Limits:
    """Limits on one output's pseudo labels; an alarm is raised beyond them."""

    collapse: Share = 0.1
    """Lowest ratio of a class's share of the label mass to its share in the last round."""
    explode: Annotated[float, Range(1, 1_000_000)] = 10.0
    """Highest such ratio."""
    constant: Share = 1e-4
    """Least spread of a class's labels over all windows."""


@dataclass(frozen=True)
class Alarms:
    """Limits for each output, and what happens beyond them."""

    action: Literal["warn", "stop"] = "warn"
    """"warn", or "stop" the run."""
    clipwise: Limits = Limits(constant=1e-6)
    """Limits for clipwise, whose values are small under the write-up's loss."""
    segmentwise: Limits = Limits()
    """Limits for segmentwise."""


@dataclass(frozen=True)
class Pseudo:
    """A round's pseudo labels: which teacher probabilities, and how they train."""

    output: Literal["segmentwise", "clipwise"] = "segmentwise"
    """The teacher's output: "segmentwise" or "clipwise"; one for all models of a round."""
    shifts: tuple[Annotated[float, Range(0.01, 0.99)], ...] = ()
    """Time shifts, in windows or stretches, averaged into the teacher probabilities (TTA)."""
    out_of_fold: bool = False
    """No model labels a soundscape that it was trained on."""
    validating: bool = False
    """Label the soundscapes whose truth validates, too."""
    power: Annotated[float, Range(0.01, 100)] = 1.0
    """Exponent of the probabilities; above 1 it lowers doubtful labels."""
    zero_below: Share = 0.0
    """Lower probabilities count as 0."""
    one_from: Share = 1.0
    """This probability and higher ones count as 1."""
    unsure: tuple[Share, ...] = ()
    """Two probabilities; from the first up to the second a label is unknown, so it has no loss."""
    keep_above: Share = 0.0
    """Windows without a class above this probability are not drawn."""
    weighting: Literal["none", "max", "sum"] = "none"
    """A window is drawn in proportion to its labels' "max" or "sum"; "none" draws all alike."""
    mixing: Literal["own", "mixed"] = "own"
    """Pseudo-labelled windows are samples of their "own", or "mixed" into labelled samples."""
    share: Share = 0.5
    """Share of the samples with a pseudo-labelled window."""
    level_db: Annotated[float, Range(-60, 60)] = 0.0
    """Where mixed: the soundscape's level over the recording's."""
    gain_db: Annotated[float, Range(0, 60)] = 6.0
    """Where mixed: largest random deviation from that level."""
    soft_clipwise: bool = True
    """Labels between 0 and 1 have a loss on clipwise, too; under the write-up's loss 0.5 and less act
    as negatives there."""
    alarms: Alarms = field(default_factory=Alarms)
    """When pseudo labels have gone wrong."""

    def __post_init__(self) -> None:
        if self.unsure and (len(self.unsure) != 2 or self.unsure[0] >= self.unsure[1]):
            raise UserError(
                f"pseudo.unsure {list(self.unsure)} must be two probabilities, the lower first"
            )
