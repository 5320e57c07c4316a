"""Names, wanted classes and thresholds, as people give them."""

from __future__ import annotations

from pathlib import Path

import pytest

from birdkit.detections.species import NEVER, Species, models_of, named, named_by, thresholds, wanted
from birdkit.errors import UserError

CLASSES = ("amerob", "22774", "noise")
NAMES = [
    Species("amerob", "Turdus migratorius", "American Robin"),
    Species("22774", "Scaphiopus holbrookii", "Eastern Spadefoot"),
    Species("noise"),
]


@pytest.mark.parametrize("given", [True, False])
def test_names_come_from_a_taxonomy_that_is_given_or_lies_in_the_model_folder(
    tmp_path: Path, given: bool
) -> None:
    path = tmp_path / ("names.csv" if given else "taxonomy.csv")
    path.write_text(
        "\ufeffprimary_label,inat_taxon_id,scientific_name,common_name\n"
        "22774,22774,Scaphiopus holbrookii,Eastern Spadefoot\n"
        "amerob,1,Turdus migratorius,American Robin\nother,2,x,y\n"
    )
    assert named(CLASSES, path if given else None, tmp_path) == NAMES


def test_a_class_without_a_name_is_shown_as_it_is(tmp_path: Path) -> None:
    assert [one.shown for one in named(CLASSES, None, tmp_path)] == list(CLASSES)
    (tmp_path / "taxonomy.csv").write_text("class,scientific_name\namerob,Turdus migratorius\n")
    shown = [one.shown for one in named(CLASSES, None, tmp_path)]
    assert shown == ["Turdus migratorius", "22774", "noise"]


@pytest.mark.parametrize(
    "text", ["amerob,noise", "american robin, Noise", "Turdus migratorius_American Robin,noise"]
)
def test_species_are_named_as_people_name_them(tmp_path: Path, text: str) -> None:
    assert wanted(text, NAMES) == [0, 2]
    listed = tmp_path / "list.txt"
    listed.write_text("# my list\n" + text.replace(",", "\n") + "\n\n")
    assert wanted(str(listed), NAMES) == [0, 2]
    assert wanted(None, NAMES) == [0, 1, 2]


def test_a_name_of_two_classes_is_refused_and_one_that_is_a_class_is_that_class() -> None:
    pair = [
        Species("a", "Larus x", "Gull"),
        Species("b", "Larus y", "gull"),
        Species("Gulls"),
        Species("gulls"),
    ]
    for text in ("Gull", "GULLS"):
        with pytest.raises(
            UserError, match=f"'{text}' names several classes; give one of (a, b|Gulls, gulls)"
        ):
            wanted(text, pair)
    assert wanted("larus y, Larus x_Gull", pair) == [0, 1]
    assert wanted("gulls", pair) == [3]
    assert wanted("b", [Species("a", "", "b"), Species("b")]) == [1]


def test_each_name_is_of_the_first_table_that_has_it(tmp_path: Path) -> None:
    first, second = tmp_path / "1.csv", tmp_path / "2.csv"
    first.write_text("primary_label,common_name\namerob,Robin\n22774,\n")
    second.write_text(
        "primary_label,scientific_name,common_name\namerob,Turdus migratorius,American Robin\n"
        "22774,,Eastern Spadefoot\n22774,Scaphiopus holbrookii,\n"
    )
    assert named_by(CLASSES, [first, second]) == [
        Species("amerob", "Turdus migratorius", "Robin"), *NAMES[1:]
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("american robbin", "did you mean 'american robin'"),
        (" , ", "names nothing"),
        ("zzzz", "no class"),
    ],
)
def test_a_species_that_the_model_lacks_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        wanted(text, NAMES)


def test_a_threshold_is_one_number_or_one_a_class(tmp_path: Path) -> None:
    assert thresholds("0.25", NAMES, 0.5) == [0.25, 0.25, 0.25]
    table = tmp_path / "t.csv"
    table.write_text("class,precision,threshold\nAmerican Robin,0.9,0.75\nnoise,0.9,\n")
    assert thresholds(str(table), NAMES, 0.5) == [0.75, 0.5, NEVER]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class,threshold\namerob,1.5\n", "line 2: threshold 1.5 must be from 0.0 to 1.0"),
        ("class,threshold\namerob,nan\n", "must be from"),
        ("class,threshold\namerob,high\n", "line 2: threshold 'high' is no number"),
        ("class,threshold\namerob,0.5\nAmerican Robin,0.6\n", "line 3: American Robin is there twice"),
        ("class,threshold\nmagpie,0.5\n", "line 2: 'magpie' is no class"),
        ("class,score\namerob,0.5\n", "lacks the column threshold"),
        ("name,threshold\namerob,0.5\n", "lacks the column class"),
        ("", "can't be read as CSV"),
    ],
)
def test_a_wrong_table_of_thresholds_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    table = tmp_path / "t.csv"
    table.write_text(text)
    with pytest.raises(UserError, match=message):
        thresholds(str(table), NAMES, 0.5)


@pytest.mark.parametrize("text", ["1.01", "-0.1", "nan", "nowhere.csv"])
def test_a_threshold_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--threshold"):
        thresholds(text, NAMES, 0.5)


def test_a_list_longer_than_any_file_name_is_a_list() -> None:
    every = [Species(f"species {index:03}", "", "") for index in range(60)]
    assert wanted(",".join(one.label for one in every), every) == list(range(60))


def test_thresholds_name_the_models_that_they_were_fitted_to(tmp_path: Path) -> None:
    fitted = tmp_path / "thresholds.csv"
    fitted.write_text("class,threshold,model\na,0.5,mini-1\nb,0.6,mini-1\n")
    assert models_of(str(fitted)) == {"mini-1"}
    fitted.write_text("class,threshold\na,0.5\n")
    assert models_of(str(fitted)) == models_of("0.5") == set()
