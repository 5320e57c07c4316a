"""The report of a run: what the page shows is what the run's tables say, whatever they hold."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from birdkit.errors import UserError
from export.folder import model_folder
from export.gates import precision, selection
from export.models import onnx
from tests.train.pages.conftest import Open
from tests.train.pages.made_run import OUTPUTS, make_run, write_classes
from train import report
from train.experiments import comparison
from train.models import checkpoint
from train.pages.report import build, calibration, class_figures, exported, run_folder
from train.pages.report.compared import compare
from train.scoring.summary import ENSEMBLE, Header, Scored
from train.scoring.truth import Truth

CLASSES = ["amerob", "<script>alert(1)</script>", "NaN", "</script>", "1234", "never"]
NAMES = ["American Robin", "<b>Bold</b> Bird", "", 'O\'Hara "quoted"', "A & B", "Silent Bird"]
PHONE = {"viewport": {"width": 390, "height": 844}}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_run(tmp_path_factory.mktemp("runs") / "made", CLASSES)
    write_classes(folder, CLASSES, NAMES)
    assert report.main([str(folder)]) == 0
    return folder


def class_rows(page: object, column: int) -> dict[str, str]:
    """The shown rows of the table of classes: class → the text of a column."""
    script = """(rows, column) => rows.filter((row) => !row.hidden)
        .map((row) => [row.dataset.class, row.cells[column].textContent])"""
    rows = page.eval_on_selector_all("#class-table tbody tr", script, column)  # type: ignore[attr-defined]
    return dict(rows)


def test_a_round_that_did_not_gain_is_no_last_round(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "made", CLASSES)
    recipe = json.loads((folder / "recipe.json").read_text())
    whole = run_folder.read(folder)
    assert class_figures.last_scored(whole, ("soundscapes", "clipwise")) == 1
    (folder / "recipe.json").write_text(json.dumps(recipe | {"rounds": recipe["rounds"][:1]}))
    stopped = run_folder.read(folder)
    assert class_figures.last_scored(stopped, ("soundscapes", "clipwise")) == 0
    assert [note for note in stopped.notes if "round 1 is no part of the finished run" in note]
    assert [of.index for of in stopped.rounds] == [0, 1]  # its figures are shown all the same


@pytest.mark.parametrize("view", [(s, o) for s in ("validation", "soundscapes") for o in OUTPUTS])
def test_the_figures_of_each_set_and_output_are_those_of_the_tables(
    made: Path, open_page: Open, view: tuple[str, str]
) -> None:
    page = open_page(made / "report.html")
    page.select_option("#view", "|".join(view))
    models = pd.read_csv(made / "summary.csv").query("set == @view[0] and output == @view[1]")
    picture = page.locator(f"[data-view='{'|'.join(view)}'] svg.recipe").first
    assert picture.is_visible()
    shown = picture.locator(".big").all_text_contents()
    assert sorted(shown) == sorted(f"{auc:.4f}" for auc in models["macro_auc"])
    classes = pd.read_csv(made / "per_class.csv", keep_default_na=False)
    classes = classes[(classes["set"] == view[0]) & (classes["output"] == view[1])]
    for index, column in ((0, 4), (1, 5)):
        of_round = classes[(classes["round"] == index) & (classes["model"] == ENSEMBLE)]
        expected = {c: f"{auc:.4f}" for c, auc in zip(of_round["class"], of_round["auc"], strict=True)}
        assert class_rows(page, column) == expected
    assert class_rows(page, 2) == {name: str(CLASSES.index(name)) for name in CLASSES[:-1]}


def test_classes_are_sorted_by_keyboard_and_searched_by_name(made: Path, open_page: Open) -> None:
    page = open_page(made / "report.html")
    head = page.locator("#class-table th button", has_text="AUC round 1")
    head.focus()
    page.keyboard.press("Enter")
    falling = [float(text) for text in class_rows(page, 5).values()]
    assert falling == sorted(falling, reverse=True)
    page.keyboard.press("Enter")
    assert [float(text) for text in class_rows(page, 5).values()] == falling[::-1]
    page.fill("#search", "bold")
    assert list(class_rows(page, 0)) == [CLASSES[1]]
    assert page.inner_text("#count") == "1 of 6 classes"
    page.fill("#search", "silent")
    assert class_rows(page, 0) == {}
    page.uncheck("#scored")
    assert class_rows(page, 5) == {"never": "–"}


def test_a_class_that_is_chosen_is_marked_in_the_chart(made: Path, open_page: Open) -> None:
    page = open_page(made / "report.html")
    page.locator("#class-table tbody tr", has_text="American Robin").click()
    page.locator("#class-table tbody tr", has_text="American Robin").focus()
    tips = page.locator("circle.chosen").first.get_attribute("data-tip") or ""
    assert tips.startswith("amerob: AUC ")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    assert page.locator("tr.chosen").get_attribute("data-class") == CLASSES[1]


def test_names_with_markup_are_text_everywhere(made: Path, open_page: Open) -> None:
    page = open_page(made / "report.html")  # an alert would fail the fixture
    assert CLASSES[1] in page.inner_text("#class-table")
    assert CLASSES[1] in (page.locator("#mass-0").text_content() or "")
    tips = [dot.get_attribute("data-tip") or "" for dot in page.locator("circle[data-class]").all()]
    assert any(tip.startswith(f"{CLASSES[1]}: AUC") for tip in tips)
    assert page.locator("main script, main b:text('Bold')").count() == 0


def test_the_page_fits_a_phone_and_shows_before_two_seconds(made: Path, open_page: Open) -> None:
    page = open_page(made / "report.html", **PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
    page.wait_for_function(f"() => {paint}")
    assert page.evaluate(paint) < 2000


def test_alarms_and_mass_are_those_of_the_rounds(made: Path, open_page: Open) -> None:
    page = open_page(made / "report.html")
    text = page.inner_text("#labels")
    assert "1 alarm" in text
    assert "never: segmentwise labels differ by 0.0e+00 over 48 windows" in text
    page.locator("#labels summary").click()
    first = page.locator("#mass-0 tbody tr").first.locator("td").all_text_contents()
    assert first == ["amerob", "12.00", "100.00%", "0.500"]


@pytest.mark.slow  # scores all classes of all models
def test_seven_hundred_classes_make_a_light_page(tmp_path: Path, open_page: Open) -> None:
    classes = [f"class{number}" for number in range(700)]
    folder = make_run(tmp_path / "many", classes, sets=["soundscapes"])
    assert report.main([str(folder)]) == 0
    assert (folder / "report.html").stat().st_size < 2e6
    page = open_page(folder / "report.html")
    assert page.inner_text("#count") == "699 of 700 classes"


def test_a_run_of_one_class_has_a_page(tmp_path: Path, open_page: Open) -> None:
    folder = make_run(tmp_path / "one", ["only"])
    assert report.main([str(folder)]) == 0
    assert list(class_rows(open_page(folder / "report.html"), 0)) == ["only"]


def test_a_folder_that_is_no_run_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        report.main([str(tmp_path / "nowhere")])
    with pytest.raises(UserError, match="holds no run"):
        report.main([str(tmp_path)])


def test_an_unfinished_run_shows_what_it_has(tmp_path: Path, open_page: Open) -> None:
    folder = make_run(tmp_path / "begun", CLASSES)
    for name in (checkpoint.RECIPE_NAME, "summary.csv", "per_class.csv"):
        (folder / name).unlink()
    (folder / "round2").mkdir()
    assert report.main([str(folder)]) == 0
    page = open_page(folder / "report.html")
    text = page.inner_text("main")
    assert "not finished" in text
    assert "Not scored on soundscapes in segmentwise" in text
    assert "Alarms depend on the recipe" in text
    assert page.locator("#curves svg:visible").count() == 2  # figures after each epoch are stored


def test_an_empty_round_alone_has_a_page(tmp_path: Path, open_page: Open) -> None:
    (tmp_path / "round0").mkdir()
    assert report.main([str(tmp_path)]) == 0
    text = open_page(tmp_path / "report.html").inner_text("main")
    assert "Nothing was scored yet" in text
    assert "0 (no model yet)" in text
    assert "No curve is stored" in text


def test_damaged_files_are_named_on_the_page(tmp_path: Path, open_page: Open) -> None:
    folder = make_run(tmp_path / "damaged", CLASSES)
    damaged = ["round1/scores-validation.npz", "round0/test_resnet/history.json", "per_class.csv"]
    damaged += ["round1/pseudo.json", "classes.csv", "round0/test_resnet-2/final.pt"]
    for name in damaged:
        (folder / name).write_bytes(b"\x00{damaged")
    assert report.main([str(folder)]) == 0
    text = open_page(folder / "report.html").inner_text("main")
    for name in damaged:
        assert str(folder / name) in text, name


def test_two_runs_are_paired_as_the_comparison_of_rounds_pairs_them(
    made: Path, tmp_path: Path, open_page: Open
) -> None:
    other = make_run(tmp_path / "other", CLASSES, seed=1)
    assert report.main([str(made), str(other), "--out", str(tmp_path / "two.html")]) == 0
    page = open_page(tmp_path / "two.html")
    (wanted,) = (
        gain
        for gain in comparison.gains([comparison.pair(made, "validation", other)])
        if (gain.model, gain.output) == (ENSEMBLE, "segmentwise")
    )
    rows = page.locator("#paired tbody tr").all()
    cells = [row.locator("td").all_text_contents() for row in rows]
    (row,) = (c for c in cells if c[:3] == ["validation", "segmentwise", ENSEMBLE])
    figures = [float(text.replace("−", "-")) for text in row[3:8]]
    interval = wanted.mean.bound(0.05), wanted.mean.bound(0.95)
    expected = [wanted.after[0], wanted.before[0], wanted.mean.estimate, *interval]
    assert figures == pytest.approx(expected, abs=5.1e-5)
    assert "AUC other" in page.inner_text("#class-table thead")


def test_runs_that_were_scored_on_other_truth_are_not_paired(made: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", CLASSES, truth_seed=5)
    found = compare(run_folder.read(made), run_folder.read(other))
    assert found.table.rows == []
    assert [line.partition(":")[0] for line in found.unpaired] == ["soundscapes", "validation"]
    assert "different sets" in found.unpaired[0]


def test_runs_of_one_name_are_told_apart_and_a_run_is_not_compared_with_itself(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / place / "run", ["a", "b"], sets=["soundscapes"]) for place in "xy"]
    assert [run.name for run in run_folder.read_all(folders)] == ["x-run", "y-run"]
    with pytest.raises(UserError, match="given twice"):
        report.main([str(folders[0]), str(folders[0])])


def test_the_set_that_both_runs_were_scored_on_is_shown_first(made: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", CLASSES, sets=["soundscapes"])
    runs = run_folder.read_all([made, other])
    assert build.views_of(runs)[:2] == [("soundscapes", "segmentwise"), ("soundscapes", "clipwise")]
    assert build.views_of(runs[:1])[0] == ("validation", "segmentwise")


def test_absent_exports_are_named_with_their_commands(made: Path, open_page: Open) -> None:
    text = open_page(made / "report.html").inner_text("#export")
    for command in ("export/to_onnx.py", "export/to_openvino.py", "export/bench.py"):
        assert f"python {command}" in text
    with pytest.raises(UserError, match="no model folder"):
        report.main([str(made), "--model", str(made)])


def test_files_of_a_model_folder_are_named_as_export_names_them() -> None:
    assert exported.PARITY == model_folder.PARITY_NAME
    assert (exported.PRECISION, exported.EVALUATION) == (precision.NAME, selection.NAME)
    assert exported.MADE_BY_KEY == onnx.MADE_BY_KEY
    assert exported.DEFAULT == model_folder.DEFAULT


def test_a_frontier_in_the_runs_folder_is_shown(tmp_path: Path, open_page: Open) -> None:
    folder = make_run(tmp_path / "run", CLASSES)
    point = {
        "ensemble": "",
        "members": ["a", "b"],
        "hears": "60 s",
        "passes": 2,
        "output": "clipwise",
        "ms": 123.4,
    }
    point |= {"auc": 0.87654, "interval": [0.8, 0.9], "dominated": False}
    content = {"machine": "a machine", "soundscapes": 12, "points": [point]}
    content["judging"] = "labelled"
    (folder / "frontier.json").write_text(json.dumps(content))
    (folder / "broken.json").write_text(json.dumps({"machine": "a machine", "rows": [1]}))
    assert report.main([str(folder)]) == 0
    text = open_page(folder / "report.html").inner_text("#export")
    assert re.search(r"a \+ b\s+60 s\s+2\s+clipwise\s+123\s+0.8765\s+0.8000\s+0.9000\s+yes", text)
    assert "broken.json: not as this kit writes it" in text


def scored(labels: list[list[int]], scores: list[list[float]]) -> Scored:
    truth = Truth.of(np.array(labels, bool))
    header = Header("soundscapes", ("clipwise",), (ENSEMBLE,), ("a", "b"), {})
    return Scored(header, np.array([[scores]], np.float32), truth)


def test_single_models_of_two_names_are_compared_as_ensembles() -> None:
    labels, scores = [[1, 0], [0, 1]], [[0.9, 0.1], [0.2, 0.8]]
    last = scored(labels, scores)
    header = replace(last.header, models=("one", ENSEMBLE))
    tables = np.repeat(last.scores, 2, axis=1)
    one = Scored(header, tables, last.truth)
    other = Scored(replace(header, models=("other", ENSEMBLE)), 1 - tables, last.truth)
    (gain,) = comparison.gains([comparison.Pair(other, one)])
    assert (gain.model, gain.before, gain.after) == (ENSEMBLE, (0.0,), (1.0,))


def test_reliability_counts_cells_by_probability() -> None:
    of = calibration.reliability(scored([[1, 0], [0, 1]], [[0.95, 0.05], [0.92, 1.0]]), "clipwise")
    assert of.counts.tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 0, 3]
    assert of.shares[9] == pytest.approx(2 / 3)
    assert of.error == pytest.approx((0.05 + 3 * abs(2 / 3 - 2.87 / 3)) / 4)


def test_a_confusion_is_a_window_where_an_absent_class_scores_higher() -> None:
    table = scored([[1, 0], [1, 0], [1, 1], [0, 0]], [[0.1, 0.9], [0.9, 0.1], [0.1, 0.9], [0.1, 0.9]])
    won, absent = class_figures.outscored(table, "clipwise")
    assert won.tolist() == [[0, 1], [0, 0]]
    assert absent.tolist() == [[0, 2], [0, 0]]


@pytest.mark.slow  # trains for seconds and exports
def test_a_trained_run_finds_its_export_and_says_what_made_it(
    made: Path, run_dir: Path, model_dir: Path, competition: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, open_page: Open,
) -> None:  # fmt: skip
    # seven arguments: fixtures
    monkeypatch.setattr(exported, "DEFAULT", model_dir)
    assert report.main([str(run_dir), "--out", str(tmp_path / "page.html")]) == 0
    page = open_page(tmp_path / "page.html")
    parity = json.loads((model_dir / "parity.json").read_text())
    rows = page.locator("#export table").first.locator("tbody tr")
    assert rows.count() == sum(map(len, parity.values()))
    counts = pd.read_csv(competition / "train.csv")["primary_label"].astype(str).value_counts()
    stored = pd.read_csv(run_dir / "classes.csv", dtype={"class": str}).set_index("class")
    assert stored["n_recordings"].to_dict() == counts.to_dict()
    assert stored.loc["9000001", "common_name"] == "Demo Frog"
    foreign = exported.collect(run_folder.read(made), model_dir)
    assert "made from other checkpoints" in foreign.notes[0]
    final = checkpoint.read(run_dir / "round0" / "test_resnet" / "final.pt")
    assert final["made_by"]["data"][:12] in page.inner_text("#made-by")
