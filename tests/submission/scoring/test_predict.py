"""Scoring files in parts, within a deadline, and whatever a read does."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from birdkit import audio
from birdkit.contract import Contract
from birdkit.engines.engine import Answers
from birdkit.scoring.ensemble import Ensemble, Spec
from birdkit.scoring.parts import PART_WINDOWS, SoundFile
from birdkit.scoring.predict import predict
from tests.conftest import ROOT

RATE = 100  # Hz; nothing in the parts depends on it
Array = NDArray[np.float32]


class Hears:
    """An engine that answers with the mean of a chunk, and with its first and its last sample."""

    def __init__(self, chunk_s: float) -> None:
        self.contract = Contract(RATE, chunk_s, 5.0, ("a", "b", "c"), ("segmentwise",))

    def __call__(self, chunks: Array) -> Answers:
        return {"segmentwise": np.stack([chunks.mean(axis=1), chunks[:, 0], chunks[:, -1]], axis=1)}


def noise(path: Path, n_windows: float) -> SoundFile:
    samples = np.random.default_rng(0).uniform(-1, 1, round(n_windows * 5 * RATE))
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    return SoundFile(path, int(np.ceil(n_windows)))


@pytest.mark.parametrize("chunk_s", [5.0, 20.0])
@pytest.mark.parametrize("shift", [0.0, 0.75])
@pytest.mark.parametrize("n_windows", [1, PART_WINDOWS, PART_WINDOWS + 0.5, 3 * PART_WINDOWS])
def test_a_recording_scored_in_parts_has_the_scores_of_the_whole(
    tmp_path: Path, chunk_s: float, shift: float, n_windows: float
) -> None:
    ensemble = Ensemble({"x": Hears(chunk_s)}, Spec({"x": 1.0}, "segmentwise"))
    files = [noise(tmp_path / f"{i}.wav", n_windows) for i in range(3)]

    def score(waveform: Array, n: int) -> Array:
        return ensemble.score(waveform, n, shift)

    for of_file in predict(files, score, ensemble.contract, streams=2).scores:
        assert of_file is not None
        whole = score(audio.read(files[0].path, RATE), files[0].n_windows)
        np.testing.assert_array_equal(of_file, whole)


def test_what_is_held_of_a_recording_does_not_grow_with_its_length(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    held: list[int] = []

    def blocks(*given: Any, **named: Any) -> Iterator[Array]:
        yield from (np.zeros(8 * RATE, np.float32) for _ in range(24 * 450))

    def score(waveform: Array, n_windows: int) -> Array:
        held.append(waveform.size)
        return np.zeros((n_windows, 1), np.float32)

    monkeypatch.setattr(audio, "blocks", blocks)
    day = SoundFile(tmp_path / "day.flac", 24 * 720)
    (scores,) = predict([day], score, Contract(RATE, 5.0, 5.0, ("a",))).scores
    assert scores is not None
    assert scores.shape == (24 * 720, 1)
    # Each part but the first and the last hears a window on both sides.
    n_parts = math.ceil((24 * 720 - 2 * (PART_WINDOWS - 1)) / (PART_WINDOWS - 2)) + 2
    assert len(held) == n_parts
    assert max(held) < 140 * RATE


def test_the_deadline_is_looked_at_within_a_long_recording(tmp_path: Path) -> None:
    now = [0.0]

    def score(waveform: Array, n_windows: int) -> Array:
        now[0] += 10.0
        return np.zeros((n_windows, 1), np.float32)

    files = [noise(tmp_path / "a.wav", 12), noise(tmp_path / "long.wav", 50 * PART_WINDOWS)]
    done = predict(files, score, Contract(RATE, 5.0, 5.0, ("a",)), deadline=35.0, clock=lambda: now[0])
    assert now[0] == 40.0  # begun before the deadline, at 30 s
    assert [scores is None for scores in done.scores] == [False, True]
    assert done.not_reached == ["long.wav"]
    assert not done.failures


@pytest.fixture
def stalled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Reading b.wav does not come to an end."""
    over, read = threading.Event(), audio.blocks

    def blocks(path: Path, *given: Any, **named: Any) -> Iterator[Array]:
        if path.name == "b.wav":
            over.wait(60)
        yield from read(path, *given, **named)

    monkeypatch.setattr(audio, "blocks", blocks)
    yield
    over.set()


@pytest.mark.usefixtures("stalled")
def test_a_read_that_blocks_is_waited_for_until_the_deadline_only(tmp_path: Path) -> None:
    files = [noise(tmp_path / f"{name}.wav", 12) for name in "abcdef"]
    start = time.monotonic()

    def score(waveform: Array, n_windows: int) -> Array:
        return np.zeros((n_windows, 1), np.float32)

    result = predict(files, score, Contract(RATE, 5.0, 5.0, ("a",)), streams=2, deadline=start + 0.5)
    assert time.monotonic() - start < 5.0
    assert [scores is None for scores in result.scores] == [False, *[True] * 5]
    assert result.not_reached == [f"{name}.wav" for name in "bcdef"]


def test_a_signal_ends_the_wait_for_a_read_that_blocks_and_the_process(tmp_path: Path) -> None:
    """In a process of its own: a real signal crashes one that holds torch and two engines."""
    script = f"""
import signal, sys, threading
sys.path[:0] = [{str(ROOT / "submission")!r}]
from pathlib import Path
from birdkit import audio
from birdkit.contract import Contract
from birdkit.signals import Stopped
from birdkit.scoring.parts import SoundFile
from birdkit.scoring.predict import predict

def stop(*_):
    raise Stopped

signal.signal(signal.SIGTERM, stop)
audio.blocks = lambda *_, **__: iter(threading.Event().wait, 0)
threading.Timer(0.2, lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)).start()
try:
    predict([SoundFile(Path("b.wav"), 1)], None, Contract(100, 5.0, 5.0, ("a",)))
except Stopped:
    print("stopped")
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True
    )
    assert ended.stdout == "stopped\n"
