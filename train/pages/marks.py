"""Puts tables between marks of files that people read."""

from __future__ import annotations

from pathlib import Path

from birdkit.errors import UserError


def require_marks(path: Path, mark: str) -> tuple[str, str, str]:
    """The two marks, and the text of a file. Raises `UserError` where it lacks one of them."""
    start, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    whole = path.read_text()
    if start not in whole or end not in whole:
        raise UserError(f"{path}: needs a line {start} and a line {end} to put the table between")
    return start, end, whole


def put_between_marks(path: Path, mark: str, text: str) -> None:
    """Replace the text between `<!-- mark -->` and `<!-- /mark -->` in a file.

    Raises `UserError` where the file lacks one of the marks.
    """
    start, end, whole = require_marks(path, mark)
    before, after = whole.partition(start)[0], whole.partition(end)[2]
    path.write_text(f"{before}{start}\n{text}\n{end}{after}")
