"""Imports an engine that the image lacks from a wheel beside the kit, offline.

The installed package comes first. Where it can't be imported, the vendored wheel whose tag fits this
Python is unpacked into a scratch folder on `sys.path`, which needs neither pip nor a network.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
import zipfile
from pathlib import Path
from types import ModuleType

WHEELS = Path(__file__).resolve().parents[2] / "wheels"
# Packages that could not be imported, and why: the next model file need not unpack them again.
_BROKEN: dict[str, str] = {}


class EngineMissing(ImportError):
    """An engine that is neither installed nor vendored in a form that works; the message says why."""


def obtain(name: str, wheels: Path = WHEELS, failed: list[str] | None = None) -> ModuleType:
    """Import a package, unpacking its vendored wheel where that is needed.

    Parameters
    ----------
    failed : gets a line for each way that should have worked and did not

    Raises
    ------
    EngineMissing
        Naming both ways and why each failed.
    """
    if name in _BROKEN:
        raise EngineMissing(_BROKEN[name])
    tried: list[str] = []
    for way, label in ((_installed, ""), (_unpacked, "unpacking")):
        try:
            package = way(name, wheels)
        except Exception as error:  # the ladder: a broken package can throw anything
            # Kaggle's image lacks the package, which is no fault; one that is broken is.
            absent = isinstance(error, ModuleNotFoundError) and error.name == name
            tried.append("not installed" if absent else f"{label} {_line(error)}".strip())
            continue
        if failed is not None:
            failed += [f"{name}: {reason}" for reason in tried if reason != "not installed"]
        return package
    _BROKEN[name] = f"{name}: {'; '.join(tried)}"
    raise EngineMissing(_BROKEN[name])


def vendored(name: str, wheels: Path) -> Path:
    """The wheel of a package for this Python. Raises `FileNotFoundError` naming what is there."""
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    there = sorted(wheels.glob(f"{name}-*.whl"))
    fitting = [path for path in there if f"-{tag}-" in path.name or "-py3-none-" in path.name]
    if not fitting:
        names = ", ".join(path.name for path in there) or "none"
        raise FileNotFoundError(f"no wheel for {tag} in {wheels} (there: {names})")
    return fitting[-1]


def _installed(name: str, wheels: Path) -> ModuleType:
    return importlib.import_module(name)


def _unpacked(name: str, wheels: Path) -> ModuleType:
    """A wheel is a zip, and the engines' wheels only need to be on the path."""
    target = tempfile.mkdtemp(prefix=f"{name}-unpacked-")
    with zipfile.ZipFile(vendored(name, wheels)) as archive:
        archive.extractall(target)  # zipfile keeps members inside the folder
    return _import_from(target, name)


def _import_from(folder: str, name: str) -> ModuleType:
    for module in [m for m in sys.modules if m == name or m.startswith(f"{name}.")]:
        del sys.modules[module]  # what an import that failed half-way left behind
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except BaseException:
        sys.path.remove(folder)
        raise


def _line(error: Exception) -> str:
    """The error's type and the first line of its message."""
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"
