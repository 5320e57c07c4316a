"""Tables of plain values → settings, with an error for every key that is unknown or was removed."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import cache
from typing import Annotated, Any, Literal, TypeVar

from birdkit.errors import UserError
from birdkit.ranges import KINDS

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
        For an unknown key (naming the nearest one), a removed one (saying why it went) or a value that
        its field doesn't take.
    """
    return kind(**_values(kind, table, where))


@cache
def hints(kind: Any) -> dict[str, Any]:
    """The type of each setting of a class, with its range."""
    return typing.get_type_hints(kind, include_extras=True)


def _values(kind: Any, table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The values of a table, each as its field has it."""
    known = hints(kind)
    for key in table:
        if key not in known:
            raise UserError(f"{where}: {_complaint(kind.__name__, key, list(known))}")
    return {key: _convert(known[key], value, f"{where}: {key}") for key, value in table.items()}


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
    """A plain value as a field of this type has it. Raises `UserError` for one that it doesn't take."""
    kind, within = _parts(hint)
    if isinstance(value, dict) and is_dataclass(kind):
        return build(typing.cast(type[Any], kind), value, where)
    if isinstance(value, dict) and kind is dict:
        _values(within, value, where)
        return value
    if isinstance(value, list | tuple) and kind is tuple:
        items = tuple(_convert(within[0], item, f"{where}.{i}") for i, item in enumerate(value))
        if within[-1] is ... or len(items) == len(within):
            return items
    plain: Any = {float: (int, float), Literal: str}.get(kind, kind)
    is_of_kind = isinstance(value, plain) and isinstance(value, bool) == (kind is bool)
    if not is_of_kind or (within is not None and value not in within):
        raise UserError(f"{where}: expected {expected(hint)}, got {value!r}")
    return float(value) if kind is float else value


def expected(hint: Any) -> str:
    """The values that a field of this type takes, in words."""
    kind, within = _parts(hint)
    if kind is Literal:
        return "one of " + ", ".join(f'"{value}"' for value in within)
    if kind is tuple:
        some = "a list" if within[-1] is ... else f"a list of {len(within)}"
        return f"{some}, each {expected(within[0])}"
    name = {**KINDS, str: "a text", bool: "true or false"}.get(kind, "a table")
    return f"{name} {within}" if kind in (int, float, str) and within else name


def _parts(hint: Any) -> tuple[Any, Any]:
    """The kind of value that a type is, and what it is restricted to."""
    if typing.get_origin(hint) is Annotated:
        kind, within = hint.__origin__, hint.__metadata__[0]
        return typing.get_origin(kind) or kind, within
    return typing.get_origin(hint) or hint, typing.get_args(hint) or None
