"""Puts the audit of a folder into one page, from which its recordings play where they lie."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from birdkit.errors import one_line
from train.pages import page
from train.pages.audit import figures, sound, world
from train.pages.audit.findings import Audit, audit, speech_s
from train.pages.audit.folder import read

TEMPLATE = "audit.html.j2"


def write(out: Path, root: Path, cache: Path | None = None, *, calls: bool = False) -> Audit:
    """Write the page. Raises `UserError` for a folder without recordings, and `OSError`.

    With `calls` easybird listens for birds.
    """
    done = audit(read(root), cache, calls=calls)
    rows = done.rows
    places = world.draw(
        rows["latitude"].to_numpy(float), rows["longitude"].to_numpy(float), rows["class"].tolist()
    )
    formats = figures.formats(rows)
    groups = rows["class"].map(done.folder.groups).fillna("")
    page.write(
        out,
        TEMPLATE,
        title=f"Data audit of {one_line(root.resolve().name)}",
        audit=done,
        headline=figures.headline(done),
        classes=figures.by_class(done),
        by_group=figures.counted(done, "Groups", "group", groups),
        long_tail=figures.long_tail(done),
        colours=figures.group_colours(done.folder),
        durations=figures.durations(done),
        duration_line=figures.duration_line(done),
        formats=figures.counted(done, "Rates, channels and formats", "format", formats),
        map=places,
        n_placed=sum(dot >= 0 for dot in places.dots) if places else 0,
        authors=figures.counted(done, "Authors", "author", rows["author"]),
        licences=figures.counted(done, "Licences", "licence", rows["license"]),
        no_call=figures.no_call_line(root, done.folder.classes),
        first_s=sound.FIRST_S,
        data=_data(done, formats, places, out),
    )
    return done


def _data(done: Audit, formats: pd.Series, places: world.Map | None, out: Path) -> dict[str, Any]:
    """What the page's script lists: a value a recording and column; texts as indices of a list."""
    rows, audio = done.rows, done.folder.audio.resolve()
    names = [os.path.relpath(path, done.folder.audio) for path in rows["path"]]
    spoken = ((row, stretches) for row, stretches in enumerate(rows["speech"]) if stretches)
    return {
        "audio": _url(os.path.relpath(audio, out.resolve().parent)),
        "names": names,
        "urls": {row: _url(name) for row, name in enumerate(names) if not _is_unicode(name)},
        "duration": _rounded(rows["duration_s"], 1),
        "silent": _rounded(100 * rows["silent"], 1),
        "clipped": _rounded(100 * rows["clipped"], 3),
        "peak": _rounded(20 * np.log10(rows["peak"].clip(lower=1e-5)), 1),
        "spoken": _rounded(speech_s(rows), 1),
        "noCall": _rounded(100 * rows["no_call"], 0) if rows["no_call"].notna().any() else None,
        "speech": {row: np.round(stretches, 1) for row, stretches in spoken},
        "faults": {row: why for row, why in enumerate(rows["fault"]) if isinstance(why, str)},
        "class": _indexed(rows["class"]),
        "name": _indexed(rows["common_name"]),
        "author": _indexed(rows["author"]),
        "licence": _indexed(rows["license"]),
        "format": _indexed(formats),
        "place": {"of": places.dots, "texts": places.labels} if places else None,
        "groups": done.groups,
        "findings": {finding.name: finding.rows for finding in done.findings},
    }


def _rounded(values: pd.Series, digits: int) -> NDArray[np.float64]:
    return np.round(values.to_numpy(np.float64), digits)


def _indexed(values: pd.Series) -> dict[str, Any]:
    """The different texts, and which of them each recording has."""
    numbers, texts = pd.factorize(values)
    return {"of": numbers, "texts": list(texts)}


def _url(path: str) -> str:
    """A path as a relative URL, whatever bytes its name has."""
    return quote(os.fsencode(path))


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
