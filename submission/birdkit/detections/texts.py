"""Files of text that replace older ones in one step, at paths that a file system can hold."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TextIO

from birdkit.files import replacing

MOST_BYTES = 240  # of a file's name; Linux takes 255
HASH_DIGITS = 8


@contextmanager
def text_file(path: Path) -> Iterator[TextIO]:
    """A UTF-8 file to write, which replaces `path` at the end of the block; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        yield text
        text.detach()  # flushes, and leaves the closing to `replacing`


def place(folder: Path, name: str, suffix: str) -> Path:
    """Where in a folder the file of a recording lies; its name is shortened where it is too long."""
    path = PurePosixPath(name)
    last = path.name + suffix
    if len(last.encode()) > MOST_BYTES:
        digits = hashlib.sha256(name.encode()).hexdigest()[:HASH_DIGITS]
        kept = path.name.encode()[: MOST_BYTES - len(suffix) - HASH_DIGITS - 1].decode(errors="ignore")
        last = f"{kept}-{digits}{suffix}"
    return folder / path.parent / last
