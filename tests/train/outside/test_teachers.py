"""Teachers from outside answer for the classes they know; a bad one is refused when it is opened."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from birdkit.errors import UserError
from birdkit.outside.model import OutsideModel
from birdkit.scoring.parts import SoundFile
from tests.conftest import write_sound
from tests.submission.outside import stand_in
from train.config.settings import OutsideTeacher
from train.outside import answers
from train.outside.teachers import Model, open_teachers

NAMES = {"frog": "Hyla arborea", "tit": "Parus major", "none": "", "strange": "Nusquam avis"}


def settings(tmp_path: Path, **changes: Any) -> OutsideTeacher:
    """The settings of a stand-in for Perch v2, whose files they write."""
    scale = changes.pop("scale", 1.0)
    stand_in.write(tmp_path, stand_in.card_of(), scale=scale)
    (tmp_path / "labels.txt").write_text("\n".join(stand_in.LABELS))
    given = {"scaling": "peak", "activation": "softmax", "embedding": "embedding", "licence": "CC0"}
    paths = {"path": str(tmp_path / "perch.onnx"), "labels": str(tmp_path / "labels.txt")}
    return OutsideTeacher(**{"kind": "onnx", **paths, **given, **changes})


def opened(tmp_path: Path, distilled: tuple[str, ...] = ("perch",), **changes: Any) -> Model:
    wanted = {"perch": settings(tmp_path, **changes)}
    (teacher,) = open_teachers(wanted, NAMES, 5.0, tmp_path / "cache", distilled).values()
    assert isinstance(teacher, Model)
    return teacher


@pytest.fixture
def files(tmp_path: Path) -> list[SoundFile]:
    return [SoundFile(write_sound(tmp_path / f"{n}.ogg", 5.0 * n), n) for n in (1, 2)]


def test_it_hears_each_file_once_and_answers_for_the_classes_that_it_knows(
    tmp_path: Path, files: list[SoundFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = opened(tmp_path)
    assert teacher.credit == "perch (licence of its weights: CC0)"
    assert teacher.knows.startswith(
        "2 of 4 classes are among its labels; not: none (no scientific name)"
    )
    heard = [teacher.opened.read(file.path, file.n_windows) for file in files]
    scores, failures = teacher.scores_of(files)
    assert failures == {}
    for rows, of in zip(scores, heard, strict=True):
        assert rows is not None
        np.testing.assert_allclose(rows[:, :2], of.scores[:, [2, 0]], rtol=1e-5)
        assert np.isnan(rows[:, 2:]).all()
    monkeypatch.setattr(OutsideModel, "read", None)  # it isn't asked again
    embeddings = teacher.embeddings_of(files)
    found, of_second = embeddings(files[1].path, 5.0, 10.0), heard[1].embeddings
    assert of_second is not None
    np.testing.assert_allclose(found, of_second[1] / np.linalg.norm(of_second[1]), atol=1e-3)


def test_a_damaged_answer_and_a_changed_teacher_are_asked_again(
    tmp_path: Path, files: list[SoundFile], capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = opened(tmp_path)
    kept, _ = teacher.ask(files)
    first = teacher.scores_of(files)[0]
    (damaged := kept[files[0].path]).write_bytes(b"damaged")
    np.testing.assert_array_equal(teacher.scores_of(files)[0][0], first[0])
    assert f"{damaged}: damaged" in capsys.readouterr().err
    assert answers.read(damaged).embeddings is not None
    other, _ = opened(tmp_path, activation="sigmoid").ask(files)
    assert not {*other.values()} & {*kept.values()}


def test_a_file_that_cant_be_heard_is_named_and_has_no_embedding(
    tmp_path: Path, files: list[SoundFile], capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = opened(tmp_path)
    files[0].path.write_bytes(b"no sound")
    scores, failures = teacher.scores_of(files)
    assert scores[0] is None
    assert list(failures) == [files[0].name]
    embeddings = teacher.embeddings_of(files)
    assert f"no embedding of {files[0].name}" in capsys.readouterr().err
    assert np.isnan(embeddings(files[0].path, 0.0, 5.0)).all()
    with pytest.raises(UserError, match=r"teachers\.perch: no recording could be heard"):
        teacher.embeddings_of(files[:1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output": "scores"}, "perch.onnx: has no tensor scores"),
        ({"embedding": "inner"}, "perch.onnx: has no tensor inner"),
        ({"embedding": ""}, "its card names no embedding"),
        ({"input": "audio"}, "perch.onnx: has no input audio"),
        ({"sample_rate": 48_000}, r"takes 160000 samples, and its card says 240000"),
        ({"scale": np.nan}, "perch.onnx: answers with NaN"),
        ({"path": "nowhere.onnx"}, "nowhere.onnx: not found"),
        ({"labels": "nowhere.txt"}, "nowhere.txt: can't be read"),
        ({"synonyms": "nowhere.csv"}, "nowhere.csv: not found"),
    ],
)
def test_a_teacher_that_is_at_fault_is_refused_in_one_line(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as refused:
        opened(tmp_path, **changes)
    assert "\n" not in str(refused.value)


def test_one_label_too_many_and_a_teacher_of_no_class_are_refused(tmp_path: Path) -> None:
    wanted = settings(tmp_path)
    with pytest.raises(UserError, match=r"teachers\.p: knows none of the 1 classes"):
        open_teachers({"p": wanted}, {"a": "Nusquam avis"}, 5.0, tmp_path)
    (tmp_path / "labels.txt").write_text("\n".join([*stand_in.LABELS, "Corvus corax"]))
    with pytest.raises(UserError, match="answers 4 scores, and its card has 5 labels"):
        open_teachers({"p": wanted}, NAMES, 5.0, tmp_path)


def test_a_table_has_no_embeddings(tmp_path: Path) -> None:
    table = OutsideTeacher(kind="table", path=str(tmp_path / "t.csv"))
    (tmp_path / "t.csv").write_text("row_id,tit\nS1_5,0.5\n")
    assert list(open_teachers({"t": table}, NAMES, 5.0, tmp_path)) == ["t"]
    with pytest.raises(UserError, match="a table has no embeddings; distil from a model"):
        open_teachers({"t": table}, NAMES, 5.0, tmp_path, {"t"})
    named = replace(table, name="mine")
    assert (table.called, named.called) == ("table", "mine")
