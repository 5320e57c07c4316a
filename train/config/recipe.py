"""A recipe: what a run does, as a TOML file of differences from the defaults in settings/.

    [[models]]
    encoder = "tf_efficientnet_b3.ns_jft_in1k"

    [[models]]               # any section can be set for one model
    encoder = "tf_efficientnet_b0.ns_jft_in1k"
    frontend.n_mels = 96

    [fit]
    epochs = 15

    [[rounds]]               # round 0: labelled recordings alone
    [[rounds]]               # round 1: with the pseudo labels of round 0's models
    pseudo.output = "clipwise"

`--set key=value` changes one of them.
"""

from __future__ import annotations

import argparse
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from birdkit.errors import UserError
from birdkit.files import is_plain
from train.config.build import build, without_removed
from train.config.settings import OutsideTeacher, Pseudo, Recipe, Round

EVERY = "*"  # among the teachers of a round: all models of the round before that teach
RECIPES = Path(__file__).resolve().parents[1] / "recipes"


def add_set_option(parser: argparse._ActionsContainer, changed: str) -> None:
    """Add `--set`, whose `overrides` are those of `load` and `pseudo_of`."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="key=value",
        dest="overrides",
        help=f"change a setting of {changed}; again for further ones",
    )


def load(name_or_file: str, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe by name (train/recipes/NAME.toml) or path, then apply `key.key=value`s.

    Raises
    ------
    UserError
        For a missing file, broken TOML, an unknown or removed key, or a value that is out of range.
    """
    path = find(name_or_file)
    table = read_toml(path)
    table.setdefault("name", path.stem)
    for override in overrides:
        _apply(table, override)
    recipe = build(Recipe, table, str(path))
    models = [replace(entry, repeat=1) for entry in recipe.models for _ in range(entry.repeat)]
    recipe = replace(recipe, models=tuple(models))
    rounds_of(recipe)  # raises where a round names an unknown model
    return recipe


def read_toml(path: Path) -> dict[str, Any]:
    """The table of a file. Raises `UserError` where it is no TOML, and `OSError`."""
    try:
        return tomllib.loads(path.read_text())
    except ValueError as error:  # not UTF-8, or not TOML
        raise UserError(f"{path}: not valid TOML ({error})") from error


def pseudo_of(overrides: Iterable[str]) -> Pseudo:
    """The defaults of a round's pseudo labels, changed by `key=value`s."""
    table: dict[str, Any] = {}
    for override in overrides:
        _apply(table, override)
    return build(Pseudo, table, "pseudo")


def to_json(recipe: Recipe) -> str:
    """The resolved recipe, as a run keeps it."""
    return json.dumps(asdict(recipe), sort_keys=True)


def from_json(text: str, where: str) -> Recipe:
    """Read back what `to_json` wrote, in an earlier version too.

    Raises `UserError` for unknown settings, and for a removed one that had an effect.
    """
    table = dict(json.loads(text))
    table["rounds"] = [_of_today(one_round, where) for one_round in table.get("rounds", [])]
    return build(Recipe, table, where)


def _of_today(of_round: Mapping[str, Any], where: str) -> dict[str, Any]:
    pseudo, removed = without_removed("Pseudo", of_round.get("pseudo", {}))
    if removed:
        raise UserError(f"{where}: made with {', '.join(removed)}, which this kit lacks; run it again")
    return dict(of_round) | {"pseudo": pseudo}


def member_names(recipe: Recipe) -> list[str]:
    """The name of each model's folder; all are distinct. Raises `UserError` for one that is no name."""
    names: list[str] = []
    for model in recipe.models:
        base = model.name or model.encoder.partition(".")[0]
        if not is_plain(base):
            raise UserError(f"models: {model.encoder} is no name of a folder; set models.name")
        taken = sum(name == base or name.startswith(f"{base}-") for name in names)
        names.append(base if not taken else f"{base}-{taken + 1}")
    return names


