"""Tables of text, as people keep them in CSV files."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from birdkit.errors import UserError


def read_csv(path: Path) -> pd.DataFrame:
    """A CSV as strings, empty where nothing stands. Raises `UserError`."""
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: not found; give the path of a CSV") from None
    except (OSError, ValueError) as error:  # pandas' own errors of a table are ValueErrors
        raise UserError(f"{path}: can't be read as CSV ({error}); mend it") from error
