"""Labels of models from outside → classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from birdkit.errors import UserError
from birdkit.outside import presets
from birdkit.outside.labels import match, read_labels, read_synonyms
from tests.conftest import REAL
from train.rounds.class_table import names_of


def columns(
    labels: list[str], names: dict[str, str], *synonyms: tuple[str, str]
) -> dict[str, list[int]]:
    found = match(labels, names, synonyms)
    return {name: list(of) for name, of in zip(found.classes, found.columns, strict=True)}


def test_a_name_matches_whatever_its_case_and_spaces() -> None:
    labels = ["parus  MAJOR_Great Tit", " Turdus merula ", "Hyla arborea"]
    names = {"b": "Turdus Merula", "a": "Parus major ", "c": "Rana"}
    assert columns(labels, names) == {"b": [1], "a": [0], "c": []}


def test_a_synonym_joins_names_in_either_direction_and_in_chains() -> None:
    pairs = [("New genus", "Old genus"), ("Old genus", "Oldest genus")]
    for label, name in [("Oldest genus", "New genus"), ("New genus", "Oldest genus")]:
        assert columns([label], {"a": name}, *pairs) == {"a": [0]}
    assert columns(["Oldest genus"], {"a": "New genus"}) == {"a": []}


def test_sub_species_go_to_their_species() -> None:
    labels = ["Setophaga petechia", "Corvus corone cornix", "Corvus corone"]
    names = {"yelwar": "Setophaga petechia aestiva", "crow": "Corvus corone"}
    assert columns(labels, names) == {"yelwar": [0], "crow": [1, 2]}


def test_a_label_goes_to_the_class_that_it_fits_best() -> None:
    labels = ["Corvus corone", "Corvus corone cornix"]
    names = {
        "crow": "Corvus corone",
        "hooded": "Corvus corone cornix",
        "other": "Corvus corone orientalis",
    }
    assert columns(labels, names) == {"crow": [0], "hooded": [1], "other": []}


def test_what_no_label_can_tell_apart_is_masked_and_says_why() -> None:
    names = {"a": "Insecta", "b": "Insecta", "c": "", "d": "Rana temporaria", "e": "Parus major"}
    found = match(["Insecta", "Parus major"], names)
    assert found.known.tolist() == [False, False, False, False, True]
    assert found.unmapped == {
        "a": "shares its label with b",
        "b": "shares its label with a",
        "c": "no scientific name",
        "d": "no label rana temporaria",
    }
    assert str(found).startswith(
        "1 of 5 classes are among its labels; not: a (shares its label with b)"
    )


def test_a_doubled_label_counts_by_its_best_column_and_an_unknown_class_is_nan() -> None:
    found = match(["Parus major", "Parus major", "", ""], {"a": "Parus major", "b": "", "c": "Rana"})
    scores = np.array([[0.2, 0.7, 0.9, 0.9], [0.5, 0.1, 0.9, 0.9]], dtype=np.float32)
    mapped = found.onto_classes(scores)
    np.testing.assert_array_equal(mapped[:, 0], np.array([0.7, 0.5], dtype=np.float32))
    assert np.isnan(mapped[:, 1:]).all()


def test_labels_are_read_from_text_and_tables(tmp_path: Path) -> None:
    text, table, wide = (tmp_path / name for name in ("l.txt", "one.csv", "wide.csv"))
    text.write_text("Parus major_Great Tit\nTurdus merula_Blackbird\n")
    table.write_text("inat2024\nParus major\nTurdus merula\n")
    wide.write_text("code,scientific_name\ngretit1,Parus major\n")
    assert read_labels(text) == ("Parus major_Great Tit", "Turdus merula_Blackbird")
    assert read_labels(table) == ("Parus major", "Turdus merula")
    assert read_labels(wide) == ("Parus major",)
    wide.write_text("code,name\ngretit1,Parus major\n")
    with pytest.raises(UserError, match="lacks the column scientific_name"):
        read_labels(wide)
    with pytest.raises(UserError, match="can't be read as text"):
        read_labels(tmp_path / "none.txt")


def test_a_bad_table_of_synonyms_is_named(tmp_path: Path) -> None:
    path = tmp_path / "synonyms.csv"
    path.write_text("scientific_name,synonym\nParus major,Parus maior\n")
    assert read_synonyms(path) == [("Parus major", "Parus maior")]
    assert read_synonyms(None) == []
    path.write_text("scientific_name,synonym\nParus major,\n")
    with pytest.raises(UserError, match="line 2 lacks a name"):
        read_synonyms(path)
    path.write_text("a,b\nc,d\n")
    with pytest.raises(UserError, match="lacks the column scientific_name"):
        read_synonyms(path)


@pytest.mark.slow  # needs the real taxonomy
def test_birdnet_knows_sixty_of_the_real_classes() -> None:
    try:
        card, _ = presets.birdnet()
    except UserError:
        pytest.skip("BirdNET is not installed")
    if not REAL.is_dir():
        pytest.skip("no real recordings here")
    table = names_of([REAL])["scientific_name"].fillna("")
    found = match(card.labels, dict(zip(table.index, table, strict=True)))
    assert len(card.labels) == 6522
    assert found.known.sum() == 60
    assert "elecoq1" in found.unmapped
