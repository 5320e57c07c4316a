"""The parsers of the commands, whose help all looks alike."""

from __future__ import annotations

import argparse
from typing import NoReturn


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


def command_parser(docstring: str | None) -> argparse.ArgumentParser:
    """A parser that describes a command by its docstring."""
    return _Parser(description=docstring, formatter_class=_Help)
