from __future__ import annotations

import re

import pytest

from birdkit import log
from birdkit.commands import command_parser
from birdkit.log import LOG
from train.data.progress import bar


def say_all(*arguments: str) -> None:
    command_parser("A command.").parse_args(arguments)
    LOG.debug("a detail, 100 %")
    LOG.info("a step, 100 %")
    LOG.warning("a doubt, 100 %")
    LOG.error("a fault, 100 %")


@pytest.mark.parametrize(
    ("arguments", "out", "err"),
    [
        ([], ["a step"], ["a doubt", "a fault"]),
        (["--log-level", "info"], ["a step"], ["a doubt", "a fault"]),
        (["--quiet"], [], ["a doubt", "a fault"]),
        (["--log-level", "warning"], [], ["a doubt", "a fault"]),
        (["--log-level", "error"], [], ["a fault"]),
        (["--quiet", "--log-level", "info"], ["a step"], ["a doubt", "a fault"]),  # the last one counts
    ],
)
def test_lines_go_where_their_level_says(
    arguments: list[str], out: list[str], err: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    say_all(*arguments)
    said = capsys.readouterr()
    assert said.out.splitlines() == [f"{line}, 100 %" for line in out]
    assert said.err.splitlines() == [f"{line}, 100 %" for line in err]


def test_details_have_their_time_and_their_place(capsys: pytest.CaptureFixture[str]) -> None:
    say_all("--log-level", "debug")
    with log.timed("a stage"):
        pass
    lines = capsys.readouterr().out.splitlines()
    assert [re.sub(r"^\d\d:\d\d:\d\d\.\d{3} ", "", line) for line in lines] == [
        "test_log: a detail, 100 %",
        "test_log: a step, 100 %",
        "test_log: a stage: 0.00 s",
    ]


def test_the_next_command_of_a_process_is_not_quiet_for_the_one_before(
    capsys: pytest.CaptureFixture[str],
) -> None:
    say_all("--quiet")
    say_all()
    assert "a step" in capsys.readouterr().out


def test_an_unknown_level_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        say_all("--log-level", "loud")
    assert raised.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_no_bar_is_drawn_where_no_step_is_said() -> None:
    assert not bar("work")["disable"]
    log.show("warning")
    assert bar("work")["disable"]
