"""The inputs that an artefact was made from, and whether it can be kept.

`made_by` is a table of JSON values by the names of the inputs: versions, settings, hashes, states of
files. Checkpoints, pseudo labels, scores, the caches and the demo competition all keep one, and all
are kept exactly where that table equals the one that is wanted now.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from birdkit.files import write_whole
from birdkit.log import LOG

MadeBy = Mapping[str, Any]


def differences(wanted: MadeBy, made_by: MadeBy, within: str = "") -> list[str]:
    """Names of the inputs that differ, such as `job.fit.lr`, sorted."""
    names = sorted(wanted.keys() | made_by.keys())
    return [name for key in names for name in _differing(wanted, made_by, key, within)]


def _differing(wanted: MadeBy, made_by: MadeBy, key: str, within: str) -> Iterator[str]:
    name = f"{within}.{key}" if within else key
    one, other = wanted.get(key), made_by.get(key)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        yield from differences(one, other, name)
    elif one != other:
        yield name


def can_be_kept(wanted: MadeBy, made_by: object) -> bool:
    """Whether an artefact equals what would be made now; one without `made_by` does not."""
    return isinstance(made_by, Mapping) and not differences(as_json(wanted), made_by)


def as_json(made_by: MadeBy) -> dict[str, Any]:
    """The table as it is read back from a file: tuples as lists, keys as strings."""
    return dict(json.loads(json.dumps(made_by)))


def key(made_by: MadeBy) -> str:
    """64 hexadecimal digits that name an artefact by what made it."""
    return hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()


def file_state(path: Path) -> str:
    """A file's path, size and modification time; its content is not read. Raises `OSError`."""
    stat = path.stat()
    return f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}"


CHECKSUM = "sha256"  # a store's key for the one over all others


def write_store(path: Path, content: MadeBy) -> None:
    """Keep a table as JSON, with a checksum. Raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = as_json(content)
    write_whole(path, json.dumps({**table, CHECKSUM: key(table)}, indent=0).encode())


def read_store(path: Path) -> dict[str, Any]:
    """What `write_store` kept, or an older kit without a checksum; a damaged file is named, and {}."""
    try:
        table = dict(json.loads(path.read_bytes()))
        if table.pop(CHECKSUM, None) in (None, key(table)):
            return table
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, TypeError):
        pass
    LOG.warning(f"{path}: damaged; what it kept is made again")
    return {}
