"""The audit's page in a browser: its lists are the tables', and its recordings play where they lie."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from birdkit.errors import UserError
from tests.train.pages.audit.conftest import ODD, SCRIPT, SPOKEN_S
from tests.train.pages.conftest import Open
from train import report

PHONE = {"viewport": {"width": 390, "height": 844}}
PLAYS = (
    "() => document.getElementById('sound').currentTime > {} && !document.getElementById('sound').error"
)


@pytest.fixture
def made(folder: Path, tmp_path: Path) -> Path:
    """The page of the folder, in another folder whose name needs quoting."""
    out = tmp_path / "a page #1" / "audit.html"
    assert report.main(["--data", str(folder), "--out", str(out)]) == 0
    return out


def listed(page: object) -> list[str]:
    """The file names that the list shows."""
    return list(page.locator("#list tbody a").all_text_contents())  # type: ignore[attr-defined]


def test_the_list_has_every_row_and_each_finding_its_recordings(made: Path, open_page: Open) -> None:
    page = open_page(made)
    assert page.inner_text("#count") == "10 of 10"
    cells = page.locator("#finding-table tbody tr").all()
    counts = {
        row.locator("td").first.inner_text(): row.locator("td").nth(1).inner_text() for row in cells
    }
    assert counts == {
        "Can't be read": "2", "Duplicates": "2", "Speech": "1", "Silence": "2", "Clipping": "1",
        "Very short": "1",
    }  # fmt: skip
    page.click("button[data-finding=silence]")
    assert listed(page) == ["rana/silent.wav", "aves/half.ogg"]
    page.click("button[data-finding=duplicate]")
    assert listed(page) == [f"{SCRIPT}/same.wav", "aves/same.wav"]
    assert "same as aves/same.wav" in page.inner_text("#list tbody tr")
    page.select_option("#finding", "fault")
    assert "can't be decoded" in page.inner_text("#list tbody tr")


@pytest.mark.parametrize("name", [ODD, "half.ogg", "voice.mp3", "stereo.flac"])
def test_a_recording_plays_from_disk_in_every_format(made: Path, open_page: Open, name: str) -> None:
    page = open_page(made)
    page.fill("#search", name)
    page.click("#list tbody button.play")
    page.wait_for_function(PLAYS.format(0))
    assert name in page.inner_text("#playing")
    page.click("#close")
    assert page.locator("#player").is_hidden()


def test_speech_plays_from_where_it_begins(made: Path, open_page: Open) -> None:
    page = open_page(made)
    page.click("button[data-finding=speech]")
    page.click("#list tbody button.at")
    page.wait_for_function(PLAYS.format(SPOKEN_S[0] - 0.1))
    assert page.evaluate("document.getElementById('sound').currentTime") < SPOKEN_S[1]


def test_a_file_that_is_no_sound_says_that_it_can_not_be_played(made: Path, open_page: Open) -> None:
    page = open_page(made)
    page.fill("#search", "text.ogg")
    page.click("#list tbody button.play")
    page.wait_for_function("() => !document.getElementById('unplayed').hidden")


def test_the_list_is_sorted_by_keyboard_with_unknown_values_last(made: Path, open_page: Open) -> None:
    page = open_page(made)
    head = page.locator("#list th button").nth(2)
    head.focus()
    page.keyboard.press("Enter")
    cells = [row.locator("td").nth(3).inner_text() for row in page.locator("#list tbody tr").all()]
    assert cells[-2:] == ["–", "–"]
    lengths = [float(text) for text in cells[:-2]]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-1] == 0.2


def test_classes_dots_and_authors_list_their_recordings(
    made: Path, open_page: Open, folder: Path
) -> None:
    page = open_page(made)
    page.locator("#class-table tbody tr", has_text="never").wait_for()
    page.locator("#class-table tbody tr").filter(has_text=SCRIPT).focus()
    page.keyboard.press("Enter")
    assert listed(page) == [f"{SCRIPT}/same.wav"]
    page.click("#only")
    assert page.inner_text("#count") == "10 of 10"
    table = pd.read_csv(folder / "train.csv")
    page.locator("svg.map circle").first.dispatch_event("click")
    assert listed(page) == table.loc[table["latitude"] == 18.1, "filename"].tolist()
    page.locator("#author-table tbody tr", has_text='O"Hara').click()
    assert listed(page) == [f"aves/{ODD}"]


def test_figures_are_those_of_the_table(made: Path, open_page: Open, folder: Path) -> None:
    page = open_page(made)
    table = pd.read_csv(folder / "train.csv")
    shown = {
        row.locator("td").first.inner_text(): row.locator("td").nth(3).inner_text()
        for row in page.locator("#class-table tbody tr").all()
    }
    counts = table["primary_label"].value_counts()
    assert shown == {**{name: str(n) for name, n in counts.items()}, "never": "0"}
    assert "7 of 10 recordings have a place" in page.inner_text("#places")
    assert re.search(r"44\.1 kHz, stereo, FLAC PCM_16\s+1", page.inner_text("#lengths"))
    assert re.search(r"CC BY\s+10\s+100\.0%", page.inner_text("#people"))
    assert page.locator("main script, main b:text('name')").count() == 0


def test_the_page_fits_a_phone(made: Path, open_page: Open) -> None:
    page = open_page(made, **PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_absent_columns_are_said(folder: Path, tmp_path: Path, open_page: Open) -> None:
    table = pd.read_csv(folder / "train.csv", dtype=str)[["primary_label", "filename"]]
    table.head(6).query("primary_label == 'aves'").to_csv(folder / "train.csv", index=False)
    (folder / "taxonomy.csv").unlink()
    assert report.main(["--data", str(folder), "--out", str(tmp_path / "audit.html")]) == 0
    page = open_page(tmp_path / "audit.html")
    assert "the data has no column latitude" in page.inner_text("#places")
    for column in ("license", "author"):
        assert f"the data has no column {column}" in page.inner_text("#people")
    assert "one class only" in page.inner_text("#classes")
    assert "no taxonomy.csv" in page.inner_text("#classes")


def test_only_bad_files_make_a_page(folder: Path, tmp_path: Path, open_page: Open) -> None:
    table = pd.read_csv(folder / "train.csv", dtype=str)
    table.tail(2).to_csv(folder / "train.csv", index=False)
    assert report.main(["--data", str(folder), "--out", str(tmp_path / "audit.html")]) == 0
    page = open_page(tmp_path / "audit.html")
    assert page.inner_text("#count") == "2 of 2"
    assert "No header can be read" in page.inner_text("#lengths")


def test_a_name_that_is_no_utf_8_is_listed_and_linked(
    folder: Path, tmp_path: Path, open_page: Open
) -> None:
    raw = b"caf\xe9.wav"
    source = folder / "train_audio" / "rana" / "short.wav"
    (source.parent / raw.decode(errors="surrogateescape")).write_bytes(source.read_bytes())
    (folder / "train.csv").unlink()
    assert report.main(["--data", str(folder), "--out", str(tmp_path / "audit.html")]) == 0
    page = open_page(tmp_path / "audit.html")
    page.fill("#search", "caf")
    assert (page.get_attribute("#list tbody a", "href") or "").endswith("train_audio/rana/caf%E9.wav")


def test_only_this_page_may_load_sound_and_only_from_disk(made: Path, open_page: Open) -> None:
    policy = open_page(made).get_attribute("meta[http-equiv]", "content") or ""
    assert policy.endswith("img-src data:; media-src file:")
    assert (
        "media-src" not in (Path(report.__file__).parent / "pages/templates/base.html.j2").read_text()
    )


def test_a_folder_is_audited_alone(folder: Path, tmp_path: Path) -> None:
    for more in ([str(tmp_path)], ["--marks", "marks.csv"]):
        with pytest.raises(UserError, match="give one"):
            report.main([*more, "--data", str(folder)])
    with pytest.raises(UserError, match="no such folder"):
        report.main(["--data", str(tmp_path / "nowhere")])


def test_paths_of_the_page_are_relative(made: Path, open_page: Open) -> None:
    page = open_page(made)
    data = json.loads(page.inner_text("#data") or page.locator("#data").text_content() or "")
    assert data["audio"] == "../data/train_audio"
