"""The engines' wheels for Kaggle's Pythons: chosen by name, version and tags, or downloaded.

Kaggle's image has neither engine and a submission has no internet. numpy is never among them: the
image's other packages are compiled against its own. Nor is openvino-telemetry, without which
birdkit imports openvino on purpose.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.tags import Tag, cpython_tags
from packaging.utils import BuildTag, InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from birdkit.errors import UserError
from birdkit.log import LOG

ENGINES = ("onnxruntime", "openvino")
LITERT = "ai-edge-litert"  # bundled where a member from outside is a TFLite file
# Kaggle's image has 3.12 (December 2025 to August 2026); 3.13 is expected next.
PYTHONS = ((3, 12), (3, 13))
# Built for glibc 2.28 or an older one, which newer systems run too: PEP 600 names and those before it.
PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in range(28, 4, -1)),
    *(f"manylinux{name}_x86_64" for name in ("2014", "2010", "1")),
)

Python = tuple[int, int]


def pinned(requirements: Path, engines: Sequence[str] = ENGINES) -> dict[str, Version]:
    """Engine → the one version that a requirements file allows.

    Raises
    ------
    UserError
        Where it can't be read, or an engine is absent or not pinned.
    """
    try:
        pins = dict(_pins(requirements.read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(f"{requirements}: can't be read ({error.strerror}); restore it") from error
    absent = [name for name in engines if name not in pins]
    if absent:
        raise UserError(f"{requirements}: pin {absent[0]} there (NAME==VERSION), so that it is bundled")
    return {name: pins[name] for name in engines}


def _pins(requirements: str) -> Iterator[tuple[str, Version]]:
    for line in requirements.splitlines():
        text = line.partition("#")[0].strip()
        if not text:
            continue
        try:
            requirement = Requirement(text)
            (pin,) = requirement.specifier
            if pin.operator == "==":
                yield canonicalize_name(requirement.name), Version(pin.version)
        except (InvalidRequirement, InvalidVersion, ValueError):
            continue  # not a pin, so not ours to read


@functools.cache
def tags(python: Python) -> frozenset[Tag]:
    """The tags of wheels that CPython of this version can install on Kaggle."""
    abi = f"cp{python[0]}{python[1]}"
    return frozenset(cpython_tags(python, [abi], PLATFORMS))


def parse(path: Path) -> tuple[str, Version, BuildTag, frozenset[Tag]] | None:
    """Name, version, build and tags of a wheel by its file name; None where it is no wheel's."""
    try:
        return parse_wheel_filename(path.name)
    except (InvalidWheelFilename, InvalidVersion):
        return None


def find(folder: Path, engine: str, version: Version, python: Python) -> Path | None:
    """The wheel of an engine for a Python, the latest build where there are several."""
    fitting = []
    for path in sorted(folder.glob("*.whl")):
        parsed = parse(path)
        if parsed and parsed[:2] == (engine, version) and parsed[3] & tags(python):
            fitting.append((parsed[2], path))
    return max(fitting)[1] if fitting else None


def needed(pins: Mapping[str, Version]) -> list[tuple[str, Version, Python]]:
    return [(engine, version, python) for engine, version in pins.items() for python in PYTHONS]


def gather(folder: Path, pins: Mapping[str, Version], download_missing: bool) -> list[Path]:
    """The wheels of a folder that the kit needs; absent ones are downloaded into it, or left out."""
    gathered: list[Path] = []
    for engine, version, python in needed(pins):
        if download_missing and find(folder, engine, version, python) is None:
            download(engine, version, python, folder)
        wheel = find(folder, engine, version, python)
        gathered += [wheel] if wheel else []
    return gathered


def download(engine: str, version: Version, python: Python, folder: Path) -> None:
    """Fetch one wheel with pip. Raises `UserError` where pip can't."""
    folder.mkdir(parents=True, exist_ok=True)
    LOG.info(f"downloading {engine} {version} for Python {say(python)} into {folder}")
    try:
        subprocess.run(pip_download(engine, version, python, folder), check=True)
    except subprocess.CalledProcessError as error:
        raise UserError(
            f"{engine} {version} for Python {say(python)}: pip could not download its wheel (see "
            "above); try again with internet, or give a folder that has it with --wheels DIR"
        ) from error


def pip_download(engine: str, version: Version, python: Python, folder: Path) -> Sequence[str]:
    # Each platform by name: a pip of 2023 does not know that 2_28 runs older wheels too.
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    return [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--no-deps", "--only-binary=:all:", "--implementation", "cp"),
        *("--python-version", say(python), *platforms),
        *("--dest", str(folder), f"{engine}=={version}"),
    ]


def violations(folder: Path, pins: Mapping[str, Version]) -> Iterator[str]:
    """The faults of a bundled folder of wheels, one line each."""
    for engine, version, python in needed(pins):
        if find(folder, engine, version, python) is None:
            yield (
                f"wheels: none of {engine} {version} for Python {say(python)} on {PLATFORMS[0]}; leave "
                "--wheels away to download it, or put it into that folder"
            )
    for path in sorted(folder.glob("*")):
        parsed = parse(path)
        if parsed is None or parsed[0] not in pins:
            yield (
                f"wheels/{path.name}: only wheels of {' and '.join(pins)} belong there, and never "
                "numpy: remove it"
            )
        elif not zipfile.is_zipfile(path):
            yield f"wheels/{path.name}: cut short or damaged; delete its source and fetch it again"


def say(python: Python) -> str:
    return f"{python[0]}.{python[1]}"
