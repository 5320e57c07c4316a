"""Labels of a model from outside → classes of a competition, by scientific name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from birdkit.errors import UserError
from birdkit.tables import read_csv

NAME_COLUMN = "scientific_name"
SYNONYM_COLUMNS = (NAME_COLUMN, "synonym")
LISTED = 40  # names in a line of text
# How well a label fits a class: it names the class, a part of it, or the whole that it is a part of.
EXACT, PART, WHOLE = range(3)


@dataclass(frozen=True)
class ClassMap:
    """Which labels speak of which class.

    classes : the competition's, in order
    columns : for each class the label columns that name it; none where the model doesn't know it
    unmapped : class that the model doesn't know → why
    """

    classes: tuple[str, ...]
    columns: tuple[tuple[int, ...], ...]
    unmapped: Mapping[str, str]

    @property
    def known(self) -> NDArray[np.bool_]:
        """(classes,): which classes the model knows."""
        return np.array([bool(of_class) for of_class in self.columns], dtype=bool)

    def onto_classes(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """(..., labels) → (..., classes): the best label of a class; NaN for a class without one."""
        mapped = np.full((*scores.shape[:-1], len(self.columns)), np.nan, dtype=np.float32)
        for index, of_class in enumerate(self.columns):
            if of_class:
                mapped[..., index] = scores[..., list(of_class)].max(axis=-1)
        return mapped

    def __str__(self) -> str:
        text = f"{int(self.known.sum())} of {len(self.classes)} classes are among its labels"
        if not self.unmapped:
            return text
        listed = [f"{name} ({why})" for name, why in self.unmapped.items()]
        more = f" and {len(listed) - LISTED} more" if len(listed) > LISTED else ""
        return f"{text}; not: {', '.join(listed[:LISTED])}{more}"


def match(
    labels: Sequence[str],
    names: Mapping[str, str],
    synonyms: Iterable[tuple[str, str]] = (),
) -> ClassMap:
    """Find the labels of each class.

    Names match whatever their case and spaces, and by synonyms. A class also takes the labels of its
    sub-species; one that is a sub-species itself takes, for want of its own, the label of its species.
    A label goes to the class that it fits best, and to none where several fit equally well.

    Parameters
    ----------
    labels : scientific names, or `Scientific_Common` as BirdNET's lists have them
    names : class → its scientific name, which may be empty; all classes, in order
    synonyms : pairs of names of one species
    """
    one_name = _one_name(synonyms)
    of_labels = [one_name(label.partition("_")[0]) for label in labels]
    of_classes = {label: one_name(name) for label, name in names.items()}
    claims: defaultdict[int, dict[str, int]] = defaultdict(dict)  # column → class → how well it fits
    columns_of = _by_words(of_labels)
    for label, name in of_classes.items():
        for column, fit in _claimed(name, of_labels, columns_of):
            claims[column][label] = fit
    won: defaultdict[str, list[int]] = defaultdict(list)
    for column, fits in claims.items():
        best = [label for label, fit in fits.items() if fit == min(fits.values())]
        won[best[0]] += [column] if len(best) == 1 else []
    unmapped = {
        label: _why_not(label, name, claims.values())
        for label, name in of_classes.items()
        if not won[label]
    }
    return ClassMap(tuple(names), tuple(tuple(sorted(won[label])) for label in names), unmapped)


def _by_words(names: Sequence[str]) -> dict[str, list[int]]:
    """Every name, and every species that has names of sub-species → their columns."""
    columns: defaultdict[str, list[int]] = defaultdict(list)
    for column, name in enumerate(names):
        for key in {name, _species(name)} - {""}:
            columns[key].append(column)
    return columns


def _claimed(
    name: str, of_labels: Sequence[str], columns_of: Mapping[str, Sequence[int]]
) -> list[tuple[int, int]]:
    """The columns that a class of this name could have, and how well each fits: 0 is best."""
    own = [
        (column, EXACT if of_labels[column] == name else PART) for column in columns_of.get(name, ())
    ]
    if own or name == _species(name):
        return own
    species = _species(name)
    return [(column, WHOLE) for column in columns_of.get(species, ()) if of_labels[column] == species]


def _why_not(label: str, name: str, claims: Iterable[Mapping[str, int]]) -> str:
    """Why a class has no label."""
    if not name:
        return "no scientific name"
    rivals = [other for fits in claims if label in fits for other in fits if other != label]
    return f"shares its label with {rivals[0]}" if rivals else f"no label {name}"


def _species(name: str) -> str:
    """The first two words of a name: the species of a sub-species."""
    return " ".join(name.split()[:2])


def _one_name(synonyms: Iterable[tuple[str, str]]) -> Callable[[str], str]:
    """A function that makes one name of all names of a species, whatever their case and spaces."""
    root: dict[str, str] = {}

    def find(name: str) -> str:
        while name in root:
            name = root[name]
        return name

    for one, other in synonyms:
        first, second = find(_plain(one)), find(_plain(other))
        if first != second:
            root[second] = first
    return lambda name: find(_plain(name))


def _plain(name: str) -> str:
    return " ".join(name.casefold().split())


def read_synonyms(path: Path | None) -> list[tuple[str, str]]:
    """Pairs of names of one species: a CSV with the columns scientific_name and synonym."""
    if path is None:
        return []
    table = read_csv(path)
    if lacking := [name for name in SYNONYM_COLUMNS if name not in table.columns]:
        raise UserError(
            f"{path}: lacks the column {lacking[0]}; it needs {' and '.join(SYNONYM_COLUMNS)}"
        )
    pairs = table[list(SYNONYM_COLUMNS)].to_numpy().tolist()
    if empty := [line for line, pair in enumerate(pairs, start=2) if not all(map(str.strip, pair))]:
        raise UserError(f"{path}: line {empty[0]} lacks a name; give two names of one species")
    return [(str(one), str(other)) for one, other in pairs]


def read_labels(path: Path) -> tuple[str, ...]:
    """The labels of a model in the order of its output.

    A text file has one a line. A CSV has them in the column scientific_name, or in its only one.
    """
    if path.suffix.lower() == ".csv":
        table = read_csv(path)
        if NAME_COLUMN not in table.columns and len(table.columns) != 1:
            raise UserError(f"{path}: lacks the column {NAME_COLUMN}; name the labels' column so")
        column = NAME_COLUMN if NAME_COLUMN in table.columns else table.columns[0]
        return tuple(map(str, table[column]))
    try:
        return tuple(path.read_text(encoding="utf-8-sig").splitlines())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: can't be read as text ({error}); give the labels' file") from error
