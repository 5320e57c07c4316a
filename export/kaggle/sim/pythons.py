"""Makes virtual environments with the packages of Kaggle's image, without any engine."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from birdkit.errors import UserError
from birdkit.log import LOG

# On 3.12 as in the image (December 2025 to August 2026); on 3.13 the numpy and pandas there are for it.
PACKAGES: Mapping[str, Sequence[str]] = {
    "3.12": ("numpy==2.0.2", "pandas==2.2.2", "soundfile==0.13.1", "soxr==1.0.0"),
    "3.13": ("numpy==2.1.3", "pandas==2.2.3", "soundfile==0.13.1", "soxr==1.0.0"),
}
# Packages that execute a notebook.
JUPYTER = ("nbclient==0.11.0", "ipykernel==7.4.0", "jupyter_client==8.10.0", "nbformat==5.11.1")
STAMP = "kaggle-sim.txt"  # in an environment that is complete: what it was made of
VERSION = "import sys; print('{}.{}'.format(*sys.version_info))"


def interpreter(version: str) -> Path | None:
    """An interpreter of a version ("3.12") that really runs; None where there is none."""
    return next((path for path in candidates(version) if reports(path) == version), None)


def candidates(version: str) -> Iterator[Path]:
    """Interpreters on PATH, then pyenv's, whose shim may refuse to run a version that it has."""
    name = f"python{version}"
    if on_path := shutil.which(name):
        yield Path(on_path)
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    yield from sorted(versions.glob(f"{version}.*/bin/{name}"), reverse=True)


def reports(python: Path) -> str:
    """The version that an interpreter says it is; empty where it does not run."""
    try:
        done = subprocess.run([python, "-c", VERSION], capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def environment(folder: Path, version: str, base: Path) -> Path:
    """The interpreter of a virtual environment with the pinned packages, made once and kept.

    Raises `UserError` where pip can't get them.
    """
    pins = (*PACKAGES[version], *JUPYTER)
    made_of = "\n".join([str(base), *pins]) + "\n"
    python, stamp = folder / "bin" / "python", folder / STAMP
    if stamp.is_file() and stamp.read_text() == made_of and reports(python) == version:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    LOG.info(f"{folder}: installing {', '.join(pins)}")
    try:
        subprocess.run([base, "-m", "venv", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--only-binary=:all:", *pins], check=True)
    except subprocess.CalledProcessError as error:
        raise UserError(
            f"{folder}: can't be made with {base} (see above); try again with internet"
        ) from error
    stamp.write_text(made_of)
    return python


def interpreters(versions: Sequence[str], work: Path) -> dict[str, Path]:
    """Version → the interpreter of its simulated image; those that this machine lacks are skipped."""
    images = {}
    for version in versions:
        base = interpreter(version)
        if base is None:
            LOG.info(f"skipped: no python{version} runs here (looked on PATH and in pyenv)")
        else:
            images[version] = environment(work / f"image-{version}", version, base)
    if not images:
        raise UserError(f"no python{' or python'.join(versions)} runs here; install one, on PATH")
    return images
