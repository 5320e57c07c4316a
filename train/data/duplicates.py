"""Finds recordings uploaded twice: one author, one length, one waveform, whatever codec and gain."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import scipy.fft
import scipy.signal
from librosa.filters import mel as librosa_mel
from numpy.typing import NDArray
from scipy.cluster.hierarchy import DisjointSet

from train.data.competition import Recording
from train.data.progress import in_threads

VERSION = 2  # raise it when the same recordings give other groups
SAME_LENGTH_S = 0.05
BAND_HZ = (300.0, 8000.0)  # excludes rumble, hum and the highs that codecs drop
N_STRETCHES, N_BANDS, N_FFT = 24, 24, 1024
FLOOR = 0.01  # share of the loudest cell's power; codecs alter what lies below it
LAG_S = 0.1  # largest delay that a codec may add
# Measured on birdclef-mini, on different recordings of one author and species, and on one re-encoded
# (Vorbis, MP3, 22 to 44 kHz, gains down to -34 dB): fingerprints to 0.64, from 0.87 on; waveforms to
# 0.10, from 0.52 on (from 0.82, but for -34 dB in Vorbis' lowest quality). Fingerprints only select
# what to compare: two clips with a similar call at the same place can share one.
LIKE, SAME = 0.7, 0.4

Group = tuple[Recording, ...]
Reader = Callable[[Path], NDArray[np.float32]]
Prints = Mapping[Path, NDArray[np.float32]]  # fingerprints


def find_duplicates(
    recordings: Sequence[Recording], read: Reader, sample_rate: int, prints: Prints | None = None
) -> list[Group]:
    """Groups of two or more that hold the same sound, in the order of the recordings.

    `read` returns (samples,) at `sample_rate`, and is called from several threads, for `candidates`
    alone; `prints` are their fingerprints, where they are known. Raises UserError where `read` does.
    """
    rows: defaultdict[Path, list[int]] = defaultdict(list)
    for index, recording in enumerate(recordings):
        rows[recording.path].append(index)
    known = prints or _fingerprints(candidates(recordings), read, sample_rate)

    def alike(block: Sequence[Recording]) -> list[set[Path]]:
        return _alike(block, known, read, sample_rate) if len(block) > 1 else [{block[0].path}]

    sounds = [sound for block in in_threads(alike, _blocks(recordings), "comparing") for sound in block]
    groups = [sorted(index for path in sound for index in rows[path]) for sound in sounds]
    return [tuple(recordings[k] for k in group) for group in sorted(groups) if len(group) > 1]


def _fingerprints(paths: Sequence[Path], read: Reader, sample_rate: int) -> Prints:
    def print_of(path: Path) -> NDArray[np.float32]:
        return fingerprint(read(path), sample_rate)

    return dict(zip(paths, in_threads(print_of, paths, "searching for duplicates"), strict=True))


def candidates(recordings: Sequence[Recording]) -> list[Path]:
    """The files whose author has another of the same length: no others can be duplicates."""
    return [r.path for block in _blocks(recordings) if len(block) > 1 for r in block]


def _blocks(recordings: Sequence[Recording]) -> list[list[Recording]]:
    """The files by author, each about as long as the next of its block; as their first rows have it."""

    def apart(first: Recording, second: Recording) -> bool:
        apart_s = second.duration_s - first.duration_s
        return first.author != second.author or apart_s > SAME_LENGTH_S

    rows = {recording.path: recording for recording in reversed(recordings)}
    order = sorted(rows.values(), key=lambda r: (r.author, r.duration_s, r.path))
    cuts = [k for k, pair in enumerate(pairwise(order), start=1) if apart(*pair)]
    return [order[start:end] for start, end in pairwise([0, *cuts, len(order)]) if start < end]


def _alike(
    block: Sequence[Recording], prints: Prints, read: Reader, sample_rate: int
) -> list[set[Path]]:
    """The files of a block by sound, joined through a third where need be."""
    paths = [recording.path for recording in block]
    table = np.stack([prints[path] for path in paths])
    lengths_s = np.array([recording.duration_s for recording in block])
    ends = np.searchsorted(lengths_s, lengths_s + SAME_LENGTH_S, side="right")
    sounds = DisjointSet(paths)
    for row, end in enumerate(ends):
        like = np.flatnonzero(table[row + 1 : end] @ table[row] >= LIKE) + row + 1
        for other in (paths[k] for k in like):
            # Those that are joined already need no comparison: copies of one file are many pairs.
            if not sounds.connected(paths[row], other):
                waveforms = read(paths[row]), read(other)
                if correlation(*waveforms, sample_rate) >= SAME:
                    sounds.merge(paths[row], other)
    return list(sounds.subsets())


def fingerprint(waveform: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
    """(samples,) → (stretches * bands,), which band is loud when, with norm 1; silence gives zeros.

    It does not depend on the gain, a microphone's frequency response or a fade of all bands at once.
    """
    n_lacking = max(0, N_STRETCHES * N_FFT - waveform.size)
    parts = np.array_split(np.pad(waveform, (0, n_lacking)), N_STRETCHES)
    options = {"nperseg": N_FFT, "noverlap": 0, "detrend": False}
    power = np.stack([scipy.signal.welch(part, sample_rate, **options)[1] for part in parts])
    cells = power @ _bands(sample_rate)
    levels = np.log10(cells + FLOOR * cells.max() + 1e-30)
    levels -= levels.mean(axis=0)
    levels -= levels.mean(axis=1, keepdims=True)
    return levels.ravel() / max(float(np.linalg.norm(levels)), 1e-6)


@functools.cache
def _bands(sample_rate: int) -> NDArray[np.float32]:
    """Mel filters, (n_fft // 2 + 1, bands)."""
    low_hz, high_hz = BAND_HZ
    filters: NDArray[np.float32] = librosa_mel(
        sr=sample_rate, n_fft=N_FFT, n_mels=N_BANDS, fmin=low_hz, fmax=min(high_hz, sample_rate / 2)
    )
    return filters.T


def correlation(first: NDArray[np.float32], second: NDArray[np.float32], sample_rate: int) -> float:
    """Highest correlation of two waveforms (samples,) over the lags, 0 … 1; polarity does not count."""
    n_fft = scipy.fft.next_fast_len(first.size + second.size, real=True)
    frequency_hz = scipy.fft.rfftfreq(n_fft, 1 / sample_rate)
    inside = (frequency_hz > BAND_HZ[0]) & (frequency_hz < BAND_HZ[1])
    one, other = (inside * scipy.fft.rfft(waveform, n_fft) for waveform in (first, second))
    by_lag = scipy.fft.irfft(one * np.conj(other), n_fft)
    n_lags = max(1, min(round(LAG_S * sample_rate), n_fft // 2))
    highest = np.abs(np.r_[by_lag[: n_lags + 1], by_lag[-n_lags:]]).max()
    norms = [np.linalg.norm(scipy.fft.irfft(spectrum, n_fft)) for spectrum in (one, other)]
    return float(highest / max(norms[0] * norms[1], 1e-9))


def drop_duplicates(
    recordings: Sequence[Recording], groups: Sequence[Group]
) -> tuple[list[Recording], list[str]]:
    """One recording of each group, with the labels of all, and a line a group on what was dropped.

    Where primary labels differ, one for each of them stays, so that no class loses its last recording.
    """
    group_of = {recording: number for number, group in enumerate(groups) for recording in group}
    remaining: list[Recording] = []
    stays: list[dict[str, Recording]] = [{} for _ in groups]  # by primary label
    for recording in recordings:
        number = group_of.get(recording)
        if number is None:
            remaining.append(recording)
        elif recording.primary not in stays[number]:
            others = [label for label in _labels(groups[number]) if label != recording.primary]
            remaining.append(replace(recording, secondary=tuple(others)))
            stays[number][recording.primary] = recording
    return remaining, [
        _what_stays(group, list(stay.values())) for group, stay in zip(groups, stays, strict=True)
    ]


def _labels(group: Group) -> list[str]:
    """Labels of all recordings of a group: the primary ones, then the secondary ones."""
    primary = [recording.primary for recording in group]
    return list(
        dict.fromkeys([*primary, *(label for recording in group for label in recording.secondary)])
    )


def _what_stays(group: Group, stay: Sequence[Recording]) -> str:
    dropped = list(group)
    for recording in stay:
        dropped.remove(recording)
    line = f"{_names(group, ' = ')}: "
    if dropped:
        return line + f"{_names(dropped, ', ')} left out, all labels joined in {_names(stay, ', ')}"
    return line + "all stay, for their primary labels differ; each has the labels of all"


def line(groups: Sequence[Group]) -> str:
    """How many recordings are duplicates, with the names of the first groups."""
    n_more = sum(len(group) - 1 for group in groups)
    named = "; ".join(_names(group, " = ") for group in groups[:3])
    return f"{n_more} recordings are there already ({named}{'; …' if len(groups) > 3 else ''})"


def _names(recordings: Sequence[Recording], between: str) -> str:
    """The recordings by class folder and file name."""
    return between.join("/".join(recording.path.parts[-2:]) for recording in recordings)
