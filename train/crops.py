"""Where in a recording its bird is, as a round's teacher hears it.

A recording's label says that the bird is somewhere in it. A crop in which it is silent teaches its
background as the bird, so students may begin their crops where the teacher hears it. The probabilities
are one parquet file a round, a row for each place where a crop can begin, with their provenance.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tqdm import tqdm

from birdkit.contract import Contract
from birdkit.engine import batches
from birdkit.ensemble import probabilities
from train.competition import Recording
from train.data import Starts
from train.pseudo import BLOCK_FILES, Blocks, Teacher, is_of, save
from train.settings import Pseudo
from train.waveforms import Waveforms, to_float

NAME = "crops.parquet"
VERSION = 1
STARTS_A_CHUNK = 4
BATCH = 12  # chunks that a teacher hears at once

Heard = NDArray[Any]  # (starts, 2), float64: sample, probability of the label there


def starts(n_samples: int, contract: Contract) -> NDArray[np.int64]:
    """Where the teacher listens, evenly from start to end; nowhere where one chunk holds all."""
    last = n_samples - contract.chunk_samples
    if last <= 0:
        return np.zeros(0, dtype=np.int64)
    n = math.ceil(last / (contract.chunk_samples / STARTS_A_CHUNK)) + 1
    return np.linspace(0, last, n).astype(np.int64)


def made_by(
    teacher: Teacher, recordings: Sequence[Recording], first_s: float, pseudo: Pseudo
) -> dict[str, Any]:
    """What the probabilities depend on."""
    listed = [f"{r.path.name} {r.path.stat().st_size} {r.primary}" for r in recordings]
    return {
        "version": VERSION,
        "teachers": dict(teacher.hashes),
        "output": pseudo.output,
        "first_s": first_s,
        "recordings": hashlib.sha256("\n".join(listed).encode()).hexdigest(),
    }


def listen(
    teacher: Teacher,
    recordings: Sequence[Recording],
    waveforms: Waveforms,
    first_s: float,
    pseudo: Pseudo,
    folder: Path,
) -> Path:
    """Have the teacher listen for each recording's primary label; returns the parquet's path.

    At once where the same was done before. In blocks that are kept, so that a run that was killed
    goes on.
    """
    path = folder / NAME
    wanted = made_by(teacher, recordings, first_s, pseudo)
    if is_of(path, wanted):
        return path
    folder.mkdir(parents=True, exist_ok=True)
    blocks = Blocks.of(folder, "crops", wanted)
    found, _ = blocks.load()
    block: list[Heard | None] = []
    with tqdm(
        total=len(recordings), initial=len(found), desc="crops", leave=False, disable=None
    ) as bar:
        for recording in recordings[len(found) :]:
            block.append(_heard(teacher, recording, waveforms(recording.path, first_s), pseudo.output))
            bar.update(1)
            if len(block) == BLOCK_FILES:
                blocks.save(len(found), block, {})
                found += block
                block = []
    _write(path, recordings, [*found, *block], {"made_by": wanted})
    for kept in folder.glob("crops-*.npz"):
        kept.unlink()
    return path


def _heard(
    teacher: Teacher, recording: Recording, waveform: NDArray[np.int16], output: str
) -> Heard | None:
    """By the mean of the teacher's models; None where a crop can begin in one place alone."""
    contract = teacher.contract
    at = starts(waveform.size, contract)
    if not at.size:
        return None
    chunks = np.stack([to_float(waveform[a : a + contract.chunk_samples]) for a in at])
    column = contract.classes.index(recording.primary)
    told = [
        np.concatenate(
            [probabilities(engine(part), output)[:, column] for part in batches(chunks, BATCH)]
        )
        for engine in teacher.engines.values()
    ]
    return np.stack([at, np.mean(told, axis=0, dtype=np.float64)], axis=1)


def _write(
    path: Path,
    recordings: Sequence[Recording],
    found: Sequence[Heard | None],
    facts: Mapping[str, Any],
) -> None:
    counts = [0 if each is None else len(each) for each in found]
    rows = np.concatenate([np.zeros((0, 2)), *(each for each in found if each is not None)])
    names = np.repeat([recording.path.name for recording in recordings], counts)
    table = {
        "number": pa.array(np.repeat(np.arange(len(recordings)), counts), pa.int32()),
        "recording": pa.array(names).dictionary_encode(),
        "sample": pa.array(rows[:, 0].astype(np.int64)),
        "probability": pa.array(rows[:, 1].astype(np.float32)),
    }
    save(path, pa.table(table), facts)


def to_draw_from(path: Path, recordings: Sequence[Recording], pseudo: Pseudo) -> dict[Path, Starts]:
    """Recording → where its crops begin, by what the teacher gives its label there over its highest."""
    table = pq.read_table(path)
    number = table["number"].to_numpy()
    at, heard = table["sample"].to_numpy(), table["probability"].to_numpy().astype(np.float64)
    borders = np.flatnonzero(np.diff(number)) + 1
    found = {}
    for rows in np.split(np.arange(len(number)), borders) if len(number) else []:
        highest = heard[rows].max()
        share = heard[rows] / highest if highest > 0.0 else np.ones(len(rows))
        chance = np.where(share >= pseudo.crop_above, share, 0.0)
        found[recordings[number[rows[0]]].path] = Starts(at[rows], chance / chance.sum())
    return found


def n_starts(recordings: Sequence[Recording], first_s: float, contract: Contract) -> int:
    """Of how many chunks a teacher listens to, by the headers' lengths."""
    lengths = (int(min(r.duration_s, first_s) * contract.sample_rate) for r in recordings)
    return sum(len(starts(length, contract)) for length in lengths)


def line(found: Mapping[Path, Starts], path: Path) -> str:
    """What a round's crops are, for people."""
    left_out = [float(np.mean(each.chance == 0.0)) for each in found.values()]
    return (
        f"{path}: crops of {len(found)} recordings begin where their label is heard, "
        f"{np.mean(left_out) if left_out else 0.0:.0%} of each is left out"
    )
