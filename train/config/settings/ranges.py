"""Kinds of values that several settings have; each setting declares its own at its field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from birdkit.files import is_plain
from birdkit.ranges import Range as Range

Share = Annotated[float, Range(0, 1)]
Seconds = Annotated[float, Range(0.1, 300)]
LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True)
class FolderName:
    """Texts that name one folder, and lead nowhere else."""

    optional: bool = False

    def __contains__(self, name: str) -> bool:
        return is_plain(name) or (self.optional and not name)

    def __str__(self) -> str:
        return "of letters, digits, spaces and . + - = _ that begins with one of the first two"
