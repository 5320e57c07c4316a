"""Tables of pages: columns with the format of their cells, and rows of plain values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Column:
    """A column; `spec` formats its numbers (as in `format`) and "" holds text."""

    title: str
    spec: str = ""

    @property
    def is_number(self) -> bool:
        return self.spec != ""

    def text(self, value: Any) -> str:
        """A cell as it is shown; a dash stands for what is not there."""
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return "–"
        shown = format(value, self.spec) if self.is_number else str(value)
        return shown.replace("-", "−") if self.is_number else shown


@dataclass(frozen=True)
class Table:
    """A table that a page shows, sorts and, where it is long, searches."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    note: str = ""
