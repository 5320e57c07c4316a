"""Checks of single values that several settings share. Raise `UserError` naming the setting."""

from __future__ import annotations

from collections.abc import Sequence

from birdkit.errors import UserError


def one_of(key: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise UserError(f"{key} '{value}' is unknown; choose {', '.join(known)}")


def share(key: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise UserError(f"{key} {value:g} must be in 0..1")
