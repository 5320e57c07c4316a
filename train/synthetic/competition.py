"""A small competition in Kaggle's BirdCLEF layout, with a hidden set in `validation/`."""

from __future__ import annotations

import json
import tempfile
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile as sf
from numpy.typing import NDArray

from birdkit.errors import UserError
from birdkit.grid import row_ids
from train.config import provenance
from train.data.progress import in_threads
from train.synthetic.birdsong import (
    AUTHOR_RATES_HZ,
    LABELS,
    N_WINDOWS,
    RATE_HZ,
    TAXONOMY,
    WINDOW_S,
    Cells,
    Sound,
    casts,
    recording,
    soundscape,
)

VERSION = 2  # raise it when the same seed gives other data
MADE_BY_NAME = "made_by.json"
RECORDING, SOUNDSCAPE, HIDDEN, SITE = range(4)  # kinds of random stream: [seed, kind, index]


def write_ogg(path: Path, sound: Sound, rate_hz: int) -> None:
    """Write Ogg Vorbis in blocks, because libsndfile can crash on a long buffer."""
    sound = sound * min(1.0, 0.9 / np.abs(sound).max())
    n_block = rate_hz // 2
    channels = 1 if sound.ndim == 1 else sound.shape[1]
    with sf.SoundFile(path, "w", rate_hz, channels, format="OGG", subtype="VORBIS") as file:
        for start in range(0, len(sound), n_block):
            file.write(sound[start : start + n_block])


def write_recordings(out: Path, n_each: int, seed: int) -> None:
    def write(index: int) -> dict[str, object]:
        species, k = divmod(index, n_each)
        label, author = LABELS[species], (3 * species + k) % len(AUTHOR_RATES_HZ)
        catalogue = 9_000_000 + 1000 * species + k
        rng = np.random.default_rng([seed, RECORDING, catalogue])
        sound, others = recording(label, author, rng)
        filename = f"{label}/XC{catalogue}.ogg"
        write_ogg(out / "train_audio" / filename, sound, AUTHOR_RATES_HZ[author])
        names = TAXONOMY.loc[label]
        return {
            "primary_label": label,
            "secondary_labels": str(others or [""]),
            "type": "['song']" if names.class_name == "Aves" else "['advertisement call']",
            "filename": filename,
            "collection": "XC",
            "rating": float(rng.integers(4, 11)) / 2,
            "url": "",
            "latitude": round(rng.uniform(17.9, 18.5), 4),
            "longitude": round(rng.uniform(-67.2, -65.6), 4),
            "scientific_name": names.scientific_name,
            "common_name": names.common_name,
            "author": f"Demo Recordist {author}",
            "license": "CC0",
        }

    for label in LABELS:
        (out / "train_audio" / label).mkdir(parents=True)
    rows = in_threads(write, range(n_each * len(LABELS)), "recordings")
    pd.DataFrame(rows).to_csv(out / "train.csv", index=False)


def write_soundscapes(
    folder: Path, n_files: int, seed: int, kind: int
) -> tuple[list[str], Cells, Cells]:
    """File stems, truth and mask (files, windows, classes). Hidden soundscapes have other sites."""
    prefix, n_sites = ("S", 4) if kind == SOUNDSCAPE else ("V", 3)

    every_cast = list(casts(n_files, np.random.default_rng([seed, kind])))

    def write(k: int) -> tuple[str, Cells, Cells]:
        place = k % n_sites
        site = np.random.default_rng([seed, SITE, kind, place])
        sound, truth, mask = soundscape(every_cast[k], site, np.random.default_rng([seed, kind, k]))
        when = datetime(2025, 5, 1, 4) + timedelta(days=k, minutes=97 * k)
        stem = f"{prefix}{place + 1:02d}_{when:%Y%m%d_%H%M%S}"
        write_ogg(folder / f"{stem}.ogg", sound, RATE_HZ)
        return stem, truth, mask

    folder.mkdir(parents=True)
    stems, truths, masks = zip(*in_threads(write, range(n_files), "soundscapes"), strict=True)
    return list(stems), np.stack(truths), np.stack(masks)


