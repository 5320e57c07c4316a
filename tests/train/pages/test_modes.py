"""An option of `train/report.py` that its mode would ignore is a mistake, and said before any work."""

from __future__ import annotations

import pytest

from birdkit.errors import UserError
from tests.docs import commands
from train import report


@pytest.mark.parametrize(
    ("arguments", "mode"),
    [
        ("", "RUN_DIR"),
        ("run other --model m --out o", "RUN_DIR"),
        ("--soundscapes s run --data d --most 3 --species a --species b --spread", "--soundscapes"),
        ("--soundscapes s --model m --device cpu", "--soundscapes"),
        ("--marks m n --precision 0.9", "--marks"),
        ("--data d --cache c --out o", "--data"),
    ],
)
def test_options_of_one_mode_choose_it(arguments: str, mode: str) -> None:
    assert report.parse(arguments.split())[1] == mode


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--precision 0.9", "--precision goes with --marks, which is not given; leave it out"),
        ("run --precision 0.9", "--precision goes with --marks, not with RUN_DIR; leave it out"),
        ("run --spread", "--spread goes with --soundscapes, not with RUN_DIR"),
        ("run --most 32", "--most goes with --soundscapes, not with RUN_DIR"),  # its default
        ("run --cache c", "--cache goes with --data, not with RUN_DIR"),
        ("run --marks m", "--marks and RUN_DIR ask for two things; give one of them"),
        ("--marks m --model d", "--model goes with --soundscapes or RUN_DIR, not with --marks"),
        ("--marks m --soundscapes s", "--soundscapes and --marks ask for two things"),
        ("--data d run other", "--data and RUN_DIR ask for two things"),
        ("--data d --species a", "--species goes with --soundscapes, not with --data"),
        ("--data d --model m", "--model goes with --soundscapes or RUN_DIR, not with --data"),
        ("--soundscapes s --cache c", "--cache goes with --data, not with --soundscapes"),
        ("--soundscapes s --precision 0.9", "--precision goes with --marks, not with --soundscapes"),
    ],
)
def test_an_option_of_another_mode_is_named_with_its_own(arguments: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        report.parse(arguments.split())
    assert str(error.value).startswith(said)


def test_every_option_belongs_to_a_mode() -> None:
    listed = {option for mode, options in report.MODES.items() for option in (mode, *options)}
    assert set(report.COMMANDS) == set(report.MODES)
    of_all = {"--out", "--quiet", "--log-level"}
    assert commands.options(commands.parser_of("train/report.py")) - listed == of_all
