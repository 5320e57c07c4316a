"""Recordings decoded once, to int16 files that are memory-mapped, so that no epoch waits for a codec.

The folder only saves time: what it lacks is decoded as it is drawn, to the same values bit for bit. An
entry ends with a checksum, so that a damaged one is noticed where a process first maps it.
"""

from __future__ import annotations

import shutil
import threading
import time
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from tokenize import TokenError

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from birdkit import audio
from birdkit.files import write_whole
from birdkit.log import LOG
from train.config import provenance
from train.data import bad_files
from train.data.progress import in_threads

# Inputs of the values beside the file itself. Raise the number when `_decode` or the format changes.
VERSION = f"2, libsndfile {soundfile.__libsndfile_version__}, soxr {soxr.__version__}"
CACHE = Path(__file__).resolve().parents[2] / "build" / "waveforms"  # where nothing else is named
FULL_SCALE = 32767
RESERVE_BYTES = 2 << 30  # disk space left free for checkpoints and the rest
ABANDONED_S = 3600.0  # a partial file this old was left by a process that was killed
INDEX = "index.json"  # entry name → source path
N_CHECKSUM = 4  # bytes of the CRC-32 behind an entry's array

Source = tuple[Path, float | None]  # a recording and its first so many seconds, None for all
Sources = Mapping[str, Source]  # by entry name

_checked: set[str] = set()  # states of the entries whose checksum this process has seen to be right


