"""The packages of Kaggle's image: said, refused where they can't work, installed where they lack."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

from birdkit.errors import UserError
from birdkit.log import LOG
from export.kaggle.training.settings import Training

# The oldest versions with all that training calls: tomllib, is_bf16_supported(including_emulation),
# timm.optim.param_groups_weight_decay. Older and newer ones than the pinned are said, and used.
LEAST = {"python": "3.11", "torch": "2.6", "timm": "1.0.15"}


def found(name: str) -> str | None:
    """The version of Python or a package that this Python would import; None where there is none."""
    if name == "python":
        return platform.python_version()
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def check(training: Training) -> None:
    """Say where the image differs from where it was bundled. Raises `UserError` for what is too old."""
    for name, tested in training.tested.items():
        here = found(name)
        if here != tested:
            LOG.info(f"{name}: {here or 'none'} here, {tested} where it was bundled")
    for name, least in LEAST.items():
        here = found(name)
        if here is None and name == "torch":
            raise UserError("torch is not installed here; choose an image of Kaggle that has it")
        if here and Version(here) < Version(least):
            raise UserError(f"{name} {here} can't train with this kit, which needs {least} or later")


def lacking(training: Training) -> Iterator[str]:
    """The packages that are to be installed, as NAME==VERSION."""
    yield from (pin for pin in training.packages if found(Requirement(pin).name) is None)


def install(training: Training, folder: Path) -> None:
    """Install what the image lacks, and nothing that it has. Raises `UserError` where pip can't."""
    pins = list(lacking(training))
    if not pins:
        return
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
    try:
        subprocess.run([*pip, *pins], check=True)
    except subprocess.CalledProcessError as error:
        raise UserError(
            f"{', '.join(pins)}: not in this image, and pip can't install it (see above); turn the "
            "notebook's internet on"
        ) from error
    sys.path.append(str(folder))
