"""Settings of pseudo labels: teacher output, thresholds, mixing and alarms."""

from __future__ import annotations

from dataclasses import dataclass, field

from birdkit.errors import UserError
from train.config.settings.checks import one_of, share


@dataclass(frozen=True)
class Limits:
    """Limits on one output's pseudo labels; an alarm is raised beyond them."""

    collapse: float = 0.1
    """Lowest ratio of a class's share of the label mass to its share in the last round."""
    explode: float = 10.0
    """Highest such ratio."""
    constant: float = 1e-4
    """Least spread of a class's labels over all windows."""


@dataclass(frozen=True)
class Alarms:
    """Limits for each output, and what happens beyond them."""

    action: str = "warn"
    """"warn", or "stop" the run."""
    clipwise: Limits = Limits(constant=1e-6)
    """Limits for clipwise, whose values are small under the write-up's loss."""
    segmentwise: Limits = Limits()
    """Limits for segmentwise."""

    def __post_init__(self) -> None:
        one_of("pseudo.alarms.action", self.action, ("warn", "stop"))


@dataclass(frozen=True)
class Pseudo:
    """A round's pseudo labels: which teacher probabilities, and how they train."""

    output: str = "segmentwise"
    """The teacher's output: "segmentwise" or "clipwise"; one for all models of a round."""
    shifts: tuple[float, ...] = ()
    """Time shifts of the windows, in windows, averaged into the teacher probabilities (TTA)."""
    out_of_fold: bool = False
    """No model labels a soundscape that it was trained on."""
    validating: bool = False
    """Label the soundscapes whose truth validates, too."""
    power: float = 1.0
    """Exponent of the probabilities; above 1 it lowers doubtful labels."""
    zero_below: float = 0.0
    """Lower probabilities count as 0."""
    one_from: float = 1.0
    """This probability and higher ones count as 1."""
    unsure: tuple[float, ...] = ()
    """Two probabilities; from the first up to the second a label is unknown, so it has no loss."""
    keep_above: float = 0.0
    """Windows without a class above this probability are not drawn."""
    weighting: str = "none"
    """A window is drawn in proportion to its labels' "max" or "sum"; "none" draws all alike."""
    mixing: str = "own"
    """Pseudo-labelled windows are samples of their "own", or "mixed" into labelled samples."""
    share: float = 0.5
    """Share of the samples with a pseudo-labelled window."""
    level_db: float = 0.0
    """Where mixed: the soundscape's level over the recording's."""
    gain_db: float = 6.0
    """Where mixed: largest random deviation from that level."""
    soft_clipwise: bool = True
    """Labels between 0 and 1 have a loss on clipwise, too; under the write-up's loss 0.5 and less act
    as negatives there."""
    alarms: Alarms = field(default_factory=Alarms)
    """When pseudo labels have gone wrong."""

    def __post_init__(self) -> None:
        one_of("pseudo.output", self.output, ("clipwise", "segmentwise"))
        one_of("pseudo.weighting", self.weighting, ("none", "max", "sum"))
        one_of("pseudo.mixing", self.mixing, ("own", "mixed"))
        for name in ("zero_below", "one_from", "keep_above", "share"):
            share(f"pseudo.{name}", getattr(self, name))
        if self.unsure and (len(self.unsure) != 2 or not 0 <= self.unsure[0] < self.unsure[1] <= 1):
            raise UserError(f"pseudo.unsure {self.unsure} must be two probabilities, the lower first")
        if self.power <= 0 or not all(0 < shift < 1 for shift in self.shifts):
            raise UserError("pseudo: needs power > 0, and shifts between 0 and 1 window")
