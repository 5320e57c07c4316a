"""Every command explains itself: its docstring, and text and default of each option."""

from __future__ import annotations

import ast
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.docs import commands
from tests.docs.commands import ROOT

MAKES_OWN = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")


@pytest.mark.parametrize("command", commands.commands())
def test_help_has_the_docstring_and_a_text_and_a_default_for_every_option(command: str) -> None:
    parser = commands.parser_of(command)
    docstring = ast.get_docstring(ast.parse((ROOT / command).read_text()), clean=False)
    assert docstring is not None
    assert docstring.strip() in parser.format_help()
    for action in parser._actions:
        text = parser._get_formatter()._expand_help(action)
        assert len(text) > 5, action.dest
        takes_a_value = action.nargs != 0 and not action.required
        assert "default" in text or not takes_a_value, action.dest


@pytest.mark.parametrize("command", commands.commands())
def test_a_wrong_option_is_one_line(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        commands.parser_of(command).parse_args(["--no-such-option"])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")


def _commands_of_demo(data: Path) -> str:
    """What `make demo` would run on this folder, as on a terminal: `make test` is a make, too."""
    outside = {name: value for name, value in os.environ.items() if name not in MAKES_OWN}
    return subprocess.run(
        ["make", "--dry-run", "demo", f"DATA={data}"],
        cwd=ROOT, env=outside, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip


@pytest.mark.parametrize("there", [True, False])
def test_make_demo_submits_nothing_where_there_are_no_soundscapes(tmp_path: Path, there: bool) -> None:
    (tmp_path / "my birds" / "wren").mkdir(parents=True)
    (tmp_path / "my birds" / "test_soundscapes").mkdir()  # empty, as Kaggle gives it
    if there:
        (tmp_path / "my birds" / "train_soundscapes").mkdir()
        (tmp_path / "my birds" / "train_soundscapes" / "a.ogg").touch()
    printed = _commands_of_demo(tmp_path / "my birds")
    assert ("submission/run.py" in printed) == there
    assert ("nothing to submit; next: python submission/detect.py" in printed) != there
    assert printed.rstrip().splitlines()[-1].startswith(".venv/bin/python train/report.py")


def test_make_quotes_a_data_folder_whatever_its_name_holds(tmp_path: Path) -> None:
    data = tmp_path / "a b's"
    (data / "validation").mkdir(parents=True)
    printed = _commands_of_demo(data)
    lines = printed.replace("\\\n", " ").splitlines()
    calls = [shlex.split(line) for line in lines if ".py" in line]
    named = {word for call in calls for word in call if str(tmp_path) in word}
    assert named == {str(data), f"{data}/validation", f"{data}/validation/soundscapes"}
    assert sum(str(data) in call for call in calls) == 4  # train, to_onnx, to_openvino, run
