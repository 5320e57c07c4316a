from __future__ import annotations

import io
import sys

import pytest
from tqdm import tqdm

from train.data import progress


def test_without_a_terminal_progress_is_lines_and_short_work_has_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    assert progress.in_threads(str, [1, 2, 3], "short") == ["1", "2", "3"]
    assert log.getvalue() == ""
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    assert list(tqdm([1, 2, 3], **progress.bar("long"))) == [1, 2, 3]
    lines = log.getvalue().splitlines()
    assert lines[-1].startswith("long: 100% 3/3 ")
    assert all(line.startswith("long: ") for line in lines)
    assert "\r" not in log.getvalue()


def test_a_terminal_has_a_bar_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert progress.bar("title") == {"desc": "title", "leave": False, "disable": False}


def test_a_fault_in_a_thread_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        progress.in_threads(lambda x: 1 / x, [1, 0], "")
