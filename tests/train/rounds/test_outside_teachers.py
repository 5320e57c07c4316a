"""A run with teachers from outside: labels in both rounds, embeddings, licences, and its export."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest

from birdkit.errors import UserError
from export import to_onnx
from export.folder import model_card
from tests.conftest import TINY
from tests.submission.outside import stand_in
from train import run as train_run
from train.models import checkpoint
from train.rounds import pseudo_labels

QUICK = [*TINY, "fit.batch=4", "fit.epochs=1", "fit.steps_per_epoch=2", "data.fold=-1"]
RECIPE = """
[[models]]

[[teachers]]
name = "table"
kind = "table"
path = "{folder}/answers.csv"
licence = "CC0"

[[teachers]]
name = "perch"
kind = "onnx"
path = "{folder}/perch.onnx"
labels = "{folder}/labels.txt"
scaling = "peak"
activation = "softmax"
embedding = "embedding"
licence = "CC BY-NC"

[[rounds]]
teacher = ["table"]

[[rounds]]
teacher = ["test_resnet", "perch"]
warm = true
fit.distil_weight = 0.1
fit.distil_from = "perch"
"""


def arguments(folder: Path, competition: Path, *more: str) -> list[str]:
    where = ["--recipe", str(folder / "taught.toml"), "--data", str(competition), "--device", "cpu"]
    where += ["--out", str(folder / "run"), "--cache", str(folder / "cache"), *more]
    return [*where, *(word for setting in QUICK for word in ("--set", setting))]


@pytest.fixture(scope="module")
def taught(competition: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that a table and a stand-in for Perch have taught, with their files."""
    folder = tmp_path_factory.mktemp("taught")
    taxonomy = pd.read_csv(competition / "taxonomy.csv", dtype=str)
    names = (*taxonomy["scientific_name"][:2], "Speech")
    stand_in.write(folder, stand_in.card_of(names))
    (folder / "labels.txt").write_text("\n".join(names))
    stems = [path.stem for path in sorted((competition / "train_soundscapes").glob("*.ogg"))]
    ids = [f"{stem}_{5 * window}" for stem in stems for window in range(1, 13)]
    known = {label: np.linspace(0.1, 0.9, len(ids)) for label in taxonomy["primary_label"][1:]}
    pd.DataFrame({"row_id": ids} | known).to_csv(folder / "answers.csv", index=False)
    (folder / "taught.toml").write_text(RECIPE.format(folder=folder))
    assert train_run.main(arguments(folder, competition)) == 0
    return folder


def test_a_first_round_is_taught_by_a_table_and_what_it_lacks_is_unknown(taught: Path) -> None:
    labels = pseudo_labels.read(taught / "run" / "round0" / pseudo_labels.NAME)
    assert np.isnan(labels.scores[:, 0]).all()
    assert not np.isnan(labels.scores[:, 1:]).any()
    rows = pd.read_csv(taught / "answers.csv", index_col="row_id")
    for name, window, scores in zip(
        np.array(labels.names)[labels.file], labels.window, labels.scores, strict=True
    ):
        row_id = f"{Path(name).stem}_{5 * (window + 1)}"
        np.testing.assert_allclose(scores[1:], rows.loc[row_id], rtol=1e-5)
    assert labels.made_by["outside"]["table"]["table"] == checkpoint.sha256(taught / "answers.csv")


def test_a_later_round_is_taught_by_models_and_a_teacher_from_outside(taught: Path) -> None:
    labels = pseudo_labels.read(taught / "run" / "round1" / pseudo_labels.NAME)
    assert not np.isnan(labels.scores).any()
    assert list(labels.made_by["teachers"]) == ["test_resnet"]
    made_by = labels.made_by["outside"]["perch"]
    assert made_by["file"] == checkpoint.sha256(taught / "perch.onnx")


def finals(taught: Path) -> list[checkpoint.Final]:
    return [checkpoint.Final.load(path) for path in sorted((taught / "run").rglob("final.pt"))]


def test_checkpoints_say_who_taught_them_and_those_whom_they_learnt_from(taught: Path) -> None:
    first, last = finals(taught)
    table, perch = "answers.csv (licence: CC0)", "perch (licence of its weights: CC BY-NC)"
    assert first.taught_by == (table,)
    assert last.taught_by == (table, perch)
    assert "embeddings of perch" in last.made_by["parents"]
    assert "embeddings of perch" not in first.made_by["parents"]


def test_the_plan_names_the_teachers(
    taught: Path, competition: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_run.main(arguments(taught, competition, "--dry-run")) == 0
    said = capsys.readouterr().out
    assert "teacher perch: perch (licence of its weights: CC BY-NC); 2 of 8 classes are among" in said
    assert re.search(
        r"round 0: labelled data and .* pseudo-labelled windows .*, segmentwise of table", said
    )
    assert "segmentwise of test_resnet + perch" in said
    assert said.count("0.1 of the loss on embeddings of perch, done already") == 1


def test_a_rerun_keeps_all_of_it_and_another_table_is_another_parent(
    taught: Path, competition: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_run.main(arguments(taught, competition)) == 0
    assert capsys.readouterr().out.count("done already") == 2
    table = taught / "answers.csv"
    before = table.read_text()
    try:
        table.write_text(before.replace("0.9", "0.8"))
        with pytest.raises(UserError, match=r"round0/test_resnet/final\.pt: finished with another "):
            train_run.main(arguments(taught, competition))
        table.write_text("\n".join(before.splitlines()[:-1]))
        with pytest.raises(UserError, match=r"answers\.csv: lacks the row \S+_60"):
            train_run.main(arguments(taught, competition, "--dry-run"))
    finally:
        table.write_text(before)


@pytest.mark.slow
def test_the_exported_graph_has_no_trace_of_the_projection_and_the_card_names_the_teachers(
    taught: Path, competition: Path
) -> None:
    out = taught / "model"
    assert to_onnx.main([str(taught / "run"), "--data", str(competition), "--out", str(out)]) == 0
    (path,) = out.glob("*.onnx")
    graph = onnx.load(path).graph
    assert not any(stand_in.DIMS in each.dims for each in graph.initializer)
    content = path.read_bytes()
    assert b"projection" not in content
    page = (out / model_card.NAME).read_text()
    assert "Taught by models of others: answers.csv (licence: CC0); perch (licence of" in page


def test_what_is_trained_has_no_weight_more_for_it(taught: Path) -> None:
    first, last = (
        {key: tuple(value.shape) for key, value in final.state.items()} for final in finals(taught)
    )
    assert first == last


def test_a_member_without_a_teacher_from_outside_has_no_line_on_one() -> None:
    member: Any = model_card.Member("a", None, {"taught_by": []})  # type: ignore[arg-type]
    assert model_card.taught_by([member]) == ""
