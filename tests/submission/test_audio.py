from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from birdkit import audio
from birdkit.audio import AudioError
from tests.conftest import write_sound


@pytest.mark.parametrize("rate", [22050, 32000, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_any_rate_and_channel_count_becomes_mono_at_the_contracts_rate(
    tmp_path: Path, rate: int, channels: int
) -> None:
    path = write_sound(tmp_path / "x.wav", 2.0, rate, channels)
    waveform = audio.read(path, 32000)
    assert waveform.dtype == np.float32
    assert waveform.shape == (64000,)
    peak_hz = np.abs(np.fft.rfft(waveform)).argmax() / 2.0
    assert peak_hz == pytest.approx(3000, abs=1)


def test_stereo_is_the_mean_of_its_channels(tmp_path: Path) -> None:
    left, right = np.full(1000, 0.5), np.full(1000, -0.25)
    soundfile.write(tmp_path / "x.wav", np.stack([left, right], axis=1), 32000, subtype="FLOAT")
    np.testing.assert_allclose(audio.read(tmp_path / "x.wav", 32000), 0.125, atol=1e-7)


def test_nan_and_infinite_samples_become_silence_and_peaks_are_clipped(tmp_path: Path) -> None:
    samples = np.array([0.1, np.nan, np.inf, -np.inf, 1.2, -1.5, 0.2])
    soundfile.write(tmp_path / "x.wav", samples, 32000, subtype="DOUBLE")
    expected = np.array([0.1, 0, 0, 0, 1, -1, 0.2], dtype=np.float32)
    np.testing.assert_array_equal(audio.read(tmp_path / "x.wav", 32000), expected)


@pytest.mark.parametrize("content", [b"", b"OggS", b"this is no sound" * 100])
def test_an_empty_or_garbage_file_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.ogg"
    path.write_bytes(content)
    with pytest.raises(AudioError, match=r"bad\.ogg: can't be decoded"):
        audio.read(path, 32000)


def test_a_file_of_no_samples_and_an_absent_file_are_named(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 32000)
    with pytest.raises(AudioError, match=r"none\.wav: holds no samples"):
        audio.read(tmp_path / "none.wav", 32000)
    with pytest.raises(AudioError, match=r"lost\.ogg"):
        audio.read(tmp_path / "lost.ogg", 32000)


@pytest.mark.parametrize("rate", [32000, 44100])
def test_a_single_sample_is_read(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "one.wav", np.array([0.5]), rate)
    assert audio.read(tmp_path / "one.wav", 32000).size == 1


def test_a_truncated_ogg_gives_the_samples_that_are_there(tmp_path: Path) -> None:
    whole = write_sound(tmp_path / "whole.ogg", 20.0)
    content = whole.read_bytes()
    (tmp_path / "cut.ogg").write_bytes(content[: len(content) // 2])
    cut = audio.read(tmp_path / "cut.ogg", 32000)
    assert 0 < cut.size < 20 * 32000
    np.testing.assert_array_equal(cut, audio.read(whole, 32000)[: cut.size])


def test_a_hole_in_an_ogg_does_not_shift_what_comes_after_its_block(tmp_path: Path) -> None:
    """libsndfile skips a lost page without an error: read in one call, all later audio moves."""
    whole = write_sound(tmp_path / "whole.ogg", 30.0)
    content = bytearray(whole.read_bytes())
    hole = len(content) // 6  # about 5 s
    content[hole : hole + 4096] = bytes(4096)
    (tmp_path / "holed.ogg").write_bytes(content)
    intact, holed = audio.read(whole, 32000), audio.read(tmp_path / "holed.ogg", 32000)
    assert np.isfinite(holed).all()
    later = slice(2 * audio.BLOCK_FRAMES, 3 * audio.BLOCK_FRAMES)
    np.testing.assert_allclose(holed[later], intact[later], atol=1e-4)


def test_decoding_stops_at_the_limit(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "long.ogg", 30.0)
    limited = audio.read(path, 32000, max_s=7.5)
    assert limited.size == 240_000
    np.testing.assert_array_equal(limited, audio.read(path, 32000)[:240_000])