def rounds_of(recipe: Recipe) -> list[Round]:
    """The rounds one by one, with the names of their models and of their teachers.

    Raises `UserError` for an unknown name.
    """
    known = member_names(recipe)
    teaches = dict(zip(known, (model.teaches for model in recipe.models), strict=True))
    outside = tuple(teachers_of(recipe))
    expanded: list[Round] = []
    for listed in recipe.rounds:
        models = tuple(listed.models) or tuple(known)
        _all_known(f"round {len(expanded)}: model", models, known)
        for _ in range(listed.repeat):
            if listed.must_gain and not expanded:
                raise UserError("rounds.0.must_gain: there is no round before it; set it in later ones")
            before = expanded[-1].models if expanded else ()
            teacher = _teachers(listed.teacher, [name for name in before if teaches[name]])
            _all_known(f"round {len(expanded)}: teacher", teacher, (*before, *outside))
            if expanded and not teacher:
                raise UserError(
                    f"round {len(expanded)}: of {', '.join(before)} none has models.teaches; "
                    "set it for one of them, or name a teacher"
                )
            _folds_are_kept(len(expanded), models, listed.pseudo, expanded)
            expanded.append(replace(listed, models=models, teacher=teacher, repeat=1))
    return expanded


def _teachers(listed: Sequence[str], before: Sequence[str]) -> tuple[str, ...]:
    """The names of a round's teachers; `before` are the models of the round before that teach."""
    every = before if EVERY in listed or not listed else ()
    return tuple(dict.fromkeys([*every, *(name for name in listed if name != EVERY)]))


def teachers_of(recipe: Recipe) -> dict[str, OutsideTeacher]:
    """Teachers from outside by name. Raises `UserError` for a name that is not theirs alone."""
    taken, teachers = member_names(recipe), dict[str, OutsideTeacher]()
    for teacher in recipe.teachers:
        if teacher.called in (*taken, *teachers):
            raise UserError(f"teachers: '{teacher.called}' is named twice; set teachers.name")
        teachers[teacher.called] = teacher
    return teachers


def _folds_are_kept(index: int, models: Sequence[str], pseudo: Pseudo, before: Sequence[Round]) -> None:
    """Raise `UserError` where an out-of-fold round would leave its models or its teachers nothing."""
    taught = before[-1].pseudo if before[1:] else None
    seen = taught is not None and taught.share > 0 and not taught.out_of_fold
    if before and pseudo.out_of_fold and (len(models) < 2 or seen):
        raise UserError(
            f"round {index}: pseudo.out_of_fold needs two models or more, and the same setting in "
            f"round {index - 1}"
        )


def find(name_or_file: str) -> Path:
    """The file of a recipe. Raises `UserError` where there is none."""
    for path in (RECIPES / f"{name_or_file}.toml", Path(name_or_file)):
        if path.is_file():
            return path
    known = ", ".join(sorted(path.stem for path in RECIPES.glob("*.toml")))
    raise UserError(f"recipe '{name_or_file}': no such name or file; there are {known}")


def _apply(table: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        raise UserError(f"--set {override}: write key=value, as in --set fit.epochs=3")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except ValueError:
        value = text  # a bare word is a string
    try:
        _set(table, key.strip().split("."), value)
    except (AttributeError, IndexError, TypeError, ValueError):
        raise UserError(f"--set {override}: the recipe has no such place") from None


def _set(place: Any, keys: list[str], value: Any) -> None:
    first, *others = keys
    if isinstance(place, list) and not first.isdigit():
        for item in place:  # models.encoder=… sets it in every model
            _set(item, keys, value)
    elif not others:
        place[int(first) if isinstance(place, list) else first] = value
    else:
        inner = place[int(first)] if isinstance(place, list) else place.setdefault(first, {})
        _set(inner, others, value)


def _all_known(what: str, names: Iterable[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise UserError(f"{what} '{name}' is not among {', '.join(known) or 'any'}")
