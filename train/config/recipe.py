"""A recipe: what a run does, as a TOML file of differences from the defaults in settings.py.

    [[models]]
    encoder = "tf_efficientnet_b3.ns_jft_in1k"

    [fit]
    epochs = 15

    [[rounds]]               # round 0: labelled recordings alone
    [[rounds]]               # round 1: with what round 0's models say of the soundscapes
    pseudo.output = "clipwise"

`--set key=value` changes one of them.
"""

from __future__ import annotations

import difflib
import json
import tomllib
import typing
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path
from typing import Any

from birdkit.errors import UserError
from train.config.settings import Alarms, Fit, Pseudo, Recipe, Round

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
ROUNDS_APART = 1000  # between the seeds of rounds that go on from one another


def load(name_or_file: str, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe by name (train/recipes/NAME.toml) or path, then apply `key.key=value`s.

    Raises
    ------
    UserError
        For a missing file, broken TOML, an unknown key (naming the nearest one) or a wrong type.
    """
    path = _find(name_or_file)
    try:
        table = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path}: not valid TOML ({error})") from error
    table.setdefault("name", path.stem)
    for override in overrides:
        _apply(table, override)
    found = typing.cast(Recipe, _build(Recipe, table, str(path)))
    every_round(found)  # raises where a round names what is not there
    return found


def pseudo_of(overrides: Iterable[str]) -> Pseudo:
    """The defaults of a round's pseudo labels, changed by `key=value`s."""
    table: dict[str, Any] = {}
    for override in overrides:
        _apply(table, override)
    return typing.cast(Pseudo, _build(Pseudo, table, "pseudo"))


def to_json(recipe: Recipe) -> str:
    """The resolved recipe: what a checkpoint and an exported model keep of it."""
    return json.dumps(asdict(recipe), sort_keys=True)


def from_dict(table: dict[str, Any], where: str) -> Recipe:
    return typing.cast(Recipe, _build(Recipe, table, where))


def member_names(recipe: Recipe) -> list[str]:
    """A folder name for each model, distinct."""
    names: list[str] = []
    for model in recipe.models:
        base = model.name or model.encoder.partition(".")[0]
        taken = sum(name == base or name.startswith(f"{base}-") for name in names)
        names.append(base if not taken else f"{base}-{taken + 1}")
    return names


def every_round(recipe: Recipe) -> list[Round]:
    """The rounds one by one, with the names of their models and of their teacher's models.

    Raises `UserError` for a name that is not there, or a setting of the fit that is none.
    """
    known = member_names(recipe)
    found: list[Round] = []
    for listed in recipe.rounds:
        models = tuple(listed.models) or tuple(known)
        _all_known(f"round {len(found)}: model", models, known)
        fit = fit_of(recipe, listed)
        if listed.pseudo.distil and not fit.framewise:
            raise UserError(
                f"round {len(found)}: pseudo.distil is of the loss on frames; set fit.framewise above 0"
            )
        for _ in range(listed.repeat):
            before = found[-1].models if found else ()
            teacher = listed.teacher or before
            _all_known(f"round {len(found)}: teacher", teacher, before)
            found.append(replace(listed, models=models, teacher=tuple(teacher), repeat=1))
    return found


def fit_of(recipe: Recipe, of_round: Round) -> Fit:
    """[fit], with what the round has of its own. Raises `UserError` as `load` does."""
    return typing.cast(Fit, _build(Fit, asdict(recipe.fit) | of_round.fit, "rounds.fit"))


def for_member(recipe: Recipe, index: int, name: str) -> Recipe:
    """The same recipe for one model of one round: what that model's checkpoint depends on.

    What other models and other rounds are set to is left out, so that changing it redoes nothing.
    """
    model = recipe.models[member_names(recipe).index(name)]
    of_round = every_round(recipe)[index]
    fit = fit_of(recipe, of_round)
    if index == 0:
        own = Round(models=(name,))
    else:
        # Out of fold, which soundscapes a model leaves out depends on how many share them.
        models = of_round.models if of_round.pseudo.out_of_fold else (name,)
        heeding = replace(of_round.pseudo, alarms=Alarms())
        own = Round(models=models, warm=of_round.warm, pseudo=heeding)
        if of_round.warm:  # or it would go on with the very batches that it has seen
            fit = replace(fit, seed=fit.seed + ROUNDS_APART * index)
    return replace(recipe, models=(replace(model, name=name),), rounds=(own,), fit=fit)


def member_seed(recipe: Recipe) -> int:
    """Seed of a recipe for one model: members of equal settings must not become equal weights."""
    return zlib.crc32(f"{recipe.fit.seed} {recipe.models[0].name}".encode())


def _find(name_or_file: str) -> Path:
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
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string
    try:
        _set(table, key.strip().split("."), value)
    except (IndexError, TypeError):
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


def _build(kind: Any, table: dict[str, Any], where: str) -> Any:
    hints = typing.get_type_hints(kind)
    unknown = [key for key in table if key not in hints]
    if unknown:
        near = difflib.get_close_matches(unknown[0], hints, n=1, cutoff=0.0)[0]
        raise UserError(f"{where}: unknown key '{unknown[0]}'; did you mean '{near}'?")
    values = {key: _convert(hints[key], value, f"{where}: {key}") for key, value in table.items()}
    return kind(**values)


def _convert(hint: Any, value: Any, where: str) -> Any:
    if is_dataclass(hint):
        if not isinstance(value, dict):
            raise UserError(f"{where}: expected a table, got {value!r}")
        return _build(hint, value, where)
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
