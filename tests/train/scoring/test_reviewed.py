"""Saved marks: what is read, what is refused, and which mark of a detection counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from birdkit.errors import UserError
from train import report
from train.scoring.reviewed import COLUMNS, fit_classes, read_marks
from train.scoring.thresholds import EDGE

ROW = ("a.ogg", 0, 5, "wren", 0.9, "right", "model-1")


def saved(path: Path, *rows: tuple[object, ...], columns: tuple[str, ...] = COLUMNS) -> Path:
    path.write_text("\n".join(",".join(map(str, row)) for row in (columns, *rows)) + "\n")
    return path


def changed(**values: object) -> tuple[object, ...]:
    return tuple((dict(zip(COLUMNS, ROW, strict=True)) | values).values())


def test_the_last_mark_of_a_detection_counts_and_unsure_ones_are_left_out(tmp_path: Path) -> None:
    path = saved(
        tmp_path / "marks.csv",
        ROW,
        changed(start=5, end=10, score=0.2, mark="wrong"),
        changed(mark="wrong"),
        changed(start=10, end=15, mark="unsure"),
        changed(**{"class": "22774"}),
    )
    marks = read_marks([path])
    assert list(marks.classes) == ["22774", "wren"]
    wren = marks.classes["wren"]
    assert dict(zip(wren.scores, wren.right, strict=True)) == {0.9: False, 0.2: False}
    assert (marks.n_unsure, marks.n_doubled, marks.model) == (1, 1, "model-1")


def test_a_later_file_counts_before_an_earlier_one(tmp_path: Path) -> None:
    first, second = saved(tmp_path / "1.csv", ROW), saved(tmp_path / "2.csv", changed(mark="wrong"))
    assert not read_marks([first, second]).classes["wren"].right.any()
    assert read_marks([second, first]).classes["wren"].right.all()


@pytest.mark.parametrize(
    "rows, said",
    [
        (
            [ROW, ROW, changed(start=5, model="model-2")],
            r"marks.csv:4: .*model-1 \(2 marks\), model-2 \(1",
        ),
        ([changed(mark="maybe")], "marks.csv:2: mark 'maybe' is none of right, wrong, unsure"),
        ([ROW, changed(score=1.5)], "marks.csv:3: score '1.5' is not a number from 0 to 1"),
        ([changed(score="")], "marks.csv:2: score '' is not"),
        ([changed(start="-1")], "marks.csv:2: start '-1' is not seconds"),
        ([], "holds no marks"),
    ],
)
def test_what_is_no_mark_is_named_with_its_row(
    tmp_path: Path, rows: list[tuple[object, ...]], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        read_marks([saved(tmp_path / "marks.csv", *rows)])


def test_a_table_without_the_column_of_models_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "marks.csv", ROW[:-1], columns=COLUMNS[:-1])
    with pytest.raises(UserError, match="lacks the column model"):
        read_marks([path])


def test_the_command_writes_a_threshold_a_class_and_names_the_classes_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    scores = rng.uniform(EDGE, 1, 80).round(6)
    rows = [
        changed(recording=f"{i}.ogg", score=score, mark="right" if rng.random() < score else "wrong")
        for i, score in enumerate(scores)
    ]
    rows += [changed(recording=f"{i}.ogg", **{"class": "owl"}) for i in range(5)]
    marks, out = saved(tmp_path / "marks.csv", *rows), tmp_path / "new" / "thresholds.csv"
    assert report.main(["--marks", str(marks), "--precision", "0.8", "0.9", "--out", str(out)]) == 0
    (wren,) = (found for found in fit_classes(read_marks([marks]), [0.8]) if found.name == "wren")
    lines = out.read_text().splitlines()
    assert lines[0] == "class,threshold,precision,low,high,n_right,n_wrong,model"
    assert lines[1].startswith(f"wren,{wren.thresholds[0].score:.6g},0.8,")
    assert lines[1].endswith(f",{wren.n_right},{wren.n_wrong},{read_marks([marks]).model}")
    assert len(lines) == 2
    with pytest.raises(UserError, match="is no table of fitted thresholds, so it is kept"):
        report.main(["--marks", str(marks), "--out", str(marks)])
    printed = capsys.readouterr().out
    assert "P(right) 0.9" in printed
    assert "owl" in printed
    assert "no wrong ones; mark lower scores" in printed
