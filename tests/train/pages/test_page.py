"""The base of all pages: what comes from data can't leave its place, and nothing is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.train.pages.conftest import Open
from train.pages import page

NASTY = "</script><script>alert(1)</script><!-- <b> & ' \" \u2028"


def test_json_in_a_page_is_read_back_as_it_was_and_can_not_end_its_element() -> None:
    data = {"name": NASTY, "auc": np.float32(0.5), "none": float("nan"), "rows": np.arange(3)}
    text = page.embedded(data)
    assert "<" not in text
    assert json.loads(text) == {"name": NASTY, "auc": 0.5, "none": None, "rows": [0, 1, 2]}


def test_a_title_with_markup_is_shown_as_text(tmp_path: Path, open_page: Open) -> None:
    page.write(tmp_path / "new" / "page.html", "base.html.j2", title=NASTY)
    opened = open_page(tmp_path / "new" / "page.html")
    assert opened.title().startswith("</script><script>alert(1)")
    assert opened.inner_text(".brand").startswith("</script><script>alert(1)")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_is_the_systems_until_it_is_switched(
    tmp_path: Path, open_page: Open, scheme: str
) -> None:
    page.write(tmp_path / "page.html", "base.html.j2", title="A page")
    opened = open_page(tmp_path / "page.html", color_scheme=scheme)
    assert opened.get_attribute("html", "data-theme") == scheme
    opened.click("#theme")
    assert opened.get_attribute("html", "data-theme") == {"light": "dark", "dark": "light"}[scheme]
