"""When a recording began: told by its name, or by the header of a WAV file."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import BinaryIO

# `SITE_20250703_071500.wav`, AudioMoth's `20250703_071500.WAV`, `2025-07-03T07-15-00+0200.flac`
IN_NAME = re.compile(
    r"(?<!\d)((?:19|20)\d\d)-?(\d\d)-?(\d\d)([_T -]?)(\d\d)[:.-]?(\d\d)[:.-]?(\d\d)"
    r"(?:(Z)|(?<=\d)([+-]\d\d):?(\d\d))?(?!\d)"
)
# Old AudioMoths: Unix seconds in hexadecimal. One of digits alone may be any number, and is not taken.
HEXADECIMAL = re.compile(r"(?=\d*[A-F])[5-7][0-9A-F]{7}")
AUDIOMOTH = re.compile(
    r"Recorded at (\d\d:\d\d:\d\d \d\d/\d\d/\d{4}) \(UTC(?:([+-]\d{1,2})(?::?(\d\d))?)?\)"
)
GUANO = re.compile(r"^Timestamp:\s*(\S+)", re.MULTILINE)
MOST_CHUNKS = 64  # of a WAV file; more of them are no header
MOST_BYTES = 1 << 16  # of a chunk that is read
BEXT_TIME = slice(320, 338)  # of a broadcast WAV: yyyy-mm-dd, then hh-mm-ss with any separators
UNKNOWN_SIZE = 0xFFFFFFFF  # the true one is in the chunk "ds64"


def start_of(path: Path) -> datetime | None:
    """When a recording began; None where neither name nor header tells. The name goes first.

    It has a time zone only where that is told, too.
    """
    return of_name(path.stem) or _of_header(path)


def of_name(stem: str) -> datetime | None:
    """The time in a file's name; None where there is none that a calendar knows."""
    if HEXADECIMAL.fullmatch(stem):
        return datetime.fromtimestamp(int(stem, 16), UTC)
    for found in IN_NAME.finditer(stem):
        year, month, day, separator, hour, minute, second, utc, hours, minutes = found.groups()
        with suppress(ValueError):
            start = datetime(*map(int, (year, month, day, hour, minute, second)))  # type: ignore[arg-type]
            if utc:
                return start.replace(tzinfo=UTC)
            # After `T` it is ISO 8601; elsewhere "-0200" may be anything.
            if hours and separator == "T":
                return start.replace(tzinfo=_zone(hours, minutes))
            return start
    return None


def _of_header(path: Path) -> datetime | None:
    """The time in the header of a WAV file: of GUANO, of AudioMoth's comment, or of a broadcast WAV."""
    try:
        with path.open("rb") as file:
            chunks = dict(_chunks(file))
    except (OSError, struct.error):
        return None
    if found := GUANO.search(chunks.get(b"guan", b"").decode(errors="replace")):
        with suppress(ValueError):
            return datetime.fromisoformat(found[1])
    if found := AUDIOMOTH.search(chunks.get(b"LIST", b"").decode(errors="replace")):
        with suppress(ValueError):
            start = datetime.strptime(found[1], "%H:%M:%S %d/%m/%Y")
            return start.replace(tzinfo=_zone(found[2] or "+0", found[3] or "0"))
    digits = re.sub(rb"\D", b"", chunks.get(b"bext", b"")[BEXT_TIME]).decode()
    with suppress(ValueError):
        return datetime.strptime(digits, "%Y%m%d%H%M%S") if len(digits) == 14 else None
    return None


def _zone(hours: str, minutes: str) -> timezone:
    """The zone of "+02" and "00". Raises `ValueError` where a day has no such hours."""
    offset = timedelta(hours=abs(int(hours)), minutes=int(minutes))
    return timezone(-offset if hours.startswith("-") else offset)


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Name and first bytes of each chunk of a WAV file but its sound; none of another file."""
    form, _, kind = struct.unpack("<4sI4s", file.read(12))
    if form not in (b"RIFF", b"RF64") or kind != b"WAVE":
        return
    data_size = 0
    for _ in range(MOST_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            return
        name, size = struct.unpack("<4sI", head)
        content = b"" if name == b"data" else file.read(min(size, MOST_BYTES))
        if name == b"ds64" and len(content) >= 16:
            (data_size,) = struct.unpack_from("<Q", content, 8)
        if size == UNKNOWN_SIZE:
            size = data_size
        file.seek(size + size % 2 - len(content), 1)
        yield name, content
