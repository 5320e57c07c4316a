"""Who trains and who validates."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdkit.errors import UserError
from train.config.settings import Data
from train.data.competition import Recording
from train.data.folds import left_out_of_fold, site_of, split_recordings, split_soundscapes
from train.data.soundscapes import LabelledSoundscape


def recording(primary: str, author: str, path: str = "x.ogg") -> Recording:
    return Recording(Path(path), primary, (), author)


many = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.sampled_from([f"author{i}" for i in range(12)])),
    min_size=30,
    max_size=80,
).filter(
    lambda pairs: (
        len({author for _, author in pairs}) >= 5
        and max(Counter(label for label, _ in pairs).values()) >= 5
    )
)


@given(many, st.integers(0, 4))
def test_no_author_is_on_both_sides_but_for_classes_that_have_no_other_recording(
    pairs: list[tuple[str, str]], fold: int
) -> None:
    recordings = [recording(p, a, path=f"{i}.ogg") for i, (p, a) in enumerate(pairs)]
    train, held_out, _ = split_recordings(recordings, Data(fold=fold), seed=0)
    assert sorted(r.path for r in [*train, *held_out]) == sorted(r.path for r in recordings)
    assert {r.primary for r in train} == {r.primary for r in recordings}
    held_authors = {r.author for r in held_out}
    leaked = {r.primary for r in train if r.author in held_authors}
    # Only a class that would have lost all its recordings keeps them, and then none is held out.
    assert leaked.isdisjoint(r.primary for r in held_out)


def test_an_authors_recordings_are_all_on_one_side_where_every_class_has_many_authors() -> None:
    recordings = [recording("ab"[i % 2], f"author{i % 10}", path=f"{i}.ogg") for i in range(200)]
    for fold in range(5):
        train, held_out, _ = split_recordings(recordings, Data(fold=fold), seed=0)
        assert held_out
        assert {r.author for r in train}.isdisjoint(r.author for r in held_out)


def test_fold_minus_one_holds_nothing_out_and_too_many_folds_are_named() -> None:
    recordings = [recording("a", str(i)) for i in range(6)]
    assert split_recordings(recordings, Data(fold=-1), 0)[:2] == (recordings, [])
    with pytest.raises(UserError, match=r"n_folds 5 is more than these recordings allow \(3"):
        split_recordings(recordings[:3], Data(), 0)


@pytest.mark.parametrize(
    ("name", "site"),
    [
        ("H01_20240501_050000.ogg", "H01"),
        ("BC2026_Train_0042_S08_20250606_073000.ogg", "S08"),
        ("H01_20240501_0500.ogg", "H01"),
    ],
)
def test_the_site_is_read_off_both_years_names(name: str, site: str) -> None:
    assert site_of(Path(name)) == site


def test_labelled_soundscapes_are_split_by_site() -> None:
    every = [
        LabelledSoundscape(Path(f"S{site}_2025010{day}_050000.ogg"), ((0.0, 5.0, ()),))
        for site in range(5)
        for day in range(1, 4)
    ]
    seen = []
    for fold in range(3):
        train, validate = split_soundscapes(every, Data(n_folds=3, fold=fold, labelled="split"))
        assert not {site_of(s.path) for s in train} & {site_of(s.path) for s in validate}
        assert len(train) + len(validate) == len(every)
        seen += [each.path for each in validate]
    assert sorted(seen) == sorted(each.path for each in every)
    with pytest.raises(UserError, match="needs labelled soundscapes of two sites"):
        split_soundscapes(every[:3], Data(n_folds=3, labelled="split"))


def test_out_of_fold_every_soundscape_is_left_out_by_one_model() -> None:
    paths = [Path(f"{i}.ogg") for i in range(7)]
    names = ["a", "b", "c"]
    left_out = [left_out_of_fold(paths, name, names) for name in names]
    assert sorted(name for of_model in left_out for name in of_model) == [path.name for path in paths]
    assert left_out_of_fold(paths, "a", ()) == []
