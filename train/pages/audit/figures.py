"""Figures of an audit as charts and tables: classes, durations, formats, authors, licences, labels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import Markup

from birdkit.errors import UserError
from birdkit.grid import WINDOW_S
from train.data.soundscapes import Labels, read_soundscapes, window_truth
from train.pages import svg
from train.pages.audit.findings import Audit
from train.pages.audit.folder import Folder
from train.pages.tables import Column, Table

MOST_ROWS = 1000  # of a table on the page
DURATIONS_S = (0, 1, 5, 10, 20, 30, 60, 120, 300, 600, np.inf)
COUNTED = (Column("recordings", ",d"), Column("share", ".1%"), Column("minutes", ",.1f"))


def headline(audit: Audit) -> list[tuple[str, str]]:
    """The figures on top of the page."""
    rows, folder = audit.rows, audit.folder
    hours = rows.drop_duplicates("path")["duration_s"].sum() / 3600
    figures = [
        (f"{len(rows):,}", "recordings" if len(rows) > 1 else "recording"),
        (f"{len(folder.classes):,}", "classes" if len(folder.classes) > 1 else "class"),
        (f"{hours:,.1f} h" if hours >= 1 else f"{60 * hours:.1f} min", "of sound, by the headers"),
    ]
    if n_authors := rows.loc[rows["author"] != "", "author"].nunique():
        figures.append((f"{n_authors:,}", "authors" if n_authors > 1 else "author"))
    return figures


def by_class(audit: Audit) -> Table:
    """A row a class; its findings are the recordings that any is made in."""
    rows, folder = audit.rows, audit.folder
    found = set().union(*(finding.rows for finding in audit.findings))
    of_class = rows.assign(found=rows.index.isin(found)).groupby("class")
    table = of_class.agg(
        name=("common_name", "first"),
        scientific=("scientific_name", "first"),
        n=("path", "size"),
        seconds=("duration_s", "sum"),
        authors=("author", lambda authors: authors[authors != ""].nunique()),
        found=("found", "sum"),
    ).reindex(list(folder.classes))
    filled = table.fillna(
        {"name": "", "scientific": "", "n": 0, "seconds": 0, "authors": 0, "found": 0}
    )
    ordered = filled.sort_values("n", ascending=False, kind="stable")
    cells = [
        (name, common or sci, folder.groups.get(name, ""), int(n), s / 60, int(authors), int(found))
        for name, common, sci, n, s, authors, found in ordered.itertuples(name=None)
    ]
    columns = [Column("class"), Column("name"), Column("group"), Column("recordings", ",d")]
    columns += [Column("minutes", ",.1f"), Column("authors", ",d"), Column("with findings", ",d")]
    return limited("Classes", columns, cells)


def limited(title: str, columns: Sequence[Column], rows: Sequence[Sequence[object]]) -> Table:
    """A table of the first rows, with a line that says so where there are more."""
    more = len(rows) - MOST_ROWS
    note = f"The first {MOST_ROWS:,} of {len(rows):,}." if more > 0 else ""
    return Table(title, columns, rows[:MOST_ROWS], note)


def counted(audit: Audit, title: str, named: str, values: pd.Series) -> Table:
    """Recordings and minutes by a value of each; "" is none and left out."""
    rows = audit.rows.assign(value=values)
    table = rows[rows["value"] != ""].groupby("value")["duration_s"].agg(["size", "sum"])
    table = table.sort_values("size", ascending=False, kind="stable")
    cells = [(name, int(n), n / len(rows), s / 60) for name, n, s in table.itertuples(name=None)]
    return limited(title, [Column(named), *COUNTED], cells)


def formats(rows: pd.DataFrame) -> pd.Series:
    """Rate, channels and format of each recording; "" of one whose header can't be read."""
    kinds = {1: "mono", 2: "stereo"}
    texts = [
        f"{rate / 1000:g} kHz, {kinds.get(channels, f'{channels} channels')}, {kind}" if rate else ""
        for rate, channels, kind in zip(rows["rate_hz"], rows["channels"], rows["format"], strict=True)
    ]
    return pd.Series(texts, index=rows.index)


def long_tail(audit: Audit) -> Markup | None:
    """Recordings by class, from the most to the fewest; None for a single class."""
    counts = audit.rows["class"].value_counts()
    if len(counts) < 2:
        return None
    x = svg.Axis("rank of the class", 1.0, float(len(counts)), log=len(counts) > 100)
    high = float(counts.max())
    y = svg.Axis("recordings", 0.8, max(10.0, high * 1.2), log=True)
    chart = svg.Chart("Recordings by class, from the most to the fewest", x, y)
    shown = group_colours(audit.folder)
    for rank, (name, count) in enumerate(counts.items(), start=1):
        colour = shown.get(audit.folder.groups.get(str(name), ""), "s0")
        tip = f"{name}: {count} recording{'s' if count > 1 else ''}"
        chart.dot((rank, float(count)), colour, tip)
    return chart.markup()


def group_colours(folder: Folder) -> dict[str, str]:
    """Group of the taxonomy → its colour."""
    return {name: svg.colour(k) for k, name in enumerate(sorted(set(folder.groups.values())))}


def durations(audit: Audit) -> Markup:
    """Recordings by duration, as bars."""
    lengths_s = audit.rows["duration_s"].dropna().to_numpy()
    counts, _ = np.histogram(lengths_s, DURATIONS_S)
    names = [f"{low:g} to {high:g} s" for low, high in pairwise(DURATIONS_S)]
    names[-1] = f"{DURATIONS_S[-2]:g} s and more"
    entries = [
        svg.Bar(name, float(n), f"{n:,}", f"{n / max(1, lengths_s.size):.1%} of the recordings")
        for name, n in zip(names, counts.tolist(), strict=True)
    ]
    return svg.bars("Recordings by duration", entries)


def duration_line(audit: Audit) -> str:
    lengths_s = audit.rows["duration_s"].dropna()
    if lengths_s.empty:
        return "No header can be read."
    low, median, high = lengths_s.quantile([0, 0.5, 1])
    return f"From {low:.1f} s to {high:,.1f} s; half last {median:.1f} s or less."


def no_call_line(root: Path, classes: Sequence[str]) -> str:
    """The share of labelled windows without a call, or why there is none."""
    try:
        soundscapes, left_out = read_soundscapes(root, Labels(frozenset(classes), None), skip_bad=True)
    except UserError as error:
        return f"The labels of soundscapes can't be read: {error}."
    if not soundscapes:
        return "No soundscape is labelled here, so that nothing tells it."
    truths = [window_truth(soundscape, classes, WINDOW_S) for soundscape in soundscapes]
    calls = np.concatenate([truth[known].any(axis=1) for truth, known in truths])
    if not calls.size:
        return f"No window of {WINDOW_S:g} s is labelled as a whole."
    n_silent = int((~calls).sum())
    share = f"{n_silent / calls.size:.1%}"
    line = f"{n_silent:,} of {calls.size:,} labelled windows of {WINDOW_S:g} s ({share})"
    line += f" in {len(soundscapes):,} soundscapes have no call of a class."
    return line + (f" {len(left_out)} soundscapes or labels are left out." if left_out else "")
