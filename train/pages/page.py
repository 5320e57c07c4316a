"""Writes one-file pages: templates, their styles and scripts, and data as JSON, all escaped.

A page opens from disk and asks nobody for anything: its content policy allows no request. What comes
from data reaches it in two ways, as text that the template escapes, and as JSON in a script element
(`{{ table | embedded }}`), which its script reads and puts in as text.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from birdkit.files import write_whole

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, **context: Any) -> str:
    """A page as text. A name that the template wants and the context lacks is an error."""
    return _environment().get_template(template).render(context)


def write(path: Path, template: str, **context: Any) -> None:
    """Write a page whole, or not at all; its folder is made. Raises `OSError`."""
    content = render(template, **context).encode("utf-8", errors="backslashreplace")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["embedded"] = embedded
    environment.globals["asset"] = asset
    return environment


def asset(name: str) -> Markup:
    """A style sheet or script of the templates' folder, as it is."""
    return Markup((TEMPLATES / name).read_text())


def embedded(data: Any) -> Markup:
    """Data as JSON that can stand in a script element, whatever its strings hold."""
    return htmlsafe_json_dumps(plain(data), separators=(",", ":"), allow_nan=False)


def plain(data: Any) -> Any:
    """Data as JSON knows it: no NaN or infinity (null), no numpy, paths as text."""
    if dataclasses.is_dataclass(data) and not isinstance(data, type):
        return plain({field.name: getattr(data, field.name) for field in dataclasses.fields(data)})
    if isinstance(data, Mapping):
        return {str(key): plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple | set | frozenset):
        return [plain(value) for value in data]
    if isinstance(data, np.ndarray | np.generic):
        return plain(data.tolist())
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    return data if isinstance(data, str | int | None) else str(data)
