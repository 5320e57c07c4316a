"""Errors that the user can mend, and how a command reports them."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Callable

# Errors of the system that are the place's, not the kit's.
OF_THE_PLACE = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP),
}
# Characters that end a line, or that no encoding can write, as in a file name that is no UTF-8.
NOT_PLAIN = re.compile("[\x00-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]")


class UserError(Exception):
    """Something the caller can mend. Its message says what, where and what to do, on one line."""


def one_line(text: str) -> str:
    """The text with line breaks, control characters and what is no UTF-8 written as escapes."""
    return NOT_PLAIN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type where it has none."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def run_command(main: Callable[[], int]) -> None:
    """Run a command's `main` and leave with its exit status.

    A `UserError` is one line and status 2, and so is a place that can't be read or written.
    """
    try:
        status = main()
    except UserError as error:
        print(f"error: {one_line(str(error))}", file=sys.stderr)
        status = 2
    except OSError as error:
        if error.errno not in OF_THE_PLACE:
            raise
        where = f"{error.filename}: " if error.filename else ""
        remedy = "make room there, or name another place"
        print(f"error: {where}{error.strerror}; {remedy}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        status = 130
    sys.exit(status)
