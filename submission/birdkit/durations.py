"""Durations in words."""

from __future__ import annotations


def in_words(seconds: float) -> str:
    """A duration of 0 s or more in its two largest units, rounded to the smaller one: `1 h 2 min`.

    One below a minute is in seconds. Rounded up it moves on to the next unit: 59.6 s is `1 min 0 s`.
    """
    whole_s, whole_min, whole_h = (round(seconds / unit_s) for unit_s in (1, 60, 3600))
    if whole_s < 60:
        return f"{whole_s} s"
    if whole_s < 3600:
        return f"{whole_s // 60} min {whole_s % 60} s"
    if whole_min < 24 * 60:
        return f"{whole_min // 60} h {whole_min % 60} min"
    return f"{whole_h // 24} d {whole_h % 24} h"
