"""Tables of plain values → settings, with an error for every key that is unknown or was removed."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any, TypeVar

from birdkit.errors import UserError

Settings = TypeVar("Settings")

# Settings of earlier versions: (class, key) → (the value that changed nothing, why the setting went).
REMOVED: dict[tuple[str, str], tuple[Any, str]] = {
    ("Pseudo", "distil"): (0.0, "teacher probabilities of each frame gained nothing in any recipe"),
    ("Pseudo", "scale"): ("probability", "ranks in place of probabilities gained nothing"),
    ("Pseudo", "after"): (0.0, "a late start of the pseudo labels gained nothing"),
}
REMOVED_WHEN = "November 2026"


def build(kind: type[Settings], table: Mapping[str, Any], where: str) -> Settings:
    """A settings dataclass from a table, nested tables and lists included.

    Parameters
    ----------
    where : the file or option that the table comes from, for messages

    Raises
    ------
    UserError
        For an unknown key (naming the nearest one), a removed one (saying why it went) or a value of
        another type.
    """
    hints = typing.get_type_hints(kind)
    for key in table:
        if key not in hints:
            raise UserError(f"{where}: {_complaint(kind.__name__, key, list(hints))}")
    values = {key: _convert(hints[key], value, f"{where}: {key}") for key, value in table.items()}
    return kind(**values)


def _complaint(kind: str, key: str, known: list[str]) -> str:
    if (kind, key) in REMOVED:
        _, why = REMOVED[kind, key]
        return f"'{key}' was removed in {REMOVED_WHEN}: {why} (docs/experiments.md); delete it"
    near = difflib.get_close_matches(key, known, n=1)
    advice = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(sorted(known))}"
    return f"unknown key '{key}'; {advice}"


def without_removed(kind: str, table: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """An earlier version's table without removed settings, and the removed ones that had an effect."""
    removed = {key: value for key, value in table.items() if (kind, key) in REMOVED}
    current = {key: value for key, value in table.items() if key not in removed}
    return current, [f"{key}={v}" for key, v in removed.items() if v != REMOVED[kind, key][0]]


def _convert(hint: Any, value: Any, where: str) -> Any:
    if is_dataclass(hint):
        if not isinstance(value, dict):
            raise UserError(f"{where}: expected a table, got {value!r}")
        return build(typing.cast(type[Any], hint), value, where)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise UserError(f"{where}: expected a list, got {value!r}")
        item_hint = typing.get_args(hint)[0]
        return tuple(_convert(item_hint, item, where) for item in value)
    if typing.get_origin(hint) is dict:
        if not isinstance(value, dict):
            raise UserError(f"{where}: expected a table, got {value!r}")
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise UserError(f"{where}: expected {hint.__name__}, got {value!r}")
    return value
