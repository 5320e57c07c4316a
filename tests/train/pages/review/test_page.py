"""The review page in a browser: what it shows, plays, marks and saves, against the tables."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from birdkit.contract import Contract
from birdkit.errors import UserError
from tests.conftest import write_sound
from tests.train.pages.conftest import Open
from train.pages.review import page
from train.pages.review.page import Choice
from train.pages.review.recordings import Known, Recordings
from train.scoring.reviewed import COLUMNS, read_marks

if TYPE_CHECKING:
    from playwright.sync_api import Page

CLASSES = ("wren", "<script>alert(1)</script>", 'a "quoted", one', "22774")
MODEL = "model-1"
RATE = 32000


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Recordings:
    """Three recordings, two of them of one name: labelled, pseudo-labelled, and neither of both."""
    folder = tmp_path_factory.mktemp("soundscapes")
    names = ("a/one.wav", "b/one.wav", "b/<b>short.wav")
    lengths_s = (20.0, 20.0, 0.2)
    paths = [write_sound(folder / name, s) for name, s in zip(names, lengths_s, strict=True)]
    rng = np.random.default_rng(0)
    scores = tuple(rng.random((n, 4)).astype(np.float32) for n in (4, 4, 1))
    present, decided = rng.random((2, 3, 4)) < 0.6  # one window less than there are
    return Recordings(
        tuple(paths),
        names,
        scores,
        {"bad<i>.wav": "holds no samples"},
        Contract(RATE, 5.0, 5.0, CLASSES),
        {0: Known(present, decided)},
        {1: rng.random((4, 4)).astype(np.float32)},
        {"wren": "Winter & Wren"},
    )


@pytest.fixture(scope="module")
def review(recordings: Recordings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "review.html"
    page.write(path, recordings, MODEL, Choice())
    return path


@pytest.fixture
def opened(review: Path, open_page: Open) -> Page:
    browser_page = open_page(review, viewport={"width": 1280, "height": 900})
    return drawn(browser_page)


def drawn(browser_page: Page) -> Page:
    browser_page.wait_for_selector("#waiting", state="hidden")
    until(browser_page, "sound.readyState >= 2")
    return browser_page


def until(browser_page: Page, expression: str) -> None:
    """Wait for 5 s at most; `wait_for_function` needs an `eval` that the page's policy refuses."""
    for _ in range(100):
        if browser_page.evaluate(expression):
            return
        browser_page.wait_for_timeout(50)
    raise AssertionError(f"never: {expression}")


def red_by_row(browser_page: Page) -> np.ndarray:
    """(rows,) the mean red of each row of the drawn spectrogram, the highest frequencies first."""
    rows = browser_page.evaluate("""(() => {
      const drawn = show('spectrogram'), width = drawn.width, means = [];
      const canvas = new OffscreenCanvas(width, drawn.height);
      const copy = canvas.getContext('2d', {willReadFrequently: true});
      copy.drawImage(drawn, 0, 0);
      for (let y = 0; y < drawn.height; y++) {
        const row = copy.getImageData(0, y, width, 1).data;
        means.push(row.reduce((sum, value, i) => sum + (i % 4 ? 0 : value), 0) / width);
      }
      return means;
    })()""")
    return np.array(rows)


def cells(recordings: Recordings) -> list[tuple[float, str, int, str]]:
    """Score, recording, start and class of every window, the highest scores first."""
    found = [
        (float(score), recordings.names[number], 5 * window, CLASSES[index])
        for number, rows in enumerate(recordings.scores)
        if rows is not None
        for (window, index), score in np.ndenumerate(rows)
    ]
    return sorted(found, reverse=True)


def listed(opened: Page) -> list[list[str]]:
    return opened.eval_on_selector_all(
        "#queue tr", "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
    )


