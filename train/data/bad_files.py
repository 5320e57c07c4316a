"""Files that can't be read: how they are found, and whether training goes on without them."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from birdkit import audio
from birdkit.errors import UserError
from birdkit.recordings.folders import FIELD_SUFFIXES, sound_files
from train.config import provenance
from train.data.progress import in_threads

Faults = Mapping[Path, str]
DECODED_NAME = "decoded.json"

Look = tuple[float, str | None]  # a file's length in s, and its fault if it has one


def look_at(path: Path) -> Look:
    """A file's length and fault. It is decoded only where its header can't be right, and once."""
    if not path.is_file():
        return 0.0, "is absent"
    return _look_at(path, provenance.file_state(path))


@functools.cache
def _look_at(path: Path, state: str) -> Look:
    try:
        duration_s = audio.length_s(path)
    except audio.AudioError as error:
        return 0.0, fault(path, error)
    return duration_s, None if duration_s > 0 else "holds no samples"


def look_at_all(paths: Sequence[Path]) -> list[Look]:
    """`look_at` each of many files."""
    return in_threads(look_at, paths, "reading headers")


def sounds_below(folder: Path) -> list[Path]:
    """The sound files of a folder and of all below it, sorted. Raises `UserError` where it has none."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give one that holds recordings")
    paths = sorted(sound_files(folder, FIELD_SUFFIXES))
    if not paths:
        raise UserError(f"{folder}: no recordings there ({', '.join(sorted(FIELD_SUFFIXES))})")
    return paths


def undecodable(
    sources: Sequence[tuple[Path, float | None]], sample_rate: int, cache: Path
) -> dict[Path, str]:
    """The faults of files whose first so many seconds (None: all) can't be decoded.

    A store in the cache folder keeps which ones can: they are not decoded for this again.
    """
    store = cache / DECODED_NAME
    decoded = set(provenance.read_store(store).get("decoded", []))

    def look(source: tuple[Path, float | None]) -> tuple[str, str | None]:
        path, max_s = source
        try:
            state = f"{provenance.file_state(path)} {max_s} {sample_rate}"
        except OSError as error:
            return "", f"can't be read: {error.strerror}"
        return state, None if state in decoded else body_fault(path, sample_rate, max_s)

    looks = in_threads(look, sources, "checking files")
    if new := {state for state, why in looks if not why} - decoded:
        with suppress(OSError):  # without it, the next run decodes them again
            provenance.write_store(store, {"decoded": sorted(decoded | new)})
    return {path: why for (path, _), (_, why) in zip(sources, looks, strict=True) if why}


def body_fault(path: Path, sample_rate: int = 32_000, max_s: float | None = None) -> str | None:
    """Why a file's first seconds (None: all) can't be decoded; None where they can."""
    try:
        audio.read(path, sample_rate, max_s=max_s)
    except audio.AudioError as error:
        return fault(path, error)
    return None


def fault(path: Path, error: audio.AudioError) -> str:
    """What is wrong with a file: the error without its name and the remedy."""
    return str(error).removeprefix(f"{path}: ").rpartition("; ")[0]


def left_out(faults: Faults, skip_bad: bool, where: str = "") -> list[str]:
    """A line for each bad file. Raises `UserError` where the recipe does not leave them out."""
    if faults and not skip_bad:
        path, why = next(iter(faults.items()))
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise UserError(
            f"{where}{path} {why}{more}; restore it, remove it and its rows, or leave such files out "
            "with --set data.skip_bad=true"
        )
    return [f"{path}: {why}" for path, why in faults.items()]
