"""Recording length → windows → row ids. Validation, pseudo labelling and submission all call this.

A *window* is the 5 s that a row of the submission is for; a *chunk* is what a model was trained on. The
chunk is centred on its window and may be longer. A *stretch* is several windows that a model hears at
once. Outside the recording all of them are padded with silence.
"""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from birdkit.contract import Contract
from birdkit.errors import UserError

WINDOW_S = 5.0  # length of the window of a row, in every BirdCLEF so far
MINUTE_S = 60.0  # how long the soundscapes of every BirdCLEF so far last
WINDOWS_A_MINUTE = round(MINUTE_S / WINDOW_S)
# Encoders pad a recording by less than this, so a rest as short has no window of its own.
PADDING_S = 0.1
LONGEST_S = 1e6  # a row of a recording ends before this; it is eleven days

Samples = TypeVar("Samples", NDArray[np.float32], NDArray[np.int16])


def n_windows(n_samples: int, contract: Contract) -> int:
    """The number of windows that cover `n_samples`, at least one; the last may overrun."""
    return max(1, -(-n_samples // contract.window_samples))


def windows_in(seconds: float, window_s: float) -> int:
    """The number of windows that a recording has rows for, at least one; the last may overrun."""
    return max(1, math.ceil((seconds - PADDING_S) / window_s))


def cut_chunks(
    waveform: NDArray[np.float32], count: int, contract: Contract, shift: float = 0.0
) -> NDArray[np.float32]:
    """The chunks of the first `count` windows, padded with silence or cut to fit.

    Parameters
    ----------
    waveform : (samples,) float32 at the contract's rate
    shift : how much earlier the windows begin, in windows

    Returns
    -------
    (count, chunk_samples) float32
    """
    earlier = round(shift * contract.window_samples)
    before = _margin(contract) + earlier
    needed = (count - 1) * contract.window_samples + contract.chunk_samples
    padded = _in_silence(waveform, before, needed)
    every_start = np.lib.stride_tricks.sliding_window_view(padded, contract.chunk_samples)
    return every_start[:: contract.window_samples].copy()


def cut_chunk(waveform: Samples, index: int, contract: Contract) -> Samples:
    """The chunk of one window, (chunk_samples,): `cut_chunks(…)[index]`, without the others."""
    start = index * contract.window_samples - _margin(contract)
    first = max(0, start)
    samples = waveform[first : max(first, start + contract.chunk_samples)]
    chunk = np.zeros(contract.chunk_samples, dtype=waveform.dtype)
    chunk[first - start : first - start + samples.size] = samples
    return chunk


def n_stretches(count: int, contract: Contract, shift: float = 0.0) -> int:
    """The number of stretches that cover the first `count` windows."""
    needed = count * contract.window_samples + round(shift * contract.input_samples)
    return -(-needed // contract.input_samples)


def cut_stretches(
    waveform: NDArray[np.float32], count: int, contract: Contract, shift: float = 0.0
) -> NDArray[np.float32]:
    """The stretches that cover the first `count` windows, one after another.

    Parameters
    ----------
    waveform : (samples,) float32 at the contract's rate
    shift : how much earlier they begin, in stretches

    Returns
    -------
    (stretches, input_samples) float32
    """
    before = round(shift * contract.input_samples)
    needed = n_stretches(count, contract, shift) * contract.input_samples
    return _in_silence(waveform, before, needed).reshape(-1, contract.input_samples)


def cut_inputs(
    waveform: NDArray[np.float32], count: int, contract: Contract, shift: float = 0.0
) -> NDArray[np.float32]:
    """(inputs, input_samples): the stretches, or chunks, from which a model scores `count` windows.

    Time-shifted chunks are one more, for `onto_rows`.
    """
    if contract.stretch_s:
        return cut_stretches(waveform, count, contract, shift)
    return cut_chunks(waveform, count + bool(shift), contract, shift)


def frame_middles(n_frames: int, contract: Contract) -> NDArray[np.float64]:
    """(frames,): the middles of a stretch's frames, in s from its start; the last may lie beyond it."""
    return np.asarray((np.arange(n_frames) + 0.5) * contract.frame_s, dtype=np.float64)


def _in_silence(waveform: NDArray[np.float32], before: int, needed: int) -> NDArray[np.float32]:
    """(needed,): the waveform behind `before` samples of silence, padded with it or cut to fit."""
    padded = np.zeros(needed, dtype=np.float32)
    samples = waveform[: needed - before]
    padded[before : before + samples.size] = samples
    return padded


def _margin(contract: Contract) -> int:
    """Samples of a chunk before its window."""
    return (contract.chunk_samples - contract.window_samples) // 2


def onto_rows(scores: NDArray[np.float32], shift: float) -> NDArray[np.float32]:
    """Scores of time-shifted windows → scores of the rows.

    A row is the mean of the two windows that overlap it, each weighted by the share that it covers.

    Parameters
    ----------
    scores : (..., count + 1, classes)
    shift : how much earlier the windows begin, in windows, between 0 and 1

    Returns
    -------
    (..., count, classes)
    """
    return (1.0 - shift) * scores[..., :-1, :] + shift * scores[..., 1:, :]


def row_ids(stem: str, count: int, window_s: float) -> list[str]:
    """`<file stem>_<window end in s>` for each window, as Kaggle writes them."""
    return [f"{stem}_{window_s * (index + 1):g}" for index in range(count)]


def split_row_id(row_id: str) -> tuple[str, float]:
    """The file stem and the window's end in s. Raises `UserError` for what is no row id."""
    stem, _, end = row_id.rpartition("_")
    try:
        end_s = float(end)
    except ValueError:
        end_s = 0.0
    if not stem or not 0 < end_s <= LONGEST_S:
        raise UserError(f"row id '{row_id}' is not <file stem>_<window end in s>")
    return stem, end_s


def window_index(end_s: float, window_s: float) -> int | None:
    """Index of the window that ends at `end_s`; None where no window of the grid does."""
    index = round(end_s / window_s) - 1
    on_grid = index >= 0 and abs((index + 1) * window_s - end_s) < 1e-6
    return index if on_grid else None
