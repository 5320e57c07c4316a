"""The parsers of the commands, whose help all looks alike."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from birdkit import log


class _Parser(argparse.ArgumentParser):
    """Says a mistake in one line, without the usage of every option before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; --help lists the options\n")


class _Help(argparse.RawDescriptionHelpFormatter):
    """Shows the text and the default of every option that takes a value."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if "default" in text or action.required or action.nargs == 0:
            return text
        return f"{text} (default: {'none' if action.default in (None, []) else '%(default)s'})"


class _Show(argparse.Action):
    """Sets the level of the log where it stands in the command line, so that no command needs to."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        log.show(self.const or str(values))


def command_parser(docstring: str | None) -> argparse.ArgumentParser:
    """A parser that describes a command by its docstring, with the options that every command has."""
    parser = _Parser(description=docstring, formatter_class=_Help)
    log.show(log.DEFAULT)
    said = parser.add_argument_group("what it says")
    said.add_argument(
        "--log-level",
        action=_Show,
        choices=log.LEVELS,
        default=argparse.SUPPRESS,
        help=f"the least that is said; debug: with times and places (default: {log.DEFAULT})",
    )
    said.add_argument(
        "--quiet",
        action=_Show,
        nargs=0,
        const="warning",
        default=argparse.SUPPRESS,
        help="warnings and errors alone, and no progress: --log-level warning",
    )
    return parser
