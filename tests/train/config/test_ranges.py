"""Every setting of a recipe takes the values of its range, and refuses all others in one line."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from birdkit.errors import UserError
from birdkit.ranges import option
from tests.docs.commands import commands, parser_of
from train.config.build import build
from train.config.settings import ModelEntry, OutsideTeacher, Recipe, Round
from train.rounds import plan

Place = tuple[str | int, ...]
TAKE_MINUS_ONE = {
    "fold", "secondary_target", "workers", "level_db", "noise_snr_db", "background_snr_db",
}  # fmt: skip
# There is at least one of these, or they are longer or larger than 0.
REFUSE_ZERO = {
    "sample_rate", "n_fft", "hop", "n_mels", "fmax_hz", "chunk_s", "window_s", "n_folds", "first_s",
    "epochs", "batch", "repeat", "power", "explode", "smoothing", "speed_range", "peak",
    "accumulate", "weight",
}  # fmt: skip
TAKE_ANY_TEXT = {
    "name", "encoder", "weights", "path", "labels", "synonyms", "input", "output", "embedding",
    "licence", "distil_from", "background_folder",
}  # fmt: skip
TAKE_AN_EMPTY_LIST = {"models", "teacher", "teachers", "shifts", "unsure", "focal_groups"}


def places(table: Any, path: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Each section and each value of a table, those in lists included."""
    for key, value in enumerate(table) if isinstance(table, list) else table.items():
        yield (*path, key), value
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def everything() -> dict[str, Any]:
    """A recipe's table with every setting at its default."""
    recipe = Recipe(models=2 * (ModelEntry(),), rounds=2 * (Round(),), teachers=(OutsideTeacher(),))
    return dict(json.loads(json.dumps(asdict(recipe))))


FIRST = (("models", 0), ("rounds", 0))  # the second ones stand for them, and have teachers
DEFAULTS = {place: default for place, default in places(everything()) if place[:2] not in FIRST}


def refusal(place: Place, value: object) -> str | None:
    """What is said of a recipe with this value at this place; None where it is taken."""
    inner: Any = (table := everything())
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    try:
        plan.stages(build(Recipe, table, "mine.toml"), Path("run"))
    except UserError as error:
        return str(error)
    return None


def taken(value: object) -> set[str]:
    """The settings that take a value; what is said of it at any other is one line with its name."""
    takers = set()
    for place in DEFAULTS:
        name = next(str(key) for key in reversed(place) if isinstance(key, str))
        said = refusal(place, value)
        if said is None:
            takers.add(name)
        else:
            assert name in said
            assert "\n" not in said
    return takers


def of_kind(*kinds: type) -> set[str]:
    """The settings whose defaults are of this kind, in a list or not."""
    return {
        next(str(key) for key in reversed(place) if isinstance(key, str))
        for place, default in DEFAULTS.items()
        if type(default) in kinds
    }


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, -math.inf, 1e300, 10**400, [math.nan]],
    ids=lambda value: f"{value!s:.6}",
)
def test_no_setting_takes_a_number_without_size(value: object) -> None:
    assert taken(value) == set()


def test_few_settings_take_numbers_below_0_and_the_others_0() -> None:
    assert taken(-1) == TAKE_MINUS_ONE
    assert taken(0) == of_kind(int, float) - REFUSE_ZERO


def test_a_text_and_a_list_stand_where_one_is_wanted() -> None:
    assert taken("x") == TAKE_ANY_TEXT
    assert taken([]) == TAKE_AN_EMPTY_LIST
    assert taken(True) == of_kind(bool)


@pytest.mark.parametrize("command", [name for name in commands() if name.startswith("train/")])
def test_no_option_takes_a_number_without_size(command: str) -> None:
    for action in parser_of(command)._actions:
        if action.type in (None, Path):
            continue
        assert callable(action.type)
        for text in ("nan", "inf", "-inf", "1e300", "-1", "x", ""):
            with pytest.raises(argparse.ArgumentTypeError, match=r"expected (a .*number from |11\.5h)"):
                action.type(text)


def test_an_option_takes_both_ends_of_its_range_and_nothing_beyond() -> None:
    parse = option(int, 2, 5)
    assert [parse(text) for text in ("2", "5")] == [2, 5]
    for text in ("1", "6", "2.5"):
        with pytest.raises(argparse.ArgumentTypeError, match="a whole number from 2 to 5, got"):
            parse(text)
    assert option(float, 0, 1)("0.25") == 0.25
