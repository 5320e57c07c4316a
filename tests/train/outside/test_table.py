"""A table of a teacher's answers is taken whole, or refused in one line that says where."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from birdkit.errors import UserError
from birdkit.scoring.parts import SoundFile
from train.outside.table import AnswersTable

CLASSES = ("a", "1234", "c")
FILES = [SoundFile(Path("S1.ogg"), 2), SoundFile(Path("S2.ogg"), 1)]


def table() -> pd.DataFrame:
    rows = {"row_id": ["S2_5", "S1_5", "S1_10"], "1234": [0.3, 0.1, 0.2], "a": [1.0, 0.0, 0.5]}
    return pd.DataFrame(rows)


def read(path: Path) -> AnswersTable:
    return AnswersTable.read("mine", path, CLASSES, "CC0", 5.0)


def written(tmp_path: Path, content: pd.DataFrame) -> Path:
    content.to_csv(path := tmp_path / "answers.csv", index=False)
    return path


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_rows_are_found_by_id_and_columns_by_class_and_a_class_without_one_is_unknown(
    tmp_path: Path, suffix: str
) -> None:
    path, content = tmp_path / f"answers.{suffix}", table().assign(elsewhere=0.9)
    content.to_csv(path, index=False) if suffix == "csv" else content.to_parquet(path)
    found = read(path)
    scores, failures = found.scores_of(FILES)
    assert failures == {}
    assert scores[0] is not None
    assert scores[1] is not None
    np.testing.assert_allclose(scores[0], [[0.0, 0.1, np.nan], [0.5, 0.2, np.nan]])
    np.testing.assert_allclose(scores[1], [[1.0, 0.3, np.nan]])
    assert found.knows == "2 of 3 classes are among its columns; left out: elsewhere, no classes here"
    assert found.credit == f"answers.{suffix} (licence: CC0)"


def test_another_content_is_another_teacher(tmp_path: Path) -> None:
    first = read(written(tmp_path, table())).made_by
    assert read(written(tmp_path, table())).made_by == first
    assert read(written(tmp_path, table().assign(a=0.4))).made_by != first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: pd.concat([t, t[:1]]), r"has the row S2_5 twice"),
        (lambda t: t.drop(columns="row_id"), r"lacks the column row_id"),
        (lambda t: t.assign(row_id=["S2_5", "S1_5", "S1"]), r"row id 'S1' is not"),
        (lambda t: t[["row_id"]].assign(b=0.1), r"has none of the 3 classes, but b"),
        (lambda t: t.assign(a=[0.1, np.nan, 0.2]), r"row S1_5, column a is nan; leave out the column"),
        (lambda t: t.assign(a=[0.1, 2.5, 0.2]), r"row S1_5, column a is 2.5; give probabilities"),
        (lambda t: t.assign(a=["x", "y", "z"]), r"column a holds texts"),
    ],
)
def test_a_bad_table_is_refused_where_it_is_read(tmp_path: Path, change: object, message: str) -> None:
    assert callable(change)
    path = written(tmp_path, change(table()))
    with pytest.raises(UserError, match=message) as refused:
        read(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert "\n" not in str(refused.value)


def test_a_file_that_is_absent_or_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not found; teachers\.path names a table"):
        read(tmp_path / "nowhere.csv")
    (junk := tmp_path / "junk.parquet").write_bytes(b"junk")
    with pytest.raises(UserError, match="can't be read as a table"):
        read(junk)


def test_soundscapes_and_windows_that_a_table_lacks_are_named(tmp_path: Path) -> None:
    found = read(written(tmp_path, table()))
    found.check(FILES)
    with pytest.raises(UserError, match=r"lacks the soundscape S3\.ogg \(and 1 more\)"):
        found.check([*FILES, SoundFile(Path("S3.ogg"), 1), SoundFile(Path("S4.ogg"), 1)])
    with pytest.raises(UserError, match="lacks the row S2_10; give one for each window of 5 s"):
        found.check([SoundFile(Path("S2.ogg"), 2)])