def saved(opened: Page, path: Path) -> list[dict[str, str]]:
    with opened.expect_download() as download:
        opened.keyboard.press("s")
    download.value.save_as(path)
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_list_holds_what_the_tables_do(opened: Page, recordings: Recordings) -> None:
    wanted = [cell for cell in cells(recordings) if cell[0] >= 0.1]
    rows = listed(opened)
    assert [row[2] for row in rows] == [name for _, name, _, _ in wanted]
    assert [float(row[3]) for row in rows] == [start for _, _, start, _ in wanted]
    assert [float(row[1]) for row in rows] == pytest.approx([score for score, *_ in wanted], abs=6e-4)
    shown = [name if name != "wren" else "Winter & Wren (wren)" for *_, name in wanted]
    assert [row[0] for row in rows] == shown
    known = recordings.known[0]
    for row, (_, name, start, class_name) in zip(rows, wanted, strict=True):
        at = start // 5, CLASSES.index(class_name)
        decided = name == "a/one.wav" and start < 15 and known.decided[at]
        assert row[4] == (("yes" if known.present[at] else "no") if decided else "–")


def test_it_filters_by_class_and_score(opened: Page, recordings: Recordings) -> None:
    opened.select_option("#species", label='a "quoted", one')
    opened.fill("#low", "0.3")
    opened.fill("#high", "0.8")
    opened.press("#high", "Enter")
    wanted = [c for c in cells(recordings) if c[3] == CLASSES[2] and 0.3 <= c[0] <= 0.8]
    assert len(listed(opened)) == len(wanted) > 0
    assert opened.inner_text("#n-shown") == f"{len(wanted)} detections"
    opened.fill("#low", "0.9999")
    opened.press("#low", "Enter")
    assert listed(opened) == []
    assert "Lower the score" in opened.inner_text("#more")


def test_spread_takes_from_the_whole_range_of_a_class(
    tmp_path: Path, recordings: Recordings, open_page: Open
) -> None:
    path = tmp_path / "spread.html"
    page.write(path, recordings, MODEL, Choice(species=("wren",), spread=True))
    opened = drawn(open_page(path))
    rows = listed(opened)
    assert {row[0] for row in rows} == {"Winter & Wren (wren)"}
    assert len(rows) == 9
    scores = [float(row[1]) for row in rows]
    assert scores != sorted(scores)
    assert scores != sorted(scores, reverse=True)


def test_space_plays_the_window_and_the_cursor_moves(opened: Page, recordings: Recordings) -> None:
    score, name, start, _ = cells(recordings)[0]
    assert f"{name}, {start} to {start + 5} s" in opened.inner_text("#where")
    before = opened.evaluate("parseFloat(show('cursor').style.left)")
    opened.keyboard.press("Space")
    until(opened, f"sound.currentTime > {start} + 0.3")
    assert not opened.evaluate("sound.paused")
    assert opened.evaluate("parseFloat(show('cursor').style.left)") > before
    opened.keyboard.press("Space")
    assert opened.evaluate("sound.paused")
    opened.evaluate(f"sound.currentTime = {start} + 4.8")
    opened.keyboard.press("Space")
    # By itself it stops at the window's end.
    until(opened, "sound.paused")
    assert opened.evaluate("sound.currentTime") == pytest.approx(start + 5, abs=0.01)


def test_arrows_step_from_window_to_window_within_the_clip(
    opened: Page, recordings: Recordings
) -> None:
    _, name, start, class_name = cells(recordings)[0]
    for _ in range(5):
        opened.keyboard.press("ArrowLeft")
    rows = recordings.scores[recordings.names.index(name)]
    assert rows is not None
    score = float(rows[0, CLASSES.index(class_name)])
    assert f"{name}, 0 to 5 s" in opened.inner_text("#where")
    assert float(opened.inner_text("#where").split()[1]) == pytest.approx(score, rel=0.01)
    opened.keyboard.press("ArrowRight")
    assert f"{name}, 5 to 10 s" in opened.inner_text("#where")
    assert opened.evaluate("sound.currentTime") == 5


def test_the_strip_and_the_picture_share_one_time_axis(opened: Page) -> None:
    opened.evaluate("choose(detection(0, 2, 0))")
    canvas = opened.locator("#spectrogram").bounding_box()
    window = opened.locator("#window").bounding_box()
    cell = opened.locator(".cell[aria-current=true]").bounding_box()
    assert canvas is not None
    assert window is not None
    assert cell is not None
    assert cell["x"] == pytest.approx(window["x"], abs=2)
    assert cell["width"] == pytest.approx(window["width"], abs=2)
    assert (window["x"] - canvas["x"]) / canvas["width"] == pytest.approx(0.5, abs=0.01)


