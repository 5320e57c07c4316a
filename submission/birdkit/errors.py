"""Errors that the user can mend, and how a command reports them."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable

# Errors of the system that are the place's, not the kit's.
OF_THE_PLACE = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP),
}


class UserError(Exception):
    """Something the caller can mend. Its message says what, where and what to do, on one line."""


def run_command(main: Callable[[], int]) -> None:
    """Run a command's `main` and leave with its exit status.

    A `UserError` is one line and status 2, and so is a place that can't be read or written.
    """
    try:
        status = main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
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
