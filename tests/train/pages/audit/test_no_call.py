"""Recordings without a bird: by easybird where it is installed, and by a stand-in where not."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from birdkit.errors import UserError
from train import report
from train.pages.audit import findings, no_call
from train.pages.audit.folder import read
from train.pages.audit.no_call import CallDetector

RATE_HZ = 32_000


def test_what_is_not_installed_is_named_with_the_command_that_does(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "easybird", None)
    with pytest.raises(UserError, match=r"needs easybird; pip install --no-deps easybird==0"):
        report.main(["--data", str(folder), "--no-call", "--out", str(tmp_path / "audit.html")])


def test_recordings_without_a_bird_are_found_and_kept_for_the_next_audit(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CallDetector, "__init__", lambda self: None)
    heard = []

    def probabilities(
        self: CallDetector, waveform: NDArray[np.float32], rate_hz: int
    ) -> NDArray[np.float32]:
        heard.append(waveform.size)
        calls = [0.2, 0.9, 0.9] if np.abs(waveform).max() > 0 else [0.1]
        return np.array(calls, dtype=np.float32)

    monkeypatch.setattr(CallDetector, "probabilities", probabilities)
    for _ in range(2):
        done = findings.audit(read(folder), tmp_path, calls=True)
        (found,) = (finding for finding in done.findings if finding.name == "no-call")
        assert [done.rows["path"][row].name for row in found.rows] == ["silent.wav"]
        shares = done.rows.set_index(done.rows["path"].map(lambda path: path.name))["no_call"]
        assert shares["voice.mp3"] == pytest.approx(1 / 3)
        assert np.isnan(shares["absent.ogg"])
    assert len(heard) == done.rows["no_call"].notna().sum()


def test_easybird_answers_for_windows_of_five_seconds() -> None:
    pytest.importorskip("easybird", reason="an extra")
    pytest.importorskip("python_speech_features", reason="an extra")
    detector = CallDetector()
    rng = np.random.default_rng(0)
    for seconds, n_windows in ((0.5, 1), (5.0, 1), (7.4, 1), (7.6, 2), (12.0, 2)):
        noise = 0.01 * rng.standard_normal(round(seconds * RATE_HZ)).astype(np.float32)
        found = detector.probabilities(noise, RATE_HZ)
        assert found.shape == (n_windows,)
        assert ((found >= 0) & (found <= 1)).all()


def test_a_window_s_answer_is_that_of_easybird_s_own_function(tmp_path: Path) -> None:
    detection = pytest.importorskip("easybird.detection", reason="an extra")
    t = np.arange(5 * no_call.RATE_HZ) / no_call.RATE_HZ
    song = 0.3 * np.sin(2 * np.pi * (3000 * t + 300 * np.sin(2 * np.pi * 8 * t))) * (t % 1 < 0.4)
    noise = 0.01 * np.random.default_rng(0).standard_normal(t.size)
    for number, sound in enumerate((song, noise, song + noise)):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, sound.astype(np.float32), no_call.RATE_HZ, subtype="FLOAT")
        _, expected = detection.from_wav(str(path))
        (found,) = CallDetector().probabilities(sound.astype(np.float32), no_call.RATE_HZ)
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-6)