def test_labels_and_teacher_probabilities_stand_in_the_strip(
    opened: Page, recordings: Recordings
) -> None:
    opened.evaluate("choose(detection(data.clips.findIndex(c => c.recording === 'a/one.wav'), 0, 0))")
    known = recordings.known[0]
    n_present = (known.present & known.decided).sum()
    assert opened.locator(".cell.labelled").count() == n_present
    assert opened.locator(".cell.unknown").count() == 16 - known.decided.sum()
    opened.evaluate("choose(detection(data.clips.findIndex(c => c.recording === 'b/one.wav'), 1, 3))")
    tip = opened.get_attribute(".cell[aria-current=true]", "data-tip")
    assert f"teacher {recordings.pseudo[1][1, 3]:.3f}"[:12] in str(tip)


def test_marks_are_kept_and_saved_as_the_tables_have_them(
    opened: Page, recordings: Recordings, tmp_path: Path
) -> None:
    wanted = cells(recordings)
    for key in ("ArrowUp", "ArrowDown", "u", "ArrowUp"):
        opened.keyboard.press(key)
    opened.keyboard.press("p")
    opened.keyboard.press("x")  # takes the fourth back
    drawn(opened)
    opened.reload()
    drawn(opened)
    assert opened.inner_text("#n-marks") == "3"
    rows = saved(opened, tmp_path / "marks.csv")
    assert tuple(rows[0]) == COLUMNS
    found = {(row["recording"], float(row["start"]), row["class"]): row for row in rows}
    assert len(found) == 3
    for (score, name, start, class_name), mark in zip(
        wanted, ("right", "wrong", "unsure"), strict=False
    ):
        row = found[name, start, class_name]
        assert np.float32(row["score"]) == np.float32(score)
        assert (row["mark"], float(row["end"]), row["model"]) == (mark, start + 5, MODEL)
    marks = read_marks([tmp_path / "marks.csv"])
    assert sum(of.n_right for of in marks.classes.values()) == 1
    assert marks.n_unsure == 1


def test_two_tabs_of_a_page_share_their_marks(opened: Page, review: Path) -> None:
    other = opened.context.new_page()
    other.goto(review.as_uri())
    drawn(other).keyboard.press("ArrowUp")
    until(opened, "marks.rows.size === 1")
    opened.keyboard.press("n")
    opened.keyboard.press("ArrowDown")
    until(other, "marks.rows.size === 2")
    assert other.inner_text("#n-marks") == opened.inner_text("#n-marks") == "2"


def test_a_browser_that_keeps_nothing_says_so_and_saves_all_the_same(
    opened: Page, tmp_path: Path
) -> None:
    assert not opened.is_visible("#unkept")
    opened.evaluate("void (Storage.prototype.setItem = () => { throw new Error('full'); })")
    opened.keyboard.press("ArrowUp")
    assert opened.is_visible("#unkept")
    assert len(saved(opened, tmp_path / "marks.csv")) == 1


def test_saved_marks_are_read_again_and_those_of_another_model_are_refused(
    opened: Page, tmp_path: Path
) -> None:
    opened.select_option("#species", label='a "quoted", one')
    opened.keyboard.press("ArrowUp")
    saved(opened, tmp_path / "marks.csv")
    opened.keyboard.press("p")
    opened.keyboard.press("x")
    opened.set_input_files("#load", tmp_path / "marks.csv")
    opened.wait_for_selector("text=1 of 1 marks read")
    assert opened.inner_text("#n-marks") == "1"
    text = (tmp_path / "marks.csv").read_text()
    (tmp_path / "other.csv").write_text(text.replace(MODEL, "model-2"))
    opened.set_input_files("#load", tmp_path / "other.csv")
    opened.wait_for_selector("text=marks of another model, model-2")
    (tmp_path / "none.csv").write_text("a,b\n1,2\n")
    opened.set_input_files("#load", tmp_path / "none.csv")
    opened.wait_for_selector("text=holds no marks: lacks the column recording")


