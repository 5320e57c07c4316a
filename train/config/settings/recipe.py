"""A whole recipe: its sections, models and rounds."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal

from birdkit.errors import UserError
from train.config.settings.augment import Augment
from train.config.settings.data import Data
from train.config.settings.fit import Fit
from train.config.settings.frontend import FrontEnd
from train.config.settings.model import Model
from train.config.settings.pseudo_labels import Pseudo
from train.config.settings.ranges import FolderName, Range
from train.config.settings.teacher import OutsideTeacher


@dataclass(frozen=True)
class Postprocess:
    """Post-processing of the scores; goes into `ensemble.json` and is part of validation."""

    smoothing: tuple[Annotated[float, Range(0, 1000)], ...] = (1.0,)
    """Weights of neighbouring windows, the window itself in the middle."""
    stretch_s: Annotated[float, Range(0, 120)] = 0.0
    """Seconds of a recording that a model hears at once, in whole windows; 0: a window at a time.
    Training is the same, so `export/to_onnx.py --stretch-s` can change it for the submission."""
    pooling: Literal["plain", "soft"] = "soft"
    """How windows are made of a stretch's frames: "plain" hears the frames in the window, "soft" also
    those of windows that begin up to half a window earlier and later, and counts them less."""

    def __post_init__(self) -> None:
        if len(self.smoothing) % 2 == 0 or sum(self.smoothing) <= 0:
            raise UserError("postprocess.smoothing: needs an odd number of weights, with a sum above 0")


@dataclass(frozen=True)
class ModelEntry(Model):
    """An entry of [[models]]: a model, and settings of its own for any section."""

    repeat: Annotated[int, Range(1, 100)] = 1
    """So many equal models, each from other draws."""
    teaches: bool = True
    """Whether it is among the teachers of the next round, where that names none or `*`."""
    frontend: Annotated[dict[str, Any], FrontEnd] = field(default_factory=dict)
    """Overrides of [frontend] for this model."""
    data: Annotated[dict[str, Any], Data] = field(default_factory=dict)
    """Overrides of [data] for this model."""
    augment: Annotated[dict[str, Any], Augment] = field(default_factory=dict)
    """Overrides of [augment] for this model."""
    fit: Annotated[dict[str, Any], Fit] = field(default_factory=dict)
    """Overrides of [fit] for this model."""
    pseudo: Annotated[dict[str, Any], Pseudo] = field(default_factory=dict)
    """Overrides of a round's pseudo settings for this model."""
    postprocess: Annotated[dict[str, Any], Postprocess] = field(default_factory=dict)
    """Overrides of [postprocess] for this model: what it hears at once."""

    def model(self, name: str) -> Model:
        """The model alone, under this name."""
        own = {each.name: getattr(self, each.name) for each in fields(Model)}
        return Model(**(own | {"name": name}))


@dataclass(frozen=True)
class Round:
    """An entry of [[rounds]]. A later round than round 0 is taught by the round before it."""

    models: tuple[str, ...] = ()
    """Names among [[models]]; all of them where empty."""
    teacher: tuple[str, ...] = ()
    """Models of the round before, and names among [[teachers]]; `*`, or nothing, stands for all of the
    round before with `teaches`. Round 0 has no teacher, unless this names one of [[teachers]]."""
    repeat: Annotated[int, Range(1, 100)] = 1
    """So many equal rounds, each taught by the one before it."""
    warm: bool = False
    """Students start from the round before's model of their name, in place of models.weights."""
    data: Annotated[dict[str, Any], Data] = field(default_factory=dict)
    """Overrides of [data] for this round, such as a longer chunk; they stand above a model's own."""
    must_gain: bool = False
    """Where the round's ensemble gains no macro-AUC over the round before on labelled soundscapes (on
    held-out recordings where there are none), the run ends with the round before."""
    fit: Annotated[dict[str, Any], Fit] = field(default_factory=dict)
    """Overrides of [fit] for this round; they stand above a model's own."""
    pseudo: Pseudo = field(default_factory=Pseudo)
    """The round's pseudo labels."""

    def __post_init__(self) -> None:
        if self.must_gain and self.pseudo.validating:
            raise UserError(
                "rounds.must_gain judges a round by soundscapes that pseudo.validating trains it on; "
                "set one of the two alone"
            )


@dataclass(frozen=True)
class Recipe:
    """The settings of a whole run."""

    name: Annotated[str, FolderName()] = "recipe"
    """First part of the name of the run's folder; the file's name where it is not given."""
    frontend: FrontEnd = field(default_factory=FrontEnd)
    """The log-mel."""
    models: tuple[ModelEntry, ...] = (ModelEntry(),)
    """The models, in order."""
    data: Data = field(default_factory=Data)
    """What trains."""
    augment: Augment = field(default_factory=Augment)
    """What training does to a chunk."""
    fit: Fit = field(default_factory=Fit)
    """The optimisation."""
    postprocess: Postprocess = field(default_factory=Postprocess)
    """Post-processing of the scores."""
    rounds: tuple[Round, ...] = (Round(),)
    """The rounds, in order."""
    teachers: tuple[OutsideTeacher, ...] = ()
    """Teachers from outside."""

    def __post_init__(self) -> None:
        if not self.models or not self.rounds:
            raise UserError(f"recipe {self.name}: needs at least one of [[models]] and [[rounds]]")
