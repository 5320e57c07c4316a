"""A model from outside, as it hears the windows of the kit's grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

from birdkit import audio
from birdkit.activations import sigmoid, softmax
from birdkit.engines.layout import Layout, one_stream, usable_cores
from birdkit.errors import UserError, first_line
from birdkit.grid import WINDOW_S
from birdkit.outside import card as cards
from birdkit.outside.card import Card
from birdkit.outside.runners import RUNNERS, Runner

Activation = Callable[[NDArray[np.float32]], NDArray[np.float32]]
ACTIVATE: dict[str, Activation] = {
    "sigmoid": sigmoid,
    "softmax": softmax,
    "none": lambda values: np.clip(values, 0.0, 1.0),
}
# The model's own windows begin at most this share of their length after each other, so that a call that
# one cuts is heard whole by the next. Further ones gained nothing (docs/experiments.md).
OWN_HOP = 1 / 3
# Windows of the grid that are cut at a time, so that memory does not grow with the recording.
BLOCK_WINDOWS = 24


@dataclass(frozen=True)
class Heard:
    """What a model says of windows: of its own windows in each, the best score and the mean embedding.

    scores : (windows, labels) probabilities
    embeddings : (windows, dims), or None where they were not asked for
    """

    scores: NDArray[np.float32]
    embeddings: NDArray[np.float32] | None


class OutsideModel:
    """A model from outside in an engine.

    Parameters
    ----------
    card : what it hears and answers
    runner : the engine with its file
    embeddings : whether the runner answers with the embedding, too
    where : names the file in errors
    """

    def __init__(self, card: Card, runner: Runner, embeddings: bool, where: str) -> None:
        self.card, self.runner = card, runner
        self._embeddings, self._where = embeddings, where

    def read(self, path: Path, count: int, window_s: float = WINDOW_S) -> Heard:
        """Decode a sound file at the model's own rate and hear its first `count` windows.

        Raises `AudioError` for a file that can't be decoded, else as `hear`.
        """
        needed_s = count * window_s + self.card.window_s
        waveform = audio.read(path, self.card.sample_rate, max_s=needed_s)
        return self.hear(waveform, self.card.sample_rate, count, window_s)

    def hear(
        self,
        waveform: NDArray[np.float32],
        sample_rate: int,
        count: int,
        window_s: float = WINDOW_S,
    ) -> Heard:
        """Hear the first `count` windows of a recording; what lies outside it is silence.

        Parameters
        ----------
        waveform : (samples,) float32 in [-1, 1] at `sample_rate` Hz, from the recording's start

        Raises `UserError` where the model answers with NaN, or with another number of labels than its
        card has.
        """
        if sample_rate != self.card.sample_rate:
            waveform = soxr.resample(waveform, sample_rate, self.card.sample_rate)
        starts_s = own_starts(window_s, self.card.window_s)
        scores, embeddings = [], []
        for first in range(0, count, BLOCK_WINDOWS):
            numbers = np.arange(first, min(first + BLOCK_WINDOWS, count))
            at_s = (numbers[:, None] * window_s + starts_s).ravel()
            answers = self.runner(scaled(cut(waveform, at_s, self.card), self.card))
            by_window = (len(numbers), len(starts_s), -1)
            scores.append(self._probabilities(answers[self.card.output]).reshape(by_window).max(axis=1))
            if self._embeddings:
                values = self._finite(answers[self.card.embedding])
                embeddings.append(values.reshape(by_window).mean(axis=1))
        return Heard(np.concatenate(scores), np.concatenate(embeddings) if embeddings else None)

    def _probabilities(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        values = self._finite(values.reshape(len(values), -1))
        if values.shape[1] != len(self.card.labels):
            raise UserError(
                f"{self._where}: answers {values.shape[1]} scores, and its card has "
                f"{len(self.card.labels)} labels; give the labels that belong to it"
            )
        return ACTIVATE[self.card.activation](values)

    def _finite(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        if not np.isfinite(values).all():
            raise UserError(f"{self._where}: answers with NaN or infinite values; take another file")
        return np.asarray(values, dtype=np.float32)


def own_starts(window_s: float, own_s: float) -> NDArray[np.float64]:
    """Where the model's own windows begin, in s from the start of a window of the grid.

    Evenly spread within it, overlapping by two thirds or more; one around it where the model hears as
    long or longer.
    """
    if own_s >= window_s:
        return np.array([(window_s - own_s) / 2])
    room_s = window_s - own_s
    return np.linspace(0.0, room_s, 1 + math.ceil(room_s / (OWN_HOP * own_s) - 1e-9))


def cut(
    waveform: NDArray[np.float32], starts_s: Sequence[float] | NDArray[np.float64], card: Card
) -> NDArray[np.float32]:
    """(windows, samples): the model's own windows, padded with silence."""
    inputs = np.zeros((len(starts_s), card.samples), dtype=np.float32)
    for one, start_s in zip(inputs, starts_s, strict=True):
        start = round(float(start_s) * card.sample_rate)
        first = max(0, start)
        samples = waveform[first : max(first, start + card.samples)]
        one[first - start : first - start + samples.size] = samples
    return inputs


def scaled(inputs: NDArray[np.float32], card: Card) -> NDArray[np.float32]:
    """(windows, samples) as the model wants them; silence stays silent."""
    if card.scaling == "none":
        return inputs
    centred = inputs - inputs.mean(axis=1, keepdims=True)
    peaks = np.abs(centred).max(axis=1, keepdims=True)
    return np.asarray(card.peak * centred / np.where(peaks > 0, peaks, 1.0), dtype=np.float32)


def open_model(
    path: Path,
    layout: Layout | None = None,
    *,
    engine: str = "auto",
    embeddings: bool = False,
) -> OutsideModel:
    """Open a model from outside by its card, in the first engine that can.

    Parameters
    ----------
    path : the card, NAME.outside.json; the model file lies beside it
    layout : default: all cores on one call
    engine : "auto", or the one engine to use ("openvino", "onnxruntime", "litert")
    embeddings : whether embeddings are wanted

    Raises
    ------
    UserError
        Where the card or the file is at fault, or no engine can run it: naming what each one said.
    """
    card = cards.load(path)
    return open_with(card, cards.model_file(path, card.kind), layout, engine, embeddings)


def open_with(
    card: Card,
    file: Path,
    layout: Layout | None = None,
    engine: str = "auto",
    embeddings: bool = False,
) -> OutsideModel:
    """Open a model file by a card that may lie elsewhere; else as `open_model`."""
    if not file.is_file():
        raise UserError(f"{file}: not found; put the model file there")
    if embeddings and not card.embedding:
        raise UserError(f"{file}: its card names no embedding; name the tensor there")
    tensors = [card.output, card.embedding][: 1 + embeddings]
    layout = layout or one_stream(usable_cores())
    failed = []
    for load in RUNNERS[card.kind]:
        if engine not in ("auto", load.name):
            continue
        try:
            return OutsideModel(card, load(file, card, layout, tensors), embeddings, str(file))
        except UserError:
            raise  # the card and the file don't fit, in whatever engine
        except Exception as error:  # whatever an engine throws, the next one is tried
            failed.append(f"{load.name}: {first_line(error)}")
    raise UserError(f"{file}: no engine runs it ({'; '.join(failed) or f'none is {engine}'})")