def test_brightness_and_contrast_change_the_picture_and_reset_brings_it_back(opened: Page) -> None:
    first = red_by_row(opened)
    opened.fill("#brightness", "15")
    assert red_by_row(opened).mean() > first.mean() + 10
    opened.click("#reset")
    np.testing.assert_array_equal(red_by_row(opened), first)
    opened.check("#level")
    # The steady tone of the recording goes, and the noise around it stays.
    assert red_by_row(opened).max() < first.max() / 2
    opened.select_option("#top-khz", label="4 kHz")
    assert opened.inner_text("#khz span:first-child") == "4 kHz"


def test_a_tone_is_drawn_at_its_kilohertz(opened: Page) -> None:
    rows = red_by_row(opened)
    assert (len(rows) - rows.argmax() - 0.5) / len(rows) * RATE / 2000 == pytest.approx(3.0, abs=0.1)
    opened.select_option("#top-khz", label="4 kHz")
    rows = red_by_row(opened)
    assert (len(rows) - rows.argmax() - 0.5) / len(rows) * 4 == pytest.approx(3.0, abs=0.1)


def test_question_mark_opens_and_closes_the_help(opened: Page) -> None:
    opened.keyboard.press("?")
    assert opened.is_visible("text=goes on to the next detection")
    opened.keyboard.press("ArrowUp")  # marks nothing meanwhile
    opened.keyboard.press("?")
    assert not opened.is_visible("text=goes on to the next detection")
    assert opened.inner_text("#n-marks") == "0"


def test_names_with_markup_are_text_and_bad_recordings_are_named(opened: Page) -> None:
    opened.select_option("#species", label="<script>alert(1)</script>")
    assert opened.inner_text("#class-name") == "<script>alert(1)</script>"
    opened.click("summary")
    assert "bad<i>.wav: holds no samples" in opened.inner_text("details.note")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_down_only_and_keeps_the_marks_in_reach(
    review: Path, open_page: Open, scheme: str
) -> None:
    phone = {"width": 375, "height": 700}
    opened = drawn(open_page(review, viewport=phone, has_touch=True, color_scheme=scheme))
    assert opened.evaluate("document.documentElement.scrollWidth") == 375
    opened.tap("[data-mark=right]")
    assert opened.inner_text("#n-marks") == "1"


def test_the_first_paint_comes_before_two_seconds(opened: Page) -> None:
    times = opened.evaluate("performance.getEntriesByType('paint').map(entry => entry.startTime)")
    assert 0 < max(times) < 2000


def test_a_part_of_a_long_recording_is_shown_with_what_is_around_it(
    recordings: Recordings, tmp_path: Path, open_page: Open
) -> None:
    path = write_sound(tmp_path / "long.wav", 130.0)
    scores = np.zeros((26, 4), np.float32)
    scores[13, 0] = 0.9
    long = replace(
        recordings,
        paths=(path,),
        names=("long.wav",),
        scores=(scores,),
        known={},
        pseudo={},
        failures={},
    )
    reason = page.write(tmp_path / "long.html", long, MODEL, Choice(most=1))
    assert reason.startswith("1 of 3 clips, of a minute or less, of 1 recording")
    opened = drawn(open_page(tmp_path / "long.html"))
    assert "long.wav, 65 to 70 s" in opened.inner_text("#where")
    clip = opened.evaluate("[clipNow().startS, clipNow().endS, sound.duration, sound.currentTime]")
    assert clip == [42.5, 92.5, 50, 22.5]
    assert len(listed(opened)) == 1


def test_recordings_that_went_away_are_named_and_none_at_all_is_an_error(
    recordings: Recordings, tmp_path: Path
) -> None:
    gone = replace(recordings, paths=(tmp_path / "gone.wav", *recordings.paths[1:]))
    page.write(tmp_path / "page.html", gone, MODEL, Choice())
    assert "gone.wav" in (tmp_path / "page.html").read_text()
    alone = replace(gone, paths=(tmp_path / "gone.wav",) * 3)
    with pytest.raises(UserError, match=r"no recording can be shown \(.*gone\.wav"):
        page.write(tmp_path / "none.html", alone, MODEL, Choice())
    assert not (tmp_path / "none.html").exists()
