"""Folders and object stores: where an archive's recordings lie, and where its tables are written.

A place is a path, or an address with a scheme (`s3://bucket/2025`), which fsspec opens.
"""

from __future__ import annotations

import posixpath
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from birdkit.errors import UserError, one_line
from birdkit.files import remove_partial, write_whole
from birdkit.recordings import folders
from birdkit.recordings.folders import FIELD_SUFFIXES

# What an object store says of a version of an object, by the names that the stores have for it.
VERSIONS = ("ETag", "etag", "md5Hash", "content_md5", "generation", "mtime", "LastModified", "created")


@dataclass(frozen=True)
class Item:
    """A recording of an archive: where it is, its name in tables, and what tells that it changed."""

    where: str  # an absolute path, or an address
    name: str
    size: int  # bytes
    version: str


def is_address(place: str) -> bool:
    """Whether a place lies in an object store."""
    return "://" in place


def find(places: Sequence[str], out: str) -> tuple[list[Item], dict[str, str]]:
    """The recordings of all places in order of their names, and name → why of those that vanished.

    Raises `UserError` where a place is missing, where there is no recording at all, and where folders
    and object stores are mixed, whose names would have no base in common.
    """
    remote = [is_address(place) for place in places]
    if not any(remote):
        outside = None if is_address(out) else Path(out)
        found, faults = folders.find([Path(place) for place in places], outside)
        return [Item(str(r.path), r.name, r.size, str(r.mtime_ns)) for r in found], faults
    if not all(remote):
        raise UserError("give folders, or addresses of an object store, and not both in one call")
    items = [item for place in places for item in _objects(place, many=len(places) > 1)]
    if not items:
        raise UserError(
            f"{', '.join(places)}: no recordings there ({', '.join(sorted(FIELD_SUFFIXES))})"
        )
    return sorted(dict.fromkeys(items), key=lambda item: (item.name, item.where)), {}


def _objects(place: str, *, many: bool) -> list[Item]:
    """The recordings below an address; of several addresses names hold the whole path."""
    store, root = _store(place)
    try:
        listed = store.find(root, detail=True)
    except (OSError, ValueError) as error:
        raise UserError(f"{place}: can't be listed ({error}); mend that, or leave it out") from error
    if not listed:
        raise UserError(f"{place}: nothing there; give the address of recordings")
    found = []
    for path, state in listed.items():
        if PurePosixPath(path).suffix.lower() not in FIELD_SUFFIXES:
            continue
        base = "" if many else posixpath.dirname(root) if path == root else root
        name = one_line(path.removeprefix(base).lstrip("/"))
        version = next((str(state[key]) for key in VERSIONS if state.get(key)), "")
        found.append(Item(store.unstrip_protocol(path), name, int(state["size"] or 0), version))
    return found


def fetch(item: Item, scratch: Path) -> Path:
    """The path of a recording; one of an object store is copied to the scratch folder.

    Raises `OSError` where the store can't be read.
    """
    if not is_address(item.where):
        return Path(item.where)
    store, path = _store(item.where)
    copy = scratch / item.name
    copy.parent.mkdir(parents=True, exist_ok=True)
    try:
        with store.open(path, "rb") as source, copy.open("wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
    except Exception as error:  # every store has errors of its own
        raise OSError(f"can't be read from its store ({error})") from error
    return copy


class Place(Protocol):
    """Where tables are written, each in one step, by their paths below it."""

    def read(self, path: str) -> bytes | None:
        """A file's content; None where it isn't there."""

    def write(self, path: str, content: bytes) -> None:
        """Replace a file: readers see the old content or the new one."""

    def remove(self, path: str) -> None:
        """Remove a file that may not be there."""

    def names(self, folder: str) -> set[str]:
        """The names of the files in a folder, which may not be there."""


def place(where: str) -> Place:
    """The place at a path or an address."""
    return Bucket(where) if is_address(where) else Folder(Path(where))


@dataclass(frozen=True)
class Folder:
    """A folder that all workers share."""

    root: Path

    def read(self, path: str) -> bytes | None:
        try:
            return (self.root / path).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, path: str, content: bytes) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, content)

    def remove(self, path: str) -> None:
        (self.root / path).unlink(missing_ok=True)

    def names(self, folder: str) -> set[str]:
        below = self.root / folder
        return {path.name for path in below.iterdir()} if below.is_dir() else set()

    def sweep(self) -> None:
        """Remove what killed writers left behind; no worker may be at work."""
        remove_partial(self.root)


class Bucket:
    """A part of an object store, where a write is one step by itself."""

    def __init__(self, where: str) -> None:
        self.where = where
        self._store, self._root = _store(where)

    def __reduce__(self) -> tuple[type[Bucket], tuple[str]]:
        return Bucket, (self.where,)

    def read(self, path: str) -> bytes | None:
        with suppress(FileNotFoundError):
            return bytes(self._store.cat_file(self._path(path)))
        return None

    def write(self, path: str, content: bytes) -> None:
        self._store.makedirs(posixpath.dirname(self._path(path)), exist_ok=True)
        self._store.pipe_file(self._path(path), content)

    def remove(self, path: str) -> None:
        with suppress(FileNotFoundError):
            self._store.rm_file(self._path(path))

    def names(self, folder: str) -> set[str]:
        self._store.invalidate_cache()
        with suppress(FileNotFoundError):
            listed = self._store.ls(self._path(folder), detail=False)
            return {posixpath.basename(path.rstrip("/")) for path in listed}
        return set()

    def _path(self, path: str) -> str:
        return posixpath.join(self._root, path)


def _store(where: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it. Raises `UserError` without its package."""
    try:
        import fsspec
    except ImportError:
        raise UserError(
            f"{where}: fsspec is missing, which opens it; pip install -r requirements-scale.txt"
        ) from None
    try:
        return fsspec.core.url_to_fs(where)
    except (ImportError, ValueError) as error:
        raise UserError(f"{where}: {error}") from error
