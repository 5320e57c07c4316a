"""Recordings as test soundscapes have been, and worse: twenty bad files, each in another way.

Seen in competitions: empty and garbage files, a hole in an Ogg stream, NaN samples, other rates and
lengths. An unreadable one can't be scored and costs its own rows; the others are scored as usual.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

RATE_HZ = 32_000
MINUTE_S = 60.0
HOLE_BYTES = 4096
# The first Ogg page, and a part of the second: not yet a header that a decoder takes.
HEADER_BYTES = 100

Sound = NDArray[np.float64]
Write = Callable[[Path, Path], None]


@dataclass(frozen=True)
class BadFile:
    """A way for a recording to be wrong: `write(path, healthy)` makes one from a healthy one.

    `unreadable`: whether it can't be scored; None where that depends on the user who reads it.
    """

    write: Write
    unreadable: bool | None = False
    suffix: str = ".ogg"


def noise(seconds: float, rate_hz: int = RATE_HZ, channels: int = 1) -> Sound:
    """Quiet noise, (samples, channels), the same in every call."""
    rng = np.random.default_rng(2025)
    return 0.1 * rng.standard_normal((round(seconds * rate_hz), channels))


def recording(make: Callable[[], Sound], rate_hz: int = RATE_HZ) -> Write:
    """A writer of a sound in the format of the path's suffix, float32 where that is WAV."""

    def write(path: Path, healthy: Path) -> None:
        sound = make()
        subtype = "FLOAT" if path.suffix == ".wav" else None
        with soundfile.SoundFile(path, "w", rate_hz, sound.shape[1], subtype) as file:
            # By seconds: libsndfile's Vorbis encoder overruns its stack on long buffers.
            for start in range(0, len(sound), rate_hz):
                file.write(sound[start : start + rate_hz])

    return write


def content(change: Callable[[bytes], bytes]) -> Write:
    """A writer of the healthy file's bytes, changed."""

    def write(path: Path, healthy: Path) -> None:
        path.write_bytes(change(healthy.read_bytes()))

    return write


def with_hole(data: bytes) -> bytes:
    """A file with a lost block of the disk: libsndfile gives fewer samples, and no error."""
    middle = len(data) // 2
    return data[:middle] + bytes(HOLE_BYTES) + data[middle + HOLE_BYTES :]


def garbage(data: bytes) -> bytes:
    return np.random.default_rng(2025).bytes(len(data))


def clipped() -> Sound:
    """A square wave above full scale, as a decoder may give it."""
    return 1.5 * np.sign(noise(MINUTE_S))


def with_nan() -> Sound:
    sound = noise(MINUTE_S)
    sound[::1000] = np.nan
    sound[500::1000] = np.inf
    return sound


def forged(path: Path, healthy: Path) -> None:
    """A WAV whose header promises 4 GB of samples."""
    recording(lambda: noise(MINUTE_S))(path, healthy)
    data = path.read_bytes()
    size = data.index(b"data") + 4
    path.write_bytes(data[:size] + b"\xf0\xff\xff\xff" + data[size + 4 :])


def directory(path: Path, healthy: Path) -> None:
    path.mkdir()


def dangling(path: Path, healthy: Path) -> None:
    path.symlink_to(path.with_name("gone"))


def forbidden(path: Path, healthy: Path) -> None:
    path.write_bytes(healthy.read_bytes())
    path.chmod(0)


BAD_FILES: Mapping[str, BadFile] = {
    "empty": BadFile(content(lambda data: b""), unreadable=True),
    "garbage": BadFile(content(garbage), unreadable=True),
    "text": BadFile(content(lambda data: b"404 not found\n"), unreadable=True),
    "cut in the header": BadFile(content(lambda data: data[:HEADER_BYTES]), unreadable=True),
    "no samples": BadFile(recording(lambda: noise(0)), unreadable=True),
    "a directory": BadFile(directory, unreadable=True),
    "dangling link": BadFile(dangling, unreadable=True),
    # Root reads it all the same, and in a user namespace of its own everyone is root.
    "no permission": BadFile(forbidden, unreadable=None),
    "cut in the middle": BadFile(content(lambda data: data[: len(data) // 2])),
    "hole of zeros": BadFile(content(with_hole)),
    "stereo": BadFile(recording(lambda: noise(MINUTE_S, channels=2))),
    "44.1 kHz": BadFile(recording(lambda: noise(MINUTE_S, 44_100), 44_100)),
    "8 kHz": BadFile(recording(lambda: noise(MINUTE_S, 8_000), 8_000)),
    "0.3 s": BadFile(recording(lambda: noise(0.3))),
    "90 s": BadFile(recording(lambda: noise(90.0))),
    "silence": BadFile(recording(lambda: 0 * noise(MINUTE_S))),
    "clipped": BadFile(recording(clipped), suffix=".wav"),
    "NaN samples": BadFile(recording(with_nan), suffix=".wav"),
    "one sample": BadFile(recording(lambda: noise(1 / RATE_HZ)), suffix=".wav"),
    "forged length": BadFile(forged, suffix=".wav"),
}


def describe() -> str:
    """The bad files of a rerun, in words."""
    unreadable, readable, either = (
        ", ".join(name for name, file in BAD_FILES.items() if file.unreadable is kind)
        for kind in (True, False, None)
    )
    return (
        f"{len(BAD_FILES)} bad files a rerun. Unreadable, and named: {unreadable}. Unusual, and "
        f"scored: {readable}. Either, since root reads it: {either}."
    )
