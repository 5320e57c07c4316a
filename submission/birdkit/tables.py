"""Reads CSV tables and JSON objects; one that can't be read is a `UserError`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises `UserError` where there is none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: not found; give the path of a JSON file") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: can't be read as JSON ({error}); mend it") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: holds no JSON object {{…}}; mend it")
    return values
