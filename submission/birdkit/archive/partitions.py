"""Recordings → partitions: what a worker takes at a time, and what a file of the tables holds."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import astuple, dataclass

from birdkit.archive.places import Item

KEY_DIGITS = 16
MOST_BYTES = (
    256 << 20
)  # after so many a partition ends, so that no worker holds long what others could do
MOST_TIMES = 4  # so many times the mean number of recordings a partition has at most


@dataclass(frozen=True)
class Partition:
    """Recordings that are scored together, by the name that their tables have."""

    key: str
    items: tuple[Item, ...]

    @property
    def size(self) -> int:
        """Bytes of all its recordings."""
        return sum(item.size for item in self.items)


def partitions(items: Sequence[Item], mean: int, made_by: str) -> list[Partition]:
    """The partitions of recordings that are in order of their names.

    A partition ends behind a recording whose name says so, by its checksum, about every `mean` ones. So
    a recording that comes or goes changes the partition that it lies in, and no other one but where
    partitions end for their size.

    Parameters
    ----------
    made_by : what the tables depend on beside the recordings; it is part of the key
    """
    found: list[Partition] = []
    held: list[Item] = []
    size = 0
    for item in items:
        held.append(item)
        size += item.size
        ends = zlib.crc32(item.name.encode()) % mean == 0
        if ends or size >= MOST_BYTES or len(held) >= MOST_TIMES * mean:
            found.append(_partition(held, made_by))
            held, size = [], 0
    return [*found, _partition(held, made_by)] if held else found


def _partition(items: Sequence[Item], made_by: str) -> Partition:
    text = json.dumps([made_by, *(astuple(item) for item in items)])
    return Partition(hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS], tuple(items))
