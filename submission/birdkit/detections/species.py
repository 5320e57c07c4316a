"""Names of classes, the classes that are wanted, and their thresholds."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from birdkit.errors import UserError
from birdkit.ranges import Range
from birdkit.tables import read_csv

TAXONOMY_NAME = "taxonomy.csv"
CLASS_COLUMNS = ("class", "primary_label")
PROBABILITIES = Range(0.0, 1.0)
NEVER = 2.0  # a threshold that no probability reaches


@dataclass(frozen=True)
class Species:
    """A class with its names; both are empty where no taxonomy gives them."""

    label: str
    scientific: str = ""
    common: str = ""

    @property
    def shown(self) -> str:
        """What people read: the common name, else the scientific one, else the class."""
        return self.common or self.scientific or self.label


def named(classes: Sequence[str], taxonomy: Path | None, model_dir: Path) -> list[Species]:
    """The classes in their order, with names from a taxonomy or from the model folder's own."""
    own = model_dir / TAXONOMY_NAME
    table = taxonomy or (own if own.is_file() else None)
    return named_by(classes, [table] if table else [])


def named_by(classes: Sequence[str], tables: Sequence[Path]) -> list[Species]:
    """The classes in their order, each name from the first row of the first table that has it."""
    known: dict[str, list[str]] = {label: ["", ""] for label in classes}
    for path in tables:
        table = read_csv(path)
        names = table.reindex(columns=["scientific_name", "common_name"], fill_value="")
        rows = zip(table[_class_column(table, path)], names.to_numpy().tolist(), strict=True)
        for label, row in rows:
            if label in known:
                known[label] = [had or new.strip() for had, new in zip(known[label], row, strict=True)]
    return [Species(label, *names) for label, names in known.items()]


def wanted(text: str | None, species: Sequence[Species]) -> list[int]:
    """The indices of the classes that a list names; all of them where there is no list.

    Parameters
    ----------
    text : names separated by commas, or a file with one name a line; each is a class, or its
        scientific or common name, and `Scientific_Common` as BirdNET's lists have it
    """
    if text is None:
        return list(range(len(species)))
    listed = _text(Path(text)).splitlines() if _is_file(text) else text.split(",")
    names = [name.strip() for name in listed if name.strip() and not name.startswith("#")]
    if not names:
        raise UserError(f"--species {text}: names nothing; give names, or a file with one a line")
    return indices(names, species, f"--species {text}")


def indices(names: Sequence[str], species: Sequence[Species], where: str) -> list[int]:
    """The indices of the classes that names name, sorted.

    Raises `UserError`, beginning with `where`, for a name of no class or of several.
    """
    known, column = _by_name(species), _columns(species)
    return sorted({_index(name, column, known, where) for name in names})


def thresholds(text: str, species: Sequence[Species], default: float) -> list[float]:
    """The threshold of each class, from one number or a table with the columns class and threshold.

    A class that the table leaves out has the default. One with an empty threshold is never detected: no
    threshold was found for it. Further columns are not looked at.
    """
    try:
        return [_probability(text, "--threshold")] * len(species)
    except ValueError:
        path = Path(text)
    if not _is_file(text):
        raise UserError(f"--threshold {text}: neither a number nor a file; give 0.5, or a CSV")
    table, known, column = read_csv(path), _by_name(species), _columns(species)
    if "threshold" not in table.columns:
        raise UserError(f"{path}: lacks the column threshold; give a CSV with class and threshold")
    found: dict[int, float] = {}
    for line, (name, value) in enumerate(
        zip(table[_class_column(table, path)], table["threshold"], strict=True), start=2
    ):
        where = f"{path}: line {line}"
        index = _index(name.strip(), column, known, where)
        if index in found:
            raise UserError(f"{where}: {name} is there twice; keep one row a class")
        try:
            found[index] = _probability(value, where) if value.strip() else NEVER
        except ValueError:
            raise UserError(f"{where}: threshold '{value}' is no number; mend it") from None
    return [found.get(index, default) for index in range(len(species))]


def _is_file(text: str) -> bool:
    """Whether a text names a file; a long list of names may be too long for one."""
    try:
        return Path(text).is_file()
    except OSError:
        return False


def models_of(text: str) -> set[str]:
    """The models whose scores the thresholds of a table were fitted to; none where it names none."""
    table = read_csv(Path(text)) if _is_file(text) else pd.DataFrame()
    return set(table["model"]) - {""} if "model" in table.columns else set()


def _probability(text: str, where: str) -> float:
    """A number. Raises `ValueError` for a text that is none, `UserError` for one beyond the range."""
    number = float(text)
    if number not in PROBABILITIES:
        raise UserError(f"{where}: threshold {text} must be {PROBABILITIES}")
    return number


def _by_name(species: Sequence[Species]) -> dict[str, list[str]]:
    """Every name in lower case → the classes that have it. A class goes before another one's name."""
    names: dict[str, list[str]] = {}
    for listed in (
        [one.label for one in species],
        [one.scientific for one in species],
        [one.common for one in species],
        [f"{one.scientific}_{one.common}" for one in species],
    ):
        of_kind: defaultdict[str, list[str]] = defaultdict(list)
        for one, name in zip(species, listed, strict=True):
            if name:
                of_kind[name.lower()].append(one.label)
        names = of_kind | names
    return names


def _columns(species: Sequence[Species]) -> dict[str, int]:
    """Class → its index."""
    return {one.label: index for index, one in enumerate(species)}


def _index(name: str, column: Mapping[str, int], known: Mapping[str, Sequence[str]], where: str) -> int:
    """The index of the class that a name names, a class as it is written before any other."""
    named = [name] if name in column else known.get(name.lower(), ())
    if len(named) == 1:
        return column[named[0]]
    if named:
        raise UserError(f"{where}: '{name}' names several classes; give one of {', '.join(named)}")
    near = difflib.get_close_matches(name.lower(), known)
    hint = "give names that the model's classes have"
    if near:
        hint = f"did you mean {' or '.join(repr(other) for other in near)}?"
    raise UserError(f"{where}: '{name}' is no class of the model, nor a name of one; {hint}")


def _class_column(table: pd.DataFrame, path: Path) -> str:
    """The column that holds classes."""
    for name in CLASS_COLUMNS:
        if name in table.columns:
            return name
    raise UserError(f"{path}: lacks the column {' or '.join(CLASS_COLUMNS)}; name one so")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: can't be read as text ({error}); mend it") from error
