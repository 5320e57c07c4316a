"""Errors that the user can mend, and how a command reports them."""

from __future__ import annotations

import sys
from collections.abc import Callable


class UserError(Exception):
    """Something the caller can mend. Its message says what, where and what to do, on one line."""


def run_command(main: Callable[[], int]) -> None:
    """Run a command's `main` and leave with its exit status; a `UserError` is one line and status 2."""
    try:
        status = main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        status = 130
    sys.exit(status)
