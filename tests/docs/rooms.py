"""Write the list of rooms and modules into a page, between its marks.

    python -m tests.docs.rooms docs/architecture.md

The texts are the first sentences of the modules' docstrings, and those of the rooms' `__init__`.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MARK = "rooms"
FOLDERS = ("submission", "train", "export")


def rooms() -> str:
    """A Markdown heading for each folder and room, its sentences and a line for each of its modules."""
    return "\n\n".join(_room(folder) for top in FOLDERS for folder in _folders(ROOT / top))


def _folders(top: Path) -> Iterator[Path]:
    """A folder and those below it that hold modules, each before what it holds."""
    yield from sorted({top, *(path.parent for path in top.rglob("*.py"))})


def _room(folder: Path) -> str:
    lines = [f"### {folder.relative_to(ROOT)}/"]
    if (folder / "__init__.py").is_file():
        lines += ["", " ".join(_docstring(folder / "__init__.py").split())]
    modules = [path for path in sorted(folder.glob("*.py")) if path.name != "__init__.py"]
    if modules:
        lines += ["", "| module | what it is |", "|---|---|"]
        lines += [f"| `{path.name}` | {_first_sentence(path)} |" for path in modules]
    return "\n".join(lines)


def _first_sentence(path: Path) -> str:
    paragraph = " ".join(_docstring(path).partition("\n\n")[0].split())
    return re.split(r"(?<=\.) ", paragraph)[0].replace("|", "\\|")


def _docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text())) or ""


def main() -> int:
    (page,) = map(Path, sys.argv[1:])
    start, end = f"<!-- {MARK} -->", f"<!-- /{MARK} -->"
    before, _, rest = page.read_text().partition(start)
    page.write_text(f"{before}{start}\n{rooms()}\n{end}{rest.partition(end)[2]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
