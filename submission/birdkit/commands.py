"""The parsers of the commands, whose help all looks alike."""

from __future__ import annotations

import argparse


class _Help(argparse.RawDescriptionHelpFormatter):
    """Shows the text and the default of every option that takes a value."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if "default" in text or action.required or action.nargs == 0:
            return text
        return f"{text} (default: {'none' if action.default in (None, []) else '%(default)s'})"


def command_parser(docstring: str | None) -> argparse.ArgumentParser:
    """A parser that describes a command by its docstring."""
    return argparse.ArgumentParser(description=docstring, formatter_class=_Help)
