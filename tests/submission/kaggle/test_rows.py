"""Which files are soundscapes, which rows they have, and what a sample submission may hold."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from birdkit import audio
from birdkit.errors import UserError
from birdkit.grid import row_ids, split_row_id
from birdkit.kaggle import mounts, table


def silence(path: Path, seconds: float) -> Path:
    soundfile.write(path, np.zeros(round(seconds * 1000)), 1000)
    return path


def n_rows(plan: table.Plan) -> dict[str, int]:
    return dict(Counter(split_row_id(row_id)[0] for row_id in plan.row_ids))


def test_without_rows_in_the_sample_each_file_has_those_of_its_length_and_a_remark_says_so(
    tmp_path: Path,
) -> None:
    lengths = {
        "a": 60.0,
        "b": 60.07,
        "c": 59.9,
        "hour": 3600.0,
        "seven": 7.0,
        "five": 5.0,
        "short": 0.01,
    }
    paths = [silence(tmp_path / f"{name}.flac", seconds) for name, seconds in lengths.items()]
    (tmp_path / "bad.ogg").write_bytes(b"no sound")
    plan = table.plan_rows([*paths, tmp_path / "bad.ogg"], [], 5.0)
    expected = {"a": 12, "b": 12, "c": 12, "hour": 720, "seven": 2, "five": 1, "short": 1, "bad": 12}
    assert n_rows(plan) == expected
    assert [file.n_windows for file in plan.files] == list(expected.values())
    (remark,) = plan.remarks
    assert "4 files have more or less than the 12 windows of a minute (hour.flac 720," in remark
    assert "each has a row for each of its own" in remark
    assert table.plan_rows(paths[:3], [], 5.0).remarks == []


def test_files_that_the_sample_leaves_out_have_the_rows_of_their_length(tmp_path: Path) -> None:
    paths = [silence(tmp_path / f"soundscape_{i}.flac", 600.0) for i in (1, 2)]
    listed = row_ids("soundscape_1", 120, 5.0)
    assert n_rows(table.plan_rows(paths, listed, 5.0)) == {"soundscape_1": 120, "soundscape_2": 120}
    # Where it lists all files, its rows are the rows, whatever the lengths.
    some = ["soundscape_1_5", "soundscape_2_605"]
    assert table.plan_rows(paths, some, 5.0).row_ids == some


def test_where_nearly_all_files_of_a_competition_are_equally_long_all_have_their_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {f"f{index:02}.ogg": 240.0 for index in range(17)} | {
        "f17.ogg": 90.0,
        "f18.ogg": 3.0,
        "f19.ogg": 300.0,
    }
    monkeypatch.setattr(audio, "length_s", lambda path: seconds[path.name])
    paths = [tmp_path / name for name in seconds]
    plan = table.plan_rows(paths, [], 5.0)
    assert set(n_rows(plan).values()) == {48}
    assert "all have the 48 rows of most" in plan.remarks[0]
    # Too few to tell.
    assert n_rows(table.plan_rows(paths[1:], [], 5.0))["f18"] == 1


def test_hidden_files_are_no_soundscapes_and_opus_is_sound(tmp_path: Path) -> None:
    for name in ("._a.ogg", ".hidden.wav", "a.ogg", "b.opus", "c.txt", "d.FLAC"):
        (tmp_path / name).touch()
    assert [path.name for path in mounts.soundscapes(tmp_path)] == ["a.ogg", "b.opus", "d.FLAC"]


def test_of_files_of_one_stem_ogg_counts_and_the_others_are_named() -> None:
    paths = [Path(name) for name in ("a.flac", "a.ogg", "a.wav", "b.flac", "b.wav", "c.mp3")]
    kept, lines = mounts.one_a_stem(paths)
    assert [path.name for path in kept] == ["a.ogg", "b.flac", "c.mp3"]
    assert lines == [
        "a.flac has the rows of a.ogg",
        "a.wav has the rows of a.ogg",
        "b.wav has the rows of b.flac",
    ]


names = st.binary(min_size=1, max_size=12).filter(lambda name: not {0, ord("/")} & {*name})


@settings(max_examples=60)
@given(
    stems=st.sets(
        names | st.sampled_from([b'a"b', b"a,b", b"a\nb", b"a\r", b"\xff\xfe", b" "]), min_size=1
    )
)
def test_whatever_files_are_called_the_table_can_be_written_and_read(
    tmp_path_factory: pytest.TempPathFactory, stems: set[bytes]
) -> None:
    out = tmp_path_factory.getbasetemp() / "names.csv"
    paths = [Path(os.fsdecode(stem + b".ogg")) for stem in stems]
    kept, _ = mounts.one_a_stem(paths)
    plan = table.plan_rows(kept, [], 60.0)
    written = table.build(plan, [np.full((1, 1), 0.5, np.float32)] * len(kept), ["a"], ["a"])
    table.check(written, plan.row_ids, ["a"])
    out.write_bytes(table.to_csv(written))
    assert len(out.read_bytes().splitlines()) == len(kept) + 1
    read = pd.read_csv(out, dtype={"row_id": str}, keep_default_na=False)
    assert read.row_id.tolist() == plan.row_ids
    assert all(file.name.isprintable() or file.name.splitlines() == [file.name] for file in plan.files)


@pytest.mark.parametrize("row_id", ["", "nonsense", "s_1e300", "_5", "s_0"])
def test_a_row_id_that_is_none_is_named_with_its_line(tmp_path: Path, row_id: str) -> None:
    path = tmp_path / "sample_submission.csv"
    path.write_text(f"row_id,a\ns_5,0.1\n{row_id},0.1\n")
    with pytest.raises(UserError, match=rf"sample_submission\.csv: line 3: row id '{row_id}' is not"):
        table.read_sample(path)


def test_a_sample_submission_that_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="can't be read as CSV"):
        table.read_sample(tmp_path)


def test_class_names_match_whatever_spaces_are_around_them() -> None:
    plan = table.plan_rows([], [], 5.0)
    assert table.class_differences(["a ", "b"], ["a", " b"]) == []
    built = table.build(plan, [], ["a ", "b"], [" b", "a"])
    assert built.columns.tolist() == ["row_id", " b", "a"]
    plan = table.Plan([], ["s_5"], np.zeros(1, np.int64), np.zeros(1, np.int64))
    built = table.build(plan, [np.array([[0.1, 0.9]], np.float32)], ["a ", "b"], [" b", "a"])
    np.testing.assert_allclose(built.iloc[0, 1:].astype(float), [0.9, 0.1])


def test_a_sample_submission_without_any_class_of_the_model_is_refused_even_in_a_rerun() -> None:
    with pytest.raises(UserError, match=r"columns the model doesn't know: c, d.*no class in common"):
        table.class_differences(["a", "b"], ["c", "d"])