def per_window(stems: list[str], cells: NDArray[np.generic]) -> pd.DataFrame:
    """Cells (files, windows, classes) as a table with the row id and one column a class."""
    table = pd.DataFrame(cells.reshape(-1, len(LABELS)), columns=LABELS)
    ids = [row_id for stem in stems for row_id in row_ids(stem, N_WINDOWS, WINDOW_S)]
    table.insert(0, "row_id", ids)
    return table


def soundscape_labels(stems: list[str], truth: Cells) -> pd.DataFrame:
    """The label table as in 2026, with a row for each window and every row listed twice."""

    def clock(end: int) -> str:
        return f"{datetime.min + timedelta(seconds=end * WINDOW_S):%H:%M:%S}"

    rows = [
        (f"{stem}.ogg", clock(k), clock(k + 1), ";".join(np.array(LABELS)[cells > 0]))
        for stem, windows in zip(stems, truth, strict=True)
        for k, cells in enumerate(windows)
    ]
    table = pd.DataFrame(rows, columns=["filename", "start", "end", "primary_label"])
    return table.loc[table.index.repeat(2)]


def write_hidden(folder: Path, n_files: int, seed: int) -> None:
    stems, truth, mask = write_soundscapes(folder / "soundscapes", n_files, seed, HIDDEN)
    per_window(stems, truth).to_csv(folder / "truth.csv", index=False)
    per_window(stems, mask).to_csv(folder / "mask.csv", index=False)


def write_all(out: Path, seed: int, scale: float) -> None:
    def count(full: int, least: int) -> int:
        return max(least, round(scale * full))

    write_recordings(out, count(16, 4), seed)
    stems, truth, _ = write_soundscapes(out / "train_soundscapes", count(72, 6), seed, SOUNDSCAPE)
    labels = soundscape_labels(stems[: count(8, 3)], truth[: count(8, 3)])
    labels.to_csv(out / "train_soundscapes_labels.csv", index=False)

    write_hidden(out / "validation", count(16, 3), seed)

    TAXONOMY.to_csv(out / "taxonomy.csv")
    uniform = np.full((N_WINDOWS, len(LABELS)), 1 / len(LABELS))
    sample = per_window(["soundscape_0000001"], uniform).head(3)
    sample.to_csv(out / "sample_submission.csv", index=False)
    (out / "test_soundscapes").mkdir()
    (out / "test_soundscapes" / "readme.txt").write_text(
        "The test recordings are here only when a submission is scored.\n"
    )


def is_finished(out: Path, made_by: provenance.MadeBy) -> bool:
    try:
        return provenance.can_be_kept(made_by, json.loads((out / MADE_BY_NAME).read_text()))
    except (FileNotFoundError, NotADirectoryError, ValueError, AttributeError):
        return False


def make_competition(out: Path, *, seed: int = 2025, scale: float = 1.0) -> Path:
    """Write the competition to `out` in one step; a finished one is kept.

    `scale` multiplies the numbers of recordings and soundscapes, down to a few of each. Raises
    UserError where `out` holds anything else, which is never changed.
    """
    made_by = {"maker": "train/demo.py", "version": VERSION, "seed": seed, "scale": float(scale)}
    if is_finished(out, made_by):
        return out
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(
            f"{out} is not the demo of seed {seed}, scale {scale}, version {VERSION}: "
            "remove it or name another folder"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        draft = Path(scratch) / "draft"
        draft.mkdir()
        write_all(draft, seed, scale)
        (draft / MADE_BY_NAME).write_text(json.dumps(made_by))
        try:
            draft.rename(out)
        except OSError:
            if not is_finished(out, made_by):  # else another process was first
                raise
    return out
