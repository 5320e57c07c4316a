"""Gets an engine imported where the image lacks it: from a wheel that lies beside the kit, offline.

In order: the installed one, `pip install` of the vendored wheel whose tag fits this Python, the same
wheel unpacked into a scratch folder on `sys.path`.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from types import ModuleType

WHEELS = Path(__file__).resolve().parents[2] / "wheels"
PIP_LIMIT_S = 240.0
# Packages that no way led to, and why: the next model file need not wait for pip again.
_BROKEN: dict[str, str] = {}


class EngineMissing(ImportError):
    """No way led to an importable engine; the message names each."""


def obtain(name: str, wheels: Path = WHEELS, failed: list[str] | None = None) -> ModuleType:
    """Import a package, installing or unpacking its vendored wheel where that is needed.

    Parameters
    ----------
    failed : collects what should have worked and did not, a line each

    Raises
    ------
    EngineMissing
        Naming every way that was tried.
    """
    if name in _BROKEN:
        raise EngineMissing(_BROKEN[name])
    tried: list[str] = []
    for way, said in ((_installed, ""), (_pip_installed, "pip install"), (_unpacked, "unpacking")):
        try:
            package = way(name, wheels)
        except Exception as error:  # the ladder: a broken package can throw anything
            # That it is not installed is how Kaggle's image is; that it is broken is news.
            absent = isinstance(error, ModuleNotFoundError) and error.name == name
            tried.append("not installed" if absent else f"{said} {_line(error)}".strip())
            continue
        if failed is not None:
            failed += [f"{name}: {each}" for each in tried if each != "not installed"]
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


def _pip_installed(name: str, wheels: Path) -> ModuleType:
    wheel = vendored(name, wheels)
    target = tempfile.mkdtemp(prefix=f"{name}-")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-color"]
    subprocess.run(
        [*command, "--no-index", "--no-deps", "--target", target, str(wheel)],
        check=True,
        timeout=PIP_LIMIT_S,
        capture_output=True,
        text=True,
    )
    return _import_from(target, name)


def _unpacked(name: str, wheels: Path) -> ModuleType:
    """A wheel is a zip, and these need no more than to be on the path."""
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
    text = getattr(error, "stderr", None) or str(error)
    return f"{type(error).__name__}: {next(iter(str(text).strip().splitlines()), '')}"
