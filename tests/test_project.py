"""Borders between the folders, and docs that are true."""

from __future__ import annotations

import ast
import re
import runpy
import subprocess
import sys
import tomllib

import pytest

from tests.conftest import ROOT

OURS = {"birdkit", "train", "export", "tests", "submission"}
ALLOWED = {
    "submission": {"birdkit"},
    "train": {"train", "birdkit"},
    "export": {"export", "train", "birdkit"},
}
RUN_TIME = {"birdkit", "numpy", "pandas", "soundfile", "soxr", "onnxruntime", "openvino"}
README = (ROOT / "README.md").read_text()


def imports(folder):
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((path.name, alias.name.partition(".")[0]) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield path.name, (node.module or "").partition(".")[0]


@pytest.mark.parametrize("folder", ALLOWED)
def test_imports_go_one_way(folder):
    wrong = [(path, name) for path, name in imports(folder) if name in OURS - ALLOWED[folder]]
    assert not wrong


def test_the_submission_imports_its_few_packages_and_the_standard_library_only():
    wrong = {name for _, name in imports("submission")} - RUN_TIME - sys.stdlib_module_names
    assert not wrong


def test_every_path_of_the_readmes_tree_exists():
    (tree,) = re.findall(r"```\n(README\.md.*?)```", README, re.DOTALL)
    paths, parents = [], []
    for line in tree.splitlines():
        depth, name = (len(line) - len(line.lstrip())) // 2, line.split()[0]
        parents = [*parents[:depth], name]
        paths.append("".join(parents))
    assert len(paths) > 25
    assert [path for path in paths if not (ROOT / path).exists()] == []
    listed = {path for path in paths if path.endswith(".py")}
    there = {
        str(path.relative_to(ROOT))
        for folder in ("submission", "train", "export")
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "__init__.py"
    }
    assert listed == there


def test_every_command_of_the_readme_exists_and_every_command_is_in_the_readme():
    named = set(re.findall(r"python ((?:train|export|submission)/\w+\.py)", README))
    assert all((ROOT / path).is_file() for path in named)
    commands = {
        str(path.relative_to(ROOT))
        for folder in ("train", "export", "submission")
        for path in (ROOT / folder).glob("*.py")
        if "__main__" in path.read_text()
    }
    assert named == commands


def test_every_option_of_the_readme_is_one_of_its_command():
    for command, rest in re.findall(r"python ((?:train|export|submission)/\w+\.py)([^\n`]*)", README):
        text = (ROOT / command).read_text()
        for option in re.findall(r"--[a-z-]+", rest):
            assert f'"{option}"' in text, f"{command} has no {option}"


def test_every_make_target_of_the_readme_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z-]+)", README)) <= targets


def test_packages_are_pinned():
    for name in ("requirements.txt", "submission/requirements.txt"):
        for line in (ROOT / name).read_text().splitlines():
            if line and not line.startswith(("#", "-r")):
                assert re.fullmatch(r"[\w.-]+==[\w.]+", line), line


def test_pyproject_holds_settings_only():
    assert set(tomllib.loads((ROOT / "pyproject.toml").read_text())) == {"tool"}


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("train/run.py", ["--data", "nowhere"]),
        ("export/to_onnx.py", ["."]),
        ("train/metrics.py", ["scores.csv", "--validation", "."]),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_status_2(
    command, arguments, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [command, *arguments])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(ROOT / command), run_name="__main__")
    assert left.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert told.count("\n") == 1


@pytest.mark.slow  # imports torch and both engines anew
def test_no_import_of_a_command_says_anything_beside_its_mistake(tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "export/to_onnx.py"), "."],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
