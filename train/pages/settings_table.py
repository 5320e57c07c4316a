"""Write the table of settings into a page, between its marks.

    python train/pages/settings_table.py docs/recipes.md

Names, ranges and defaults are those of the dataclasses in train/config/settings/; the descriptions
are the texts under their fields.
"""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
import typing
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # in place of this folder, whose names hide packages
    ROOT = Path(__file__).resolve().parents[2]
    sys.path[0:1] = [str(ROOT), str(ROOT / "submission")]

from train.config.build import expected, hints
from train.config.settings import Recipe
from train.pages.marks import put_between_marks

MARK = "settings"
# Sections that a recipe lists several times, each under its own header in TOML.
LISTED = ("models", "rounds", "teachers", "focal_groups")


def settings_table() -> str:
    """A Markdown table for each section of a recipe: setting, default, range and description."""
    return "\n\n".join(_sections(Recipe, ""))


def _sections(kind: Any, path: str) -> Iterator[str]:
    """The table of a class's plain settings, then those of the sections in it."""
    described, types = descriptions(kind), hints(kind)
    rows, inner = [], []
    for setting in fields(kind):
        section = _section_of(setting, types[setting.name])
        if section is None:
            default = f"`{_toml(_default(setting))}`"
            cells = (
                f"`{setting.name}`",
                default,
                expected(types[setting.name]),
                described[setting.name],
            )
            rows.append(f"| {' | '.join(cells)} |")
        else:
            inner.append((section, f"{path}.{setting.name}".lstrip(".")))
    if rows:
        head = ["| setting | default | takes | description |", "|---|---|---|---|"]
        yield "\n".join([f"**{_header(path)}** {_first_line(kind)}", "", *head, *rows])
    for section, where in inner:
        yield from _sections(section, where)


def descriptions(kind: type[Any]) -> dict[str, str]:
    """The text under each field of a dataclass and of the classes that it extends, on one line each."""
    texts: dict[str, str] = {}
    for owner in reversed(kind.__mro__[:-1]):
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
        assert isinstance(tree, ast.ClassDef)
        for statement, below in zip(tree.body, tree.body[1:], strict=False):
            if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
                continue
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                text = " ".join(str(below.value.value).split())
                texts[statement.target.id] = text.replace("|", "\\|")
    return texts


def _section_of(setting: Field[Any], hint: Any) -> type[Any] | None:
    """The dataclass that a setting holds, alone or in a list; None for a plain value."""
    value, listed = _default(setting), next(iter(typing.get_args(hint)), None)
    if setting.name in LISTED and is_dataclass(listed):
        return typing.cast(type[Any], listed)
    return type(value) if is_dataclass(value) else None


def _default(setting: Field[Any]) -> Any:
    if setting.default_factory is not MISSING:
        return setting.default_factory()
    return setting.default


def _header(path: str) -> str:
    """A section's header in TOML, by its path."""
    if not path:
        return "At the top."
    return f"`[[{path}]]`" if path.split(".")[-1] in LISTED else f"`[{path}]`"


def _first_line(kind: type[Any]) -> str:
    return (inspect.getdoc(kind) or "").partition("\n")[0]


def _toml(value: Any) -> str:
    """A default as a recipe writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(_toml(item) for item in value)}]"
    if isinstance(value, str):
        return f'"{value}"'
    return "{}" if value == {} else f"{value!r}"


def main() -> int:
    (page,) = sys.argv[1:]
    put_between_marks(Path(page), MARK, settings_table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