@dataclass
class Waveforms:
    """Recordings as int16, from the cache folder or decoded; memory holds the latest decoded ones."""

    sample_rate: int
    folder: Path | None = None
    memory_bytes: int = 1 << 30
    _kept: dict[str, NDArray[np.int16]] = field(default_factory=dict, init=False, repr=False)
    _kept_bytes: int = field(default=0, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def __reduce__(self) -> tuple[type[Waveforms], tuple[int, Path | None, int]]:
        # A loader process gets the settings, and not a gigabyte through a pipe.
        return Waveforms, (self.sample_rate, self.folder, self.memory_bytes)

    def __call__(self, path: Path, max_s: float | None = None) -> NDArray[np.int16]:
        """First `max_s` seconds, (samples,), read-only. Raises `AudioError` where there is no sound."""
        name = _entry_name(path, max_s, self.sample_rate)
        if self.folder is not None:
            entry = _open_or_mend(self.folder / name, (path, max_s), self.sample_rate)
            if entry is not None:
                return entry
        with self._lock:
            samples = self._kept.get(name)
        if samples is None:
            samples = _decode(path, max_s, self.sample_rate)
        with self._lock:
            self._forget(name)
            self._kept[name] = samples  # now the latest
            self._kept_bytes += samples.nbytes
            while self._kept_bytes > self.memory_bytes:
                self._forget(next(iter(self._kept)))
        return samples

    def _forget(self, name: str) -> None:
        if (samples := self._kept.pop(name, None)) is not None:
            self._kept_bytes -= samples.nbytes


def to_float(samples: NDArray[np.int16]) -> NDArray[np.float32]:
    """int16 samples, as `Waveforms` returns them → float32 in [-1, 1] of the same shape."""
    return np.divide(samples, np.float32(FULL_SCALE), dtype=np.float32)


@dataclass(frozen=True)
class Room:
    """The recordings that a folder lacks: those that its disk has room for, and the others."""

    fits: Sources
    left: Sources
    needed: float  # bytes of all of them
    free: int  # bytes

    @classmethod
    def of(cls, folder: Path, missing: Sources, sample_rate: int) -> Room:
        """What fits beside the reserve, the first ones first. Raises `OSError` without a disk."""
        looks = bad_files.look_at_all([path for path, _ in missing.values()])
        lengths_s = (
            min(s, max_s or s) for (s, _), (_, max_s) in zip(looks, missing.values(), strict=True)
        )
        sizes = [seconds * sample_rate * 2 for seconds in lengths_s]
        there = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
        free = shutil.disk_usage(there).free
        left_bytes, fits = float(free - RESERVE_BYTES), dict[str, Source]()
        for name, size in zip(missing, sizes, strict=True):
            if size <= left_bytes:
                fits[name] = missing[name]
                left_bytes -= size
        left = {name: source for name, source in missing.items() if name not in fits}
        return cls(fits, left, sum(sizes), free)

    def __str__(self) -> str:
        """What is left out and why; empty where nothing is."""
        if not self.left:
            return ""
        sizes = (f"{size / 1e9:.1f} GB" for size in (self.needed, RESERVE_BYTES, self.free))
        need = "{} and {} to spare are needed, {} are free".format(*sizes)
        return f"{_counted(self.left)} are decoded as they are drawn, since {need}"


def forecast(folder: Path, wanted: Sequence[Source], sample_rate: int) -> str:
    """What `fill` would do, without any of it."""
    current = {_entry_name(*source, sample_rate): source for source in wanted}
    missing = {name: current[name] for name in current if _open_entry(folder / name) is None}
    if not missing:
        return f"waveform cache {folder}: holds all {len(current)} recordings"
    room = Room.of(folder, missing, sample_rate)
    cached = f"{_counted(room.fits)} of {len(current)} are to be decoded once, into {folder}"
    return f"waveform cache: {cached}; {room}" if room.left else f"waveform cache: {cached}"


def _counted(sources: Sources) -> str:
    """How many recordings there are, and how many of them are soundscapes, of which all is kept."""
    n_whole = sum(max_s is None for _, max_s in sources.values())
    return f"{len(sources)} recordings" + (f" ({n_whole} of them soundscapes)" if n_whole else "")


def fill(folder: Path, wanted: Sequence[Source], sample_rate: int) -> tuple[str, dict[Path, str]]:
    """Decode the recordings that the folder lacks, from the first on, as many as fit on the disk.

    A disk that is short, full or read-only is only reported, since training works without the cache.

    Returns
    -------
    A line on the result, and the faults of the files that can't be decoded.
    """
    current = {_entry_name(*source, sample_rate): source for source in wanted}
    faults: dict[Path, str] = {}
    room = Room({}, {}, 0.0, 0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        index = _sweep(folder, current)
        missing = {name: current[name] for name in current if _open_entry(folder / name) is None}
        damaged = [name for name in missing if (folder / name).exists()]
        if missing:
            room = Room.of(folder, missing, sample_rate)
            faults = _write(folder, room.fits, index, sample_rate)
        cached = {name: path for name, (path, _) in current.items() if name not in room.left}
        entries = [folder / name for name, path in cached.items() if path not in faults]
        size_gb = sum(entry.stat().st_size for entry in entries) / 1e9
    except OSError as error:
        rest = "recordings that it lacks are decoded as they are drawn"
        lacking = [current[name] for name in current if _open_entry(folder / name) is None]
        line = f"waveform cache: {error.strerror or error} in {folder}; {rest}"
        return line, bad_files.undecodable(lacking, sample_rate, folder)
    n_decoded = sum(path not in faults for path, _ in room.fits.values())
    counts = f"{len(entries)} recordings, {size_gb:.2f} GB, {n_decoded} decoded now"
    if damaged:
        counts += f", {len(damaged)} of them for damaged entries ({', '.join(damaged[:3])})"
    if room.left:
        faults |= bad_files.undecodable(list(room.left.values()), sample_rate, folder)
        counts += f"; {room}"
    return f"waveform cache {folder}: {counts}", faults


def _sweep(folder: Path, current: Sources) -> dict[str, str]:
    """Remove entries whose source changed, is gone or is now cut otherwise; index of the others."""
    for partial in folder.glob("*.partial"):
        with suppress(FileNotFoundError):  # another process's, just finished
            if time.time() - partial.stat().st_mtime > ABANDONED_S:
                partial.unlink()
    listed = provenance.read_store(folder / INDEX)
    index = {name: str(source) for name, source in listed.items() if Path(name).name == name}
    sources = {str(path.resolve()) for path, _ in current.values()}
    for name, source in list(index.items()):
        if name not in current and (source in sources or not Path(source).exists()):
            (folder / name).unlink(missing_ok=True)
            del index[name]
    return index


def _write(folder: Path, missing: Sources, index: dict[str, str], sample_rate: int) -> dict[Path, str]:
    """Write the entries, and return the faults of the files that can't be decoded."""

    def write_entry(name: str) -> str | None:
        try:
            _write_entry(folder / name, missing[name], sample_rate)
        except audio.AudioError as error:
            return bad_files.fault(missing[name][0], error)
        return None

    # The index is written first, so that it lists every entry even after a kill.
    index |= {name: str(path.resolve()) for name, (path, _) in missing.items()}
    provenance.write_store(folder / INDEX, index)
    faults = in_threads(write_entry, list(missing), "waveform cache")
    return {path: why for (path, _), why in zip(missing.values(), faults, strict=True) if why}


def _write_entry(entry: Path, source: Source, sample_rate: int) -> None:
    content = BytesIO()  # for np.save to a file drops the errno of a full disk
    np.save(content, _decode(*source, sample_rate))
    content.write(zlib.crc32(content.getbuffer()).to_bytes(N_CHECKSUM, "little"))
    write_whole(entry, content.getvalue())


def _entry_name(path: Path, max_s: float | None, sample_rate: int) -> str:
    """The cache name, keyed by path, size and modification time. Raises `AudioError` without a file."""
    try:
        file = provenance.file_state(path)
    except OSError as error:
        raise audio.AudioError(f"{path}: can't be read ({error}); replace or remove it") from error
    first_s = None if max_s is None else float(max_s)
    made_by = {"version": VERSION, "file": file, "sample_rate": sample_rate, "first_s": first_s}
    return provenance.key(made_by)[:32] + ".npy"


def _open_or_mend(entry: Path, source: Source, sample_rate: int) -> NDArray[np.int16] | None:
    """(samples,), mapped and read-only, of an entry that is written anew where it is damaged.

    None where there is none, or the disk refuses the new one.
    """
    try:
        state = provenance.file_state(entry)
    except OSError:
        return None
    samples = _open_entry(entry)
    if samples is not None and state not in _checked:
        content = np.memmap(entry, np.uint8, mode="r").data
        checksum = int.from_bytes(content[-N_CHECKSUM:], "little")
        samples = samples if zlib.crc32(content[:-N_CHECKSUM]) == checksum else None
    if samples is None:
        LOG.warning(f"waveform cache: {entry} is damaged; {source[0]} is decoded again")
        with suppress(OSError):
            _write_entry(entry, source, sample_rate)
            samples, state = _open_entry(entry), provenance.file_state(entry)
    if samples is not None:
        _checked.add(state)
    return samples


def _open_entry(path: Path) -> NDArray[np.int16] | None:
    """(samples,), mapped and read-only; None where there is no complete entry."""
    try:
        entry = np.lib.format.open_memmap(path, mode="r")
        complete = entry.offset + entry.nbytes + N_CHECKSUM == path.stat().st_size
    except (OSError, ValueError, TokenError):
        return None
    return entry if complete and entry.dtype == np.int16 and entry.ndim == 1 else None


def _decode(path: Path, max_s: float | None, sample_rate: int) -> NDArray[np.int16]:
    """(samples,), ±FULL_SCALE for ±1, read-only. Halves are rounded to even."""
    samples = np.rint(audio.read(path, sample_rate, max_s=max_s) * FULL_SCALE).astype(np.int16)
    samples.flags.writeable = False
    return samples
