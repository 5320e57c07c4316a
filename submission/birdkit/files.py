"""Writes files in one step, and hashes their content."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file in one step: a kill, or a second writer, leaves the old file or a whole new one.

    A process that has mapped the old file keeps reading the old content. Raises `OSError` where the
    disk is full, and leaves what was there.
    """
    partial = path.with_name(f"{path.name}.{os.urandom(8).hex()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """The hexadecimal SHA-256 of a file's content, 64 characters."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
