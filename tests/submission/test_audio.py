from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

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


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same 20 s as FLAC and as MP3."""
    folder = tmp_path_factory.mktemp("whole")
    for suffix in ("flac", "mp3"):
        write_sound(folder / f"x.{suffix}", 20.0)
    return folder


@pytest.mark.parametrize("at", [0.1, 0.5, 0.9])
def test_a_hole_in_a_flac_costs_what_lies_in_it_and_moves_nothing(
    whole: Path, tmp_path: Path, at: float
) -> None:
    content = bytearray((whole / "x.flac").read_bytes())
    hole = int(at * len(content))
    content[hole : hole + 2000] = bytes(2000)
    (tmp_path / "holed.flac").write_bytes(content)
    intact, holed = audio.read(whole / "x.flac", 32000), audio.read(tmp_path / "holed.flac", 32000)
    assert holed.shape == intact.shape
    assert (holed == intact).mean() > 0.96  # the damaged frames, and at most as much again


@pytest.mark.parametrize("at", [0.1, 0.5, 0.9])
def test_an_mp3_goes_on_after_a_hole(whole: Path, tmp_path: Path, at: float) -> None:
    content = bytearray((whole / "x.mp3").read_bytes())
    hole = int(at * len(content))
    content[hole : hole + 2000] = bytes(2000)
    (tmp_path / "holed.mp3").write_bytes(content)
    intact, holed = audio.read(whole / "x.mp3", 32000), audio.read(tmp_path / "holed.mp3", 32000)
    # What comes later begins sooner: an MP3 does not say when a frame is due.
    assert 0.97 * intact.size < holed.size <= intact.size
    loud = np.abs(holed[: holed.size // 3200 * 3200].reshape(-1, 3200)).max(axis=1) > 0.1
    assert loud.mean() > 0.96


@pytest.mark.parametrize("suffix", ["flac", "mp3"])
def test_a_file_that_was_cut_off_gives_the_samples_that_are_there(
    whole: Path, tmp_path: Path, suffix: str
) -> None:
    content = (whole / f"x.{suffix}").read_bytes()
    (tmp_path / f"cut.{suffix}").write_bytes(content[: int(0.6 * len(content))])
    intact = audio.read(whole / f"x.{suffix}", 32000)
    cut = audio.read(tmp_path / f"cut.{suffix}", 32000)
    assert 0.55 * intact.size < cut.size < 0.65 * intact.size
    np.testing.assert_array_equal(cut[:-4096], intact[: cut.size - 4096])


@settings(max_examples=8)
@given(
    suffix=st.sampled_from(["flac", "mp3"]),
    holes=st.lists(st.tuples(st.floats(0.5, 1.0), st.binary(min_size=1, max_size=3000)), max_size=4),
)
def test_whatever_is_damaged_in_the_second_half_the_first_one_is_kept(
    whole: Path, suffix: str, holes: list[tuple[float, bytes]]
) -> None:
    content = bytearray((whole / f"x.{suffix}").read_bytes())
    for at, rubbish in holes:
        begin = int(at * len(content))
        content[begin : begin + len(rubbish)] = rubbish
    path = whole / f"damaged.{suffix}"
    path.write_bytes(content)
    damaged, intact = audio.read(path, 32000), audio.read(whole / f"x.{suffix}", 32000)
    assert np.abs(damaged).max() <= 1.0  # and so finite
    kept = int(0.45 * intact.size)
    np.testing.assert_array_equal(damaged[:kept], intact[:kept])


def test_blocks_are_the_samples_of_the_whole_file_piece_by_piece(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "x.ogg", 20.0, 44100)
    pieces = list(audio.blocks(path, 32000))
    assert max(piece.size for piece in pieces) < 6 * 32000
    with soundfile.SoundFile(path) as file:
        in_one = soxr.resample(file.read(dtype="float32"), 44100, 32000)
    np.testing.assert_array_equal(np.concatenate(pieces), in_one)


def test_a_pipe_is_an_error_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.ogg")
    for reads in (lambda path: audio.read(path, 32000), audio.length_s):
        with pytest.raises(AudioError, match=r"pipe\.ogg: can't be decoded \(it is no regular file\)"):
            reads(tmp_path / "pipe.ogg")


def test_a_length_is_the_headers_or_measured_where_that_one_tells_none(tmp_path: Path) -> None:
    assert audio.length_s(write_sound(tmp_path / "x.ogg", 7.0)) == 7.0
    content = bytearray(write_sound(tmp_path / "x.flac", 7.0).read_bytes())
    content[21] &= 0xF0  # the number of samples, as an encoder that wrote to a pipe left it
    content[22:26] = bytes(4)
    (tmp_path / "piped.flac").write_bytes(content)
    assert soundfile.info(tmp_path / "piped.flac").duration > 1e14
    assert audio.length_s(tmp_path / "piped.flac") == 7.0
    silent = tmp_path / "silent.flac"
    soundfile.write(silent, np.zeros(32000 * 60), 32000)
    assert audio.length_s(silent) == 60.0
    with pytest.raises(AudioError, match="can't be decoded"):
        audio.length_s(tmp_path / "absent.ogg")
