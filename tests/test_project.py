"""Borders between the folders and their rooms, sizes, and packages."""

from __future__ import annotations

import ast
import io
import re
import runpy
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

OURS = {"birdkit", "train", "export", "tests", "submission"}
ALLOWED = {
    "submission": {"birdkit"},
    "train": {"train", "birdkit"},
    "export": {"export", "train", "birdkit"},
}
# pyarrow is asked for by detect.py alone, and ray and fsspec by its archives; each says so where it is
# missing.
RUN_TIME = {"birdkit", "numpy", "pandas", "soundfile", "soxr", "onnxruntime", "openvino", "pyarrow"} | {
    "fsspec",
    "ray",
}
# Rooms that each room may import, beside itself. Imports go down only, in functions, too. The commands
# of a folder may import every room of it; no room imports a command.
BIRDKIT = {
    "": set[str](),  # contract, grid, audio, errors, files
    "engines": {""},
    "outside": {"engines", ""},
    "scoring": {"outside", "engines", ""},
    "kaggle": {"scoring", "outside", "engines", ""},
    "recordings": {"scoring", "outside", "engines", ""},
    "detections": {"recordings", "scoring", "outside", "engines", ""},
    "archive": {"detections", "recordings", "scoring", "outside", "engines", ""},
}
TRAIN = {
    "config": set[str](),
    "synthetic": {"config", "data"},
    "data": {"config"},
    "models": {"config"},
    "outside": {"config", "data"},
    "scoring": {"config", "data", "models"},
    "fit": {"config", "data", "models"},
    "rounds": {"config", "data", "outside", "models", "scoring", "fit"},
    "experiments": {"config", "data", "models", "scoring", "rounds"},
    "benchmark": {"config", "synthetic", "data", "outside", "models", "scoring", "fit", "rounds"},
    "pages": {"config", "data", "outside", "models", "scoring", "fit", "rounds", "experiments"},
}
EXPORT = {
    "models": set[str](),
    "gates": {"models"},
    "folder": {"models", "gates"},
    "benchmark": {"models", "gates", "folder"},
    "kaggle": {"models", "gates", "folder"},
}
ROOMS = {"submission/birdkit": BIRDKIT, "train": TRAIN, "export": EXPORT}
REQUIREMENTS = ("requirements.txt", "requirements-dev.txt", "submission/requirements.txt")
MOST_MODULES, MOST_LINES, MOST_ARGUMENTS = 12, 45, 6
# A comment in a function, or right above it, that gives the reason for its size.
LONG = re.compile(r"# long\b", re.IGNORECASE)
WIDE = re.compile(r"# \w+ arguments\b", re.IGNORECASE)


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def imports(path: Path) -> Iterator[str]:
    """Dotted names of all modules that a file may import, wherever in it; none is relative."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("folder", ALLOWED)
def test_imports_between_the_folders_go_one_way(folder: str) -> None:
    wrong = [
        (path.name, name)
        for path in sources(folder)
        for name in imports(path)
        if name.partition(".")[0] in OURS - ALLOWED[folder]
    ]
    assert not wrong


@pytest.mark.parametrize("folder", ROOMS)
def test_every_room_has_its_place_and_a_sentence(folder: str) -> None:
    rooms = {path.parent.name for path in (ROOT / folder).glob("*/__init__.py")}
    assert rooms == set(ROOMS[folder]) - {""}
    for room in rooms:
        text = ast.get_docstring(ast.parse((ROOT / folder / room / "__init__.py").read_text()))
        assert text, f"{folder}/{room}/__init__.py says not what it is for"
        assert "Imports " in text, f"{folder}/{room}/__init__.py says not what it may import"


@pytest.mark.parametrize("folder", ROOMS)
def test_imports_between_rooms_go_down_only(folder: str) -> None:
    rooms, package = ROOMS[folder], Path(folder).name
    wrong = []
    for path in sources(folder):
        place = path.relative_to(ROOT / folder).parts
        room = place[0] if len(place) > 1 else ""
        if room == "" and "" not in rooms:
            continue  # a command
        for name in imports(path):
            first, *others = name.split(".")
            if first != package:
                continue
            other = others[0] if others and others[0] in rooms else ""
            if other != room and other not in rooms[room]:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


def test_the_submission_imports_its_few_packages_and_the_standard_library_only() -> None:
    names = {name.partition(".")[0] for path in sources("submission") for name in imports(path)}
    assert not names - RUN_TIME - sys.stdlib_module_names


@pytest.mark.parametrize("top", ["submission", "train", "export", "tests"])
def test_no_folder_holds_more_than_a_dozen_modules(top: str) -> None:
    modules = [path for path in sources(top) if path.name != "__init__.py"]
    folders = {path.parent for path in modules}
    counts = {str(f.relative_to(ROOT)): sum(path.parent == f for path in modules) for f in folders}
    assert {name: count for name, count in counts.items() if count > MOST_MODULES} == {}


def comments(text: str) -> dict[int, str]:
    """Comments of a source by their line, counted from 1."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}


def reasons(comments_by_line: dict[int, str], first: int, last: int) -> str:
    """The comments in a function's lines and in the block of comments right above it."""
    above = first - 1
    while above in comments_by_line:
        above -= 1
    lines = range(above + 1, last + 1)
    return "\n".join(comments_by_line.get(line, "") for line in lines)


def too_large(path: Path) -> Iterator[str]:
    """The functions of a file that are too long or take too much, and give no reason."""
    text = path.read_text()
    noted = comments(text)
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        last = node.end_lineno or first
        why = reasons(noted, first, last)
        n_lines = last - node.lineno + 1
        named = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        n_arguments = sum(argument.arg not in ("self", "cls") for argument in named)
        n_arguments += (node.args.vararg is not None) + (node.args.kwarg is not None)
        where = f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        if n_lines > MOST_LINES and not LONG.search(why):
            yield f"{where}: {n_lines} lines"
        if n_arguments > MOST_ARGUMENTS and not WIDE.search(why):
            yield f"{where}: {n_arguments} arguments"


def test_a_large_function_gives_its_reason() -> None:
    """In a comment such as `# long because …` or `# seven arguments: …`."""
    files = sources("submission", "train", "export", "tests")
    assert [line for path in files for line in too_large(path)] == []


def test_packages_are_pinned() -> None:
    for name in (*REQUIREMENTS, "requirements-scale.txt"):
        for line in (ROOT / name).read_text().splitlines():
            if line and not line.startswith(("#", "-r")):
                assert re.fullmatch(r"[\w.-]+==[\w.]+", line), line


def test_the_lock_holds_every_pinned_package_but_torch_with_hashes() -> None:
    locked = (ROOT / "requirements.lock").read_text()
    for name in REQUIREMENTS:
        for line in (ROOT / name).read_text().splitlines():
            if line and not line.startswith(("#", "-r")):
                on_its_own = f"\n{line} \\\n    --hash=sha256:"
                assert (on_its_own in locked) == (not line.startswith("torch")), line


def test_pyproject_holds_settings_only() -> None:
    assert set(tomllib.loads((ROOT / "pyproject.toml").read_text())) == {"tool"}


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("train/run.py", ["--data", "nowhere"]),
        ("export/to_onnx.py", ["."]),
        ("export/bundle.py", ["--model", "nowhere"]),
        ("train/metrics.py", ["scores.csv", "--validation", "."]),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_status_2(
    command: str,
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [command, *arguments])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(ROOT / command), run_name="__main__")
    assert left.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1


@pytest.mark.slow  # imports torch and both engines anew
def test_no_import_of_a_command_says_anything_beside_its_mistake(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "export/to_onnx.py"), "."],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
