"""The parsers of the commands, whose help all looks alike, and options that exclude each other."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NoReturn

from birdkit import log
from birdkit.errors import UserError


class Parser(argparse.ArgumentParser):
    """Says a mistake in one line, without the usage of every option before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; --help lists the options\n")

    def parse_given(self, argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
        """The values of all options, and the names of those given, a positional one as `RUN_DIR`."""
        args = self.parse_args(argv)
        # No option that is given has the value None, and none that is not is set in place of one.
        given = vars(self.parse_args(argv, argparse.Namespace(**dict.fromkeys(vars(args)))))
        names = {a.dest: (*a.option_strings, a.dest.upper())[0] for a in self._actions}
        return args, [names[dest] for dest, value in given.items() if value is not None]


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


def command_parser(docstring: str | None) -> Parser:
    """A parser that describes a command by its docstring, with the options that every command has."""
    parser = Parser(description=docstring, formatter_class=_Help)
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


def choose_mode(modes: Mapping[str, Collection[str]], given: Collection[str]) -> str:
    """What a command is to do, of several things, where no option is given that another one takes.

    Parameters
    ----------
    modes : the option that asks for a mode → the options that only this one takes, or a few do. The
        first mode that is asked for is chosen, or else the last. What no mode lists, all of them take.

    Raises
    ------
    UserError
        Naming an option that the mode would ignore.
    """
    chosen = next((mode for mode in modes if mode in given), [*modes][-1])
    for option in given:
        takers = [mode for mode, options in modes.items() if option in (mode, *options)]
        if not takers or chosen in takers:
            continue
        if option in modes:
            raise UserError(f"{chosen} and {option} ask for two things; give one of them")
        but = f"not with {chosen}" if chosen in given else "which is not given"
        raise UserError(f"{option} goes with {' or '.join(takers)}, {but}; leave it out")
    return chosen
