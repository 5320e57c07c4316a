"""The manifest of a bundled kit: it lists each file below the kit's folder with its sha256 and size.

`export/bundle.py` writes it, the notebook finds the kit by its name, and a run compares the two before
it trusts what was uploaded. A checkout of `submission/` has none and is not compared.
"""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath
from typing import Any

from birdkit.files import sha256, write_whole

NAME = "birdkit-manifest.json"
VERSION = 1
# The manifest does not list itself, nor the dataset's metadata: the official CLI leaves that out of the
# upload, and the web page does not.
NOT_LISTED = (NAME, "dataset-metadata.json")


def build(root: Path) -> dict[str, Any]:
    """The manifest of a folder: its version, and sha256 and size in bytes of each file below it."""
    files = {path: {"sha256": sha256(root / path), "size": size(root / path)} for path in paths(root)}
    return {"version": VERSION, "files": files}


def write(root: Path) -> None:
    """Write the manifest of a folder into it."""
    text = json.dumps(build(root), indent=1, sort_keys=True)
    write_whole(root / NAME, f"{text}\n".encode())


def paths(root: Path) -> list[str]:
    """Each file below a folder, POSIX and sorted, without Python's caches."""
    below = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    relevant = (p for p in below if "__pycache__" not in p.parts and p.suffix != ".pyc")
    return sorted(p.as_posix() for p in relevant if p.as_posix() not in NOT_LISTED)


def faults(root: Path) -> dict[str, str] | None:
    """File → what is wrong with it, by name; empty where all is as bundled.

    None where the folder has no manifest. One that can't be read is itself a fault.
    """
    if not (root / NAME).exists():
        return None
    try:
        in_manifest = listed(root)
    except (OSError, ValueError) as error:
        return {NAME: f"can't be read ({error})"}
    wrong = {path: fault for path, entry in in_manifest.items() if (fault := _fault(root, path, entry))}
    wrong |= {path: "is not in the manifest" for path in paths(root) if path not in in_manifest}
    return dict(sorted(wrong.items()))


def problems(root: Path) -> list[str] | None:
    """The faults, one line a file; None where the folder has no manifest."""
    wrong = faults(root)
    return None if wrong is None else [f"{path}: {fault}" for path, fault in wrong.items()]


def size(path: Path) -> int:
    """The size of a file in bytes."""
    return path.stat().st_size


def listed(root: Path) -> dict[str, dict[str, Any]]:
    """The files that a folder's manifest lists. Raises `OSError` or `ValueError`."""
    manifest = json.loads((root / NAME).read_text(encoding="utf-8"))
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise ValueError("it lists no files")
    if manifest.get("version") != VERSION:
        raise ValueError(f"version {manifest.get('version')!r}, this kit reads {VERSION}")
    files: dict[str, dict[str, Any]] = manifest["files"]
    wrong = [name for name, entry in files.items() if not _is_entry(entry)]
    if wrong:
        raise ValueError(f"no sha256 and size for {wrong[0]!r}")
    return files


def _is_entry(entry: object) -> bool:
    """Whether it is an entry of a manifest: `size` and `sha256`, each of its type."""
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("size"), int)
        and re.fullmatch("[0-9a-f]{64}", str(entry.get("sha256"))) is not None
    )


def _fault(root: Path, path: str, entry: dict[str, Any]) -> str:
    """The fault of a listed file; empty where it has none."""
    if not _stays_inside(path):
        return "is no plain path below the folder, and was not followed"
    try:
        if not (root / path).is_file():
            return "is missing"
        # The size is compared first, since that needs no reading.
        if size(root / path) != entry["size"]:
            return f"was altered: {size(root / path)} bytes, not {entry['size']}"
        return "" if sha256(root / path) == entry["sha256"] else "was altered: its sha256 differs"
    except OSError as error:
        return f"can't be read ({error.strerror})"


def _stays_inside(path: str) -> bool:
    """Whether it is a relative path in its shortest form: no '..', no second name for a file."""
    plain = PurePosixPath(path)
    return (
        bool(plain.parts) and not plain.is_absolute() and ".." not in plain.parts and str(plain) == path
    )
