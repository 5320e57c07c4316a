"""Recordings in which no bird calls, by easybird: an extra, which is asked for and installed by hand.

easybird (MIT) brings a small network that was trained for bird activity detection, as TorchScript. Its
features are made here as it makes them, since its own functions read files only.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import soxr
import torch
from numpy.typing import NDArray

from birdkit.errors import UserError
from train.config import provenance
from train.data.progress import in_threads

INSTALL = "pip install --no-deps easybird==0.0.3 python_speech_features==0.6"
RATE_HZ, WINDOW_S = 16_000, 5.0
FEATURES = {"winlen": 0.025, "winstep": 0.01, "nfilt": 80, "nfft": 2048, "lowfreq": 50}
FEATURES |= {"highfreq": 8000, "preemph": 0.97}
STORE_NAME = "no-call.json"
MADE_BY = {"easybird": "0.0.3", "window_s": WINDOW_S}


class CallDetector:
    """Tells in which windows a bird calls. Raises `UserError` where the packages are not there."""

    def __init__(self) -> None:
        try:
            package: Any = importlib.import_module("easybird")
            self._features: Any = importlib.import_module("python_speech_features").logfbank
        except ImportError as error:
            raise UserError(f"--no-call: needs easybird; {INSTALL}") from error
        path = Path(package.__file__).with_name("models") / "jit_bad.pt"
        self._network = torch.jit.load(str(path), map_location="cpu").eval()

    def probabilities(self, waveform: NDArray[np.float32], rate_hz: int) -> NDArray[np.float32]:
        """(windows,): how likely a bird calls in each window of 5 s of (samples,) in [-1, 1].

        A last window of less than half of that is left out, unless it is the only one.
        """
        heard = soxr.resample(waveform, rate_hz, RATE_HZ)
        size = round(WINDOW_S * RATE_HZ)
        parts = [
            heard[start : start + size] for start in range(0, max(1, heard.size - size // 2), size)
        ]
        return np.array([self._of_window(part) for part in parts], dtype=np.float32)

    def _of_window(self, samples: NDArray[np.float32]) -> float:
        features = self._features(samples, RATE_HZ, **FEATURES)
        features -= features.mean(axis=0, keepdims=True)
        with torch.inference_mode():
            logits = self._network(torch.from_numpy(features).float()[None])
        return float(logits.flatten().softmax(dim=0)[1])


def shares(
    detector: CallDetector,
    paths: Sequence[Path],
    waveform_of: Callable[[Path], NDArray[np.float32]],
    rate_hz: int,
    cache: Path | None,
) -> dict[Path, float]:
    """The share of windows without a call in each file; a cache folder keeps them for the next time."""
    content = provenance.read_store(cache / STORE_NAME) if cache else {}
    kept = provenance.can_be_kept(MADE_BY, content.get("made_by"))
    known: dict[str, float] = dict(content["shares"]) if kept else {}

    def share(path: Path) -> float:
        state = provenance.file_state(path)
        if state not in known:
            calls = detector.probabilities(waveform_of(path), rate_hz) >= 0.5
            known[state] = 1.0 - float(calls.mean())
        return known[state]

    try:
        return dict(zip(paths, in_threads(share, paths, "searching for calls"), strict=True))
    finally:
        if cache:
            with suppress(OSError):  # without it, the next audit searches again
                provenance.write_store(cache / STORE_NAME, {"made_by": MADE_BY, "shares": known})
