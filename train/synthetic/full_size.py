"""A competition of BirdCLEF+ 2025's size: names, tables and headers as there, and short noise."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from birdkit.errors import UserError
from train.config import provenance
from train.data.progress import in_threads
from train.synthetic.competition import MADE_BY_NAME, is_finished, write_ogg

VERSION = 1  # raise it when the same size gives other data
N_RECORDINGS, N_SOUNDSCAPES, N_LABELLED = 28_564, 9_726, 66  # of 2025; 66 were labelled in 2026
GROUPS = {"Aves": 146, "Amphibia": 34, "Insecta": 17, "Mammalia": 9}
N_AUTHORS, N_SITES, N_MINUTES = 3_000, 40, 12
RATE_HZ = 4_000  # so that a minute takes little to decode, and its cache little room
SHORTEST_S, TYPICAL_S, LONGEST_S = 0.54, 1.5, 20.0
ROWS_EACH = 2  # each label row is listed so often, as in 2026


@dataclass(frozen=True)
class Size:
    """How many recordings and soundscapes there are."""

    recordings: int
    soundscapes: int

    @classmethod
    def of(cls, share: float) -> Size:
        """That share of the real competition, with two recordings of each class at least."""
        n_least = 2 * sum(GROUPS.values())
        return cls(max(n_least, round(share * N_RECORDINGS)), max(2, round(share * N_SOUNDSCAPES)))


def make_full_size(out: Path, share: float, seed: int = 2025) -> Path:
    """Write the competition to `out`; a finished one is kept, and an unfinished one is written anew.

    Raises `UserError` where `out` holds anything else.
    """
    made_by = {"maker": "full size", "version": VERSION, "seed": seed, "share": float(share)}
    if is_finished(out, made_by):
        return out
    if (out / MADE_BY_NAME).exists() or (out.exists() and not (out / "taxonomy.csv").exists()):
        raise UserError(f"{out}: holds something else; remove it, or name another folder")
    size = Size.of(share)
    out.mkdir(parents=True, exist_ok=True)
    taxonomy = _taxonomy()
    taxonomy.to_csv(out / "taxonomy.csv", index=False)
    _write_recordings(out, size, taxonomy, seed)
    _write_soundscapes(out, size, taxonomy["primary_label"].tolist(), seed)
    (out / "test_soundscapes").mkdir(exist_ok=True)
    (out / MADE_BY_NAME).write_text(json.dumps(provenance.as_json(made_by)))
    return out


def _taxonomy() -> pd.DataFrame:
    """206 classes: eBird codes for birds, and numbers of iNaturalist for all others."""
    groups = [group for group, count in GROUPS.items() for _ in range(count)]
    rows = []
    for index, group in enumerate(groups):
        label = f"bird{index:03d}" if group == "Aves" else str(20_000 + 137 * index)
        rows.append((label, 20_000 + 137 * index, f"Genus species{index}", f"Animal {index}", group))
    columns = ["primary_label", "inat_taxon_id", "scientific_name", "common_name", "class_name"]
    return pd.DataFrame(rows, columns=columns)


def _sound(n_samples: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Noise whose level changes, so that no two are alike."""
    level = np.interp(np.linspace(0, 1, n_samples), np.linspace(0, 1, 16), rng.uniform(0.02, 1, 16))
    return (level * rng.standard_normal(n_samples)).astype(np.float32)


def _write_recordings(out: Path, size: Size, taxonomy: pd.DataFrame, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, n = taxonomy["primary_label"].to_numpy(), size.recordings
    # Some classes have hundreds of recordings and some two; most authors have few, and some have many.
    weights = 1.0 / np.arange(1, len(labels) + 1)
    every_two = np.repeat(np.arange(len(labels)), 2)
    primary = np.r_[every_two, rng.choice(len(labels), n - len(every_two), p=weights / weights.sum())]
    authors = np.minimum(rng.zipf(1.3, n), N_AUTHORS)
    lengths_s = np.clip(rng.lognormal(np.log(TYPICAL_S), 0.7, n), SHORTEST_S, LONGEST_S)
    second = rng.integers(0, len(labels), n)

    def write(index: int) -> dict[str, object]:
        label, own = str(labels[primary[index]]), np.random.default_rng([seed, index])
        source = ("XC", "iNat", "CSA")[index % 3]
        filename = f"{label}/{source}{100_000 + index}.ogg"
        path = out / "train_audio" / filename
        if not path.exists():
            sound = _sound(round(float(lengths_s[index]) * RATE_HZ), own)
            write_ogg(path, sound, RATE_HZ)
        heard = index % 5 == 0 and second[index] != primary[index]
        others = [str(labels[second[index]])] if heard else [""]
        names = taxonomy.iloc[primary[index]]
        return {
            "primary_label": label,
            "secondary_labels": str(others),
            "type": "['song']",
            "filename": filename,
            "collection": source,
            "rating": 4.0,
            "url": "",
            "latitude": 6.1,
            "longitude": -73.9,
            "scientific_name": names["scientific_name"],
            "common_name": names["common_name"],
            "author": f"Recordist {authors[index]}",
            "license": "CC0",
        }

    for label in labels:
        (out / "train_audio" / label).mkdir(parents=True, exist_ok=True)
    rows = in_threads(write, range(n), "recordings")
    pd.DataFrame(rows).to_csv(out / "train.csv", index=False)


def _stems(count: int) -> Iterator[str]:
    """`[site]_[date]_[local time]` of each soundscape."""
    for index in range(count):
        when = datetime(2025, 1, 1) + timedelta(minutes=53 * index)
        yield f"H{index % N_SITES:02d}_{when:%Y%m%d_%H%M%S}"


def _clock(seconds: int) -> str:
    return f"00:{seconds // 60:02d}:{seconds % 60:02d}"


def _write_soundscapes(out: Path, size: Size, labels: list[str], seed: int) -> None:
    """Soundscapes that are links to a few minutes of noise, since nothing compares their content."""
    folder, minutes = out / "train_soundscapes", out / ".minutes"
    for path in (folder, minutes):
        path.mkdir(exist_ok=True)
    for index in range(N_MINUTES):
        sound = _sound(60 * RATE_HZ, np.random.default_rng([seed, 1, index]))
        write_ogg(minutes / f"{index}.ogg", sound, RATE_HZ)
    stems = list(_stems(size.soundscapes))
    for index, stem in enumerate(stems):
        path = folder / f"{stem}.ogg"
        path.unlink(missing_ok=True)
        os.link(minutes / f"{index % N_MINUTES}.ogg", path)
    rng = np.random.default_rng([seed, 2])
    rows = [
        (f"{stem}.ogg", _clock(5 * k), _clock(5 * (k + 1)), named)
        for stem in stems[: min(N_LABELLED, len(stems) // 2)]
        for k in range(12)
        for named in [";".join(rng.choice(labels, 2, replace=False))]
        for _ in range(ROWS_EACH)
    ]
    table = pd.DataFrame(rows, columns=["filename", "start", "end", "primary_label"])
    table.to_csv(out / "train_soundscapes_labels.csv", index=False)
    uniform = ["soundscape_1_5", *[1 / len(labels)] * len(labels)]
    sample = pd.DataFrame([uniform], columns=["row_id", *labels])
    sample.to_csv(out / "sample_submission.csv", index=False)
