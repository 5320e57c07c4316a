"""Kinds of values that several settings have; each setting declares its own at its field."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from birdkit.ranges import Range as Range

Share = Annotated[float, Range(0, 1)]
Seconds = Annotated[float, Range(0.1, 300)]
LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True)
class FolderName:
    """Texts that name one folder, and lead nowhere else."""

    optional: bool = False

    def __contains__(self, name: str) -> bool:
        plain = re.fullmatch(r"[^./\\\x00-\x1f][^/\\\x00-\x1f]{,199}", name) is not None
        return plain or (self.optional and not name)

    def __str__(self) -> str:
        return r"without / and \ that does not begin with a dot"
