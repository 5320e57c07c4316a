"""Writes files in one step, locks them, checks their names, and hashes their content."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from birdkit.errors import UserError

PLAIN_NAME = re.compile(r"\w[\w .+=-]{0,99}")
# The end of a file's name while it is written; a kill leaves it behind.
PARTIAL = ".partial"
LEFT_BEHIND = re.compile(rf".*\.[0-9a-f]{{16}}{re.escape(PARTIAL)}")


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which replaces `path` in one step at the end of the block.

    A kill, or a second writer, leaves the old file or a whole new one. A process that has mapped the
    old file keeps reading the old content. Raises `OSError` where the disk is full, and leaves what was
    there.
    """
    partial = path.with_name(f"{path.name[:40]}.{os.urandom(8).hex()}{PARTIAL}")
    try:
        with partial.open("xb") as file:  # x: never a file or link that is there already
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def remove_partial(folder: Path) -> None:
    """Remove what killed writers left behind in a locked folder and below it."""
    for path in folder.rglob(f"*{PARTIAL}"):
        if LEFT_BEHIND.fullmatch(path.name):
            path.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file in one step, as `replacing` does."""
    with replacing(path) as file:
        file.write(content)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes from writing a file or folder; the lock goes with this process.

    Raises `UserError` naming the process that holds the lock.
    """
    lock = path / ".lock" if path.is_dir() else path.with_name(f"{path.name}.lock")
    file = _open_lock(lock, path)
    try:
        os.ftruncate(file, 0)
        since = time.strftime("%H:%M:%S")
        os.write(file, f"process {os.getpid()} on {platform.node()}, since {since}".encode())
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(file)


def _open_lock(lock: Path, path: Path) -> int:
    """The descriptor of the lock file of `path`, which this process has locked."""
    while True:
        file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(file, 200).decode(errors="replace")
            os.close(file)
            raise UserError(
                f"{path}: {holder or 'another process'} is writing there; "
                "wait until it has ended, or give another --out"
            ) from None
        except OSError:
            return file  # a file system without locks
        if os.fstat(file).st_nlink:
            return file
        os.close(file)  # its last holder has just removed it


def is_plain(name: str) -> bool:
    """Whether a name is one of a file or folder: no separator, no leading dot, not too long."""
    return PLAIN_NAME.fullmatch(name) is not None


def sha256(path: Path) -> str:
    """The hexadecimal SHA-256 of a file's content, 64 characters."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
