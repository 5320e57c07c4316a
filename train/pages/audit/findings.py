"""What is found in which recordings: faults, duplicates, speech, silence, clipping."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from birdkit.files import sha256
from train.data import duplicates
from train.data.competition import Recording
from train.data.progress import bar
from train.pages.audit import no_call, sound
from train.pages.audit.folder import Folder
from train.pages.audit.sound import Heard, Listener

# Shares from which a recording is named, and seconds up to which.
SILENT, CLIPPED, SHORT_S, NO_CALL = 0.1, 1e-4, 1.0, 0.5


@dataclass(frozen=True)
class Finding:
    """The rows of a folder that something is found in, the worst first."""

    name: str
    title: str
    rule: str  # what counts
    rows: list[int]


@dataclass(frozen=True)
class Audit:
    """A folder, what is heard in its recordings, and what is found.

    `rows` are those of the folder, with the columns of `Heard`; the fault is that of either.
    `groups` are rows that hold the same sound.
    """

    folder: Folder
    rows: pd.DataFrame
    groups: list[list[int]]
    findings: list[Finding]


def audit(folder: Folder, cache: Path | None = None, *, calls: bool = False) -> Audit:
    """Hear every recording once, or with `calls` again for the birds that call in it.

    Raises `UserError` for a cache folder that is none, and where easybird is not there for `calls`.
    """
    listener = Listener(cache)
    detector = no_call.CallDetector() if calls else None  # complains before anything is heard
    sources = _sources(folder.rows)
    heard = listener.listen([r.path for r in sources], set(duplicates.candidates(sources)))
    decoded = [recording for recording in sources if not heard[recording.path].fault]
    found = duplicates.find_duplicates(decoded, listener.waveform, sound.RATE_HZ, listener.prints)
    rows = _with_sound(folder.rows, heard)
    without: dict[Path, float] = {}
    if detector:
        paths = [recording.path for recording in decoded]
        without = no_call.shares(detector, paths, listener.waveform, sound.RATE_HZ, cache)
    rows["no_call"] = rows["path"].map(without).astype(float)
    groups = _groups(rows, [{recording.path for recording in group} for group in found])
    return Audit(folder, rows, groups, _findings(rows, groups))


def _sources(rows: pd.DataFrame) -> list[Recording]:
    """A recording for each file that has a good header.

    Without an author, only files with the same bytes can be found to be duplicates: one could compare
    all recordings of one length, but in many collections that is all of them.
    """
    files = rows[rows["fault"].isna()].drop_duplicates("path")
    unsigned = [path for path, author in zip(files["path"], files["author"], strict=True) if not author]
    sizes = Counter(path.stat().st_size for path in unsigned)
    alike = [path for path in unsigned if sizes[path.stat().st_size] > 1]
    digests = {path: sha256(path) for path in tqdm(alike, **bar("comparing files"))}
    cells = files[["path", "class", "author", "duration_s"]].itertuples(index=False, name=None)
    return [
        Recording(path, name, (), author or digests.get(path, str(path)), duration_s)
        for path, name, author, duration_s in cells
    ]


def _with_sound(rows: pd.DataFrame, heard: Mapping[Path, Heard]) -> pd.DataFrame:
    """The rows with what is heard in them."""
    of_rows = pd.DataFrame([heard.get(path, Heard()) for path in rows["path"]], index=rows.index)
    fault = rows["fault"].where(rows["fault"].notna(), of_rows["fault"])
    return rows.drop(columns="fault").join(of_rows.drop(columns="fault")).assign(fault=fault)


def _groups(rows: pd.DataFrame, found: Sequence[set[Path]]) -> list[list[int]]:
    """Rows of one sound: files that are alike, and rows that name one file."""
    number = {path: k for k, paths in enumerate(found) for path in paths}
    by_sound: defaultdict[Any, list[int]] = defaultdict(list)
    for row, path in enumerate(rows["path"]):
        by_sound[number.get(path, path)].append(row)
    return [group for group in by_sound.values() if len(group) > 1]


def speech_s(rows: pd.DataFrame) -> pd.Series:
    """Seconds of speech in each recording."""
    return rows["speech"].map(lambda stretches: sum(end - start for start, end in stretches))


def _findings(rows: pd.DataFrame, groups: Sequence[Sequence[int]]) -> list[Finding]:
    spoken = speech_s(rows)
    first_s = f"the first {sound.FIRST_S:g} s"
    return [
        Finding(
            "fault",
            "Can't be read",
            "absent, without samples, or can't be decoded; of a damaged file the rest is used",
            rows.index[rows["fault"].notna()].tolist(),
        ),
        Finding(
            "duplicate",
            "Duplicates",
            "one author, one length and one waveform, whatever codec and gain; without an author, the "
            "same bytes; or one file in several rows",
            [row for group in groups for row in group],
        ),
        Finding(
            "speech",
            "Speech",
            f"Silero VAD hears speech in {first_s}; it takes some song for speech, so listen",
            _worst(spoken, spoken > 0),
        ),
        *_no_call(rows["no_call"], first_s),
        Finding(
            "silence",
            "Silence",
            f"{SILENT:.0%} or more of {first_s} are below −{-sound.SILENT_DB:g} dBFS",
            _worst(rows["silent"], rows["silent"] >= SILENT),
        ),
        Finding(
            "clipping",
            "Clipping",
            f"{CLIPPED:.2%} or more of the samples of {first_s} are at full scale",
            _worst(rows["clipped"], rows["clipped"] >= CLIPPED),
        ),
        Finding(
            "short",
            "Very short",
            f"lasts less than {SHORT_S:g} s",
            _worst(-rows["duration_s"], rows["duration_s"] < SHORT_S),
        ),
    ]


def _no_call(shares: pd.Series, first_s: str) -> list[Finding]:
    """The recordings without a bird, where that was asked for."""
    if not shares.notna().any():
        return []
    rule = (
        f"easybird hears none in {NO_CALL:.0%} or more of the windows of {first_s}; of five pairs of a "
        "window with a bird and one without it orders four, so listen"
    )
    return [Finding("no-call", "No bird", rule, _worst(shares, shares >= NO_CALL))]


def _worst(values: pd.Series, found: pd.Series) -> list[int]:
    """The rows that are found, the largest value first."""
    return values[found].sort_values(ascending=False, kind="stable").index.tolist()
