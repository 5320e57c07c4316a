"""Durations in words are rounded once, and never say 60 of a unit that has 60."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdkit.durations import in_words

SECONDS = {"d": 86400, "h": 3600, "min": 60, "s": 1}
LEAST_S = {"d": 86400 - 30, "h": 3600 - 0.5, "min": 60 - 0.5, "s": 0}  # that round up to one
LESS_THAN = {"h": 24, "min": 60, "s": 60}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (60, "1 min 0 s"),
        (3599.4, "59 min 59 s"),
        (3599.7, "1 h 0 min"),
        (3629, "1 h 0 min"),
        (3631, "1 h 1 min"),
        (86369, "23 h 59 min"),
        (86399.9, "1 d 0 h"),
        (86400 + 23.6 * 3600, "2 d 0 h"),
        (1000 * 86400, "1000 d 0 h"),
    ],
)
def test_a_duration_moves_on_to_the_next_unit_where_it_is_rounded_up(seconds: float, text: str) -> None:
    assert in_words(seconds) == text


near_borders = st.sampled_from([60.0, 3600.0, 86400.0]).flatmap(
    lambda border: st.floats(0.98 * border, 1.02 * border)
)


@given(near_borders | st.floats(0, 1e9))
def test_a_duration_is_off_by_half_of_its_smaller_unit_at_most(seconds: float) -> None:
    words = in_words(seconds).split()
    counts, units = [int(count) for count in words[::2]], words[1::2]
    assert all(count < LESS_THAN[unit] for count, unit in list(zip(counts, units, strict=True))[1:])
    assert len(units) == 2 or (units == ["s"] and counts[0] < 60)
    assert counts[0] >= 1 or units == ["s"]
    assert seconds >= LEAST_S[units[0]]
    said_s = sum(count * SECONDS[unit] for count, unit in zip(counts, units, strict=True))
    assert abs(said_s - seconds) <= SECONDS[units[-1]] / 2 + 1e-6
