"""The kit's commands, their parsers, and what the docs call with which options."""

from __future__ import annotations

import argparse
import contextlib
import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("train", "export", "submission")
# A call in a page, up to the end of its line, code span or comment.
CALL = re.compile(r"python ((?:train|export|submission)/\w+\.py)([^\n`#]*)")


class _ParserError(BaseException):
    """Carries a command's parser out of it, before it parses anything."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        super().__init__()
        self.parser = parser


def commands() -> list[str]:
    """The scripts on top of the folders that are run as commands."""
    scripts = (path for folder in FOLDERS for path in sorted((ROOT / folder).glob("*.py")))
    return [str(path.relative_to(ROOT)) for path in scripts if "__main__" in path.read_text()]


def parser_of(command: str) -> argparse.ArgumentParser:
    """The parser that a command makes, without running the command further."""

    def stop(self: argparse.ArgumentParser, *_: object, **__: object) -> NoReturn:
        raise _ParserError(self)

    kept = list(sys.path)
    with (
        mock.patch.object(argparse.ArgumentParser, "parse_args", stop),
        mock.patch.object(sys, "argv", [command]),
        contextlib.suppress(SystemExit),
    ):
        try:
            runpy.run_path(str(ROOT / command), run_name="__main__")
        except _ParserError as caught:
            return caught.parser
        finally:
            sys.path[:] = kept
    raise AssertionError(f"{command} parses no arguments")


def options(parser: argparse.ArgumentParser) -> set[str]:
    """Options, and positional arguments as usage shows them; `--help` is left out."""
    names: set[str] = set()
    for action in parser._actions:
        if action.option_strings:
            names |= set(action.option_strings) - {"-h", "--help"}
        else:
            names.add(str(action.metavar or action.dest).upper())
    return names


def calls(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Each call of a command in a page, with its options."""
    for command, rest in CALL.findall(page.read_text().replace("\\\n", " ")):
        yield command, re.findall(r"(?<![\w-])--[a-z-]+", rest)


def pages() -> list[Path]:
    """All pages that people read in the repository."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
