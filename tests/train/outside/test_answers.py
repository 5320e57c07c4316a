"""What a teacher answered is kept, read back by stretches, and asked for again where it is damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from birdkit.scoring.parts import SoundFile
from tests.conftest import write_sound
from train.outside import answers
from train.outside.answers import Answers, KeptEmbeddings

SCORES = np.array([[0.1, np.nan], [0.9, np.nan], [0.3, np.nan]], dtype=np.float32)
EMBEDDINGS = np.array([[2.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 0.5]], dtype=np.float32)


def test_answers_are_read_back_with_embeddings_of_length_1(tmp_path: Path) -> None:
    answers.write(tmp_path / "a.npz", Answers(SCORES, EMBEDDINGS))
    found = answers.read(tmp_path / "a.npz")
    np.testing.assert_array_equal(found.scores, SCORES)
    assert found.embeddings is not None
    np.testing.assert_allclose(found.embeddings, np.eye(3), atol=1e-3)
    answers.write(tmp_path / "b.npz", Answers(SCORES, None))
    assert answers.read(tmp_path / "b.npz").embeddings is None


def test_a_damaged_entry_is_named_and_counts_as_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.npz"
    assert answers.read_or_none(path) is None
    assert capsys.readouterr().err == ""
    answers.write(path, Answers(SCORES, EMBEDDINGS))
    content = bytearray(path.read_bytes())
    for damaged in (content[:100], content[:60] + bytes([content[60] ^ 255]) + content[61:]):
        path.write_bytes(damaged)
        assert answers.read_or_none(path) is None
        assert capsys.readouterr().err.startswith(f"{path}: damaged (")


def test_an_entry_is_named_by_the_file_the_teacher_and_what_was_asked(tmp_path: Path) -> None:
    file = SoundFile(write_sound(tmp_path / "a.ogg", 6.0), 2)
    names = [
        answers.name_of(file, {"file": "1"}, {"window_s": 5.0}),
        answers.name_of(file, {"file": "2"}, {"window_s": 5.0}),
        answers.name_of(file, {"file": "1"}, {"window_s": 2.5}),
        answers.name_of(SoundFile(file.path, 1), {"file": "1"}, {"window_s": 5.0}),
    ]
    write_sound(file.path, 7.0)
    names.append(answers.name_of(file, {"file": "1"}, {"window_s": 5.0}))
    assert len(set(names)) == 5


@pytest.mark.parametrize(
    ("start_s", "end_s", "weights"),
    [
        (0.0, 5.0, [1.0, 0.0, 0.0]),
        (2.0, 7.0, [0.6, 0.4, 0.0]),
        (-1.5, 6.5, [5 / 6.5, 1.5 / 6.5, 0.0]),
        (4.0, 11.0, [1 / 7, 5 / 7, 1 / 7]),
        (14.0, 19.0, [0.0, 0.0, 1.0]),
    ],
)
def test_a_stretch_has_the_mean_of_its_windows_by_their_overlap(
    tmp_path: Path, start_s: float, end_s: float, weights: list[float]
) -> None:
    answers.write(tmp_path / "a.npz", Answers(SCORES, EMBEDDINGS))
    kept = KeptEmbeddings({Path("a.ogg"): tmp_path / "a.npz"}, 5.0, 3)
    np.testing.assert_allclose(kept(Path("a.ogg"), start_s, end_s), weights, atol=1e-3)


def test_what_was_not_heard_has_no_embedding(tmp_path: Path) -> None:
    answers.write(tmp_path / "a.npz", Answers(SCORES, EMBEDDINGS))
    kept = KeptEmbeddings({Path("a.ogg"): tmp_path / "a.npz"}, 5.0, 3)
    assert np.isnan(kept(Path("b.ogg"), 0.0, 5.0)).all()
    assert np.isnan(kept(Path("a.ogg"), 15.0, 20.0)).all()
