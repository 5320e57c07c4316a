"""What made a run: checkpoints with their data and commit, and the settings that are no defaults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from train.config.provenance import as_json
from train.config.settings import Recipe
from train.config.settings.recipe import ModelEntry
from train.config.settings.recipe import Round as RoundSettings
from train.pages.report.run_folder import Run
from train.pages.tables import Column, Table

SHORT = 12  # digits of a hash that are shown


def checkpoints(run: Run) -> Table:
    """A row a model: what its final checkpoint says of itself."""
    rows = []
    for of in run.rounds:
        for model in of.models:
            origin = model.origin
            made_by = origin.get("made_by", {})
            data = str(made_by.get("data", ""))[:SHORT] or None
            row = (
                of.index,
                model.name,
                origin.get("commit"),
                data,
                model.sha256[:SHORT] or None,
                origin.get("weights_from"),
            )
            rows.append(row)
    titles = "model", "commit", "data fingerprint", "checkpoint SHA-256", "first weights"
    columns = [Column("round", ".0f"), *(Column(title) for title in titles)]
    note = "An absent value was not stored, or its final.pt is gone."
    return Table("Checkpoints", columns, rows, note)


def settings(recipe: Recipe) -> dict[str, Any]:
    """Every setting of a recipe by its path, such as `models.0.encoder`."""
    return dict(_flat(as_json(asdict(recipe)), ""))


def changed(recipe: Recipe) -> Table:
    """The settings that differ from the kit's defaults."""
    models = tuple(ModelEntry() for _ in recipe.models)
    defaults = settings(Recipe(models=models, rounds=tuple(RoundSettings() for _ in recipe.rounds)))
    rows = [
        (path, value, defaults.get(path, "–"))
        for path, value in settings(recipe).items()
        if value != defaults.get(path)
    ]
    columns = Column("setting"), Column("value"), Column("default")
    return Table("Settings that are no defaults", columns, rows, "docs/recipes.md explains each.")


def differing(first: Recipe, second: Recipe, names: tuple[str, str]) -> Table:
    """The settings in which two recipes differ."""
    one, other = settings(first), settings(second)
    rows = [
        (path, one.get(path, "–"), other.get(path, "–"))
        for path in {**one, **other}
        if one.get(path) != other.get(path)
    ]
    columns = Column("setting"), Column(names[0]), Column(names[1])
    return Table("Settings that differ", columns, rows)


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Leaves of tables and of lists of tables; a list of plain values is one leaf."""
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        value = dict(enumerate(value))
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value if isinstance(value, str | int | float | bool | None) else str(value)
