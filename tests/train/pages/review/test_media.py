"""What is heard and seen of a clip lies where it is in the recording."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from birdkit.audio import AudioError, Mono
from tests.conftest import write_sound
from train.pages.review.media import COLUMNS_A_SECOND, FLOOR_DB, ROWS, colour_maps, cut, media, mp3

RATE = 32000


def beep(at_s: float, seconds: float, khz: float = 5.0, rate: int = RATE) -> Mono:
    """Silence with a tenth of a second of a tone in it."""
    t = np.arange(round(seconds * rate)) / rate
    return np.where((t >= at_s) & (t < at_s + 0.1), np.sin(2000 * np.pi * khz * t), 0).astype(
        np.float32
    )


def pixels(picture: str) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(base64.b64decode(picture))))


@pytest.mark.parametrize("at_s, khz", [(0.5, 1.0), (2.0, 5.0), (3.8, 14.0)])
def test_a_tone_is_drawn_at_its_time_and_frequency_with_high_ones_on_top(
    at_s: float, khz: float
) -> None:
    grey = pixels(media(beep(at_s, 4.0, khz), RATE).picture)
    assert grey.shape == (ROWS, 4 * COLUMNS_A_SECOND)
    row, column = np.unravel_index(grey.argmax(), grey.shape)
    assert abs((ROWS - row - 0.5) / ROWS * RATE / 2000 - khz) < 0.1
    assert at_s <= (column + 0.5) / COLUMNS_A_SECOND <= at_s + 0.12
    # A sine at full scale is about 0 dB, which is white.
    assert grey.max() > 240


@pytest.mark.parametrize("rate", [16000, 32000, 31250, 48000])
def test_the_sound_has_its_calls_where_they_are(rate: int) -> None:
    decoded, played_rate = soundfile.read(io.BytesIO(mp3(beep(2.0, 4.0, 3.0, rate), rate)))
    assert played_rate == (48000 if rate == 48000 else 32000)
    loud = np.flatnonzero(np.abs(decoded) > 0.5) / played_rate
    assert abs(loud[0] - 2.0) < 0.002
    assert len(decoded) == 4 * played_rate


def test_spans_are_cut_out_of_a_recording_wherever_its_blocks_end(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "long.wav", 30.0)
    whole = soundfile.read(path, dtype="float32")[0]
    spans = [(0.0, 5.0), (12.5, 21.0), (28.0, 33.0)]
    first, second, third = cut(path, RATE, spans)
    np.testing.assert_array_equal(first, whole[: 5 * RATE])
    np.testing.assert_array_equal(second, whole[int(12.5 * RATE) : 21 * RATE])
    np.testing.assert_array_equal(third[: 2 * RATE], whole[28 * RATE :])
    assert third.size == 5 * RATE
    assert not third[2 * RATE :].any()


@pytest.mark.parametrize("n_samples", [1, 500, 1024, 6400])
def test_the_shortest_recordings_and_silent_ones_have_a_picture_and_sound(n_samples: int) -> None:
    for samples in (np.zeros(n_samples, np.float32), np.ones(n_samples, np.float32)):
        made = media(samples, RATE)
        assert pixels(made.picture).shape == (ROWS, -(-n_samples // (RATE // COLUMNS_A_SECOND)))
        assert len(base64.b64decode(made.sound)) > 0
        low, high = made.shown_db
        assert FLOOR_DB <= low < high
    assert media(np.zeros(n_samples, np.float32), RATE).gain_db == 0


def test_quiet_sound_is_made_as_loud_as_other_and_says_by_how_much() -> None:
    made = media(np.float32(0.05) * beep(1.0, 2.0), RATE)
    assert made.gain_db == pytest.approx(20 * np.log10(0.9 / 0.05), abs=0.1)
    decoded, _ = soundfile.read(io.BytesIO(base64.b64decode(made.sound)))
    assert np.abs(decoded).max() == pytest.approx(0.9, abs=0.1)


def test_a_minute_takes_less_than_a_megabyte() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 60 * RATE).astype(np.float32)
    made = media(noise, RATE)
    assert len(made.sound) + len(made.picture) < 1_000_000


def test_a_file_that_is_no_sound_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.ogg").write_bytes(b"nothing")
    with pytest.raises(AudioError, match=r"bad\.ogg"):
        cut(tmp_path / "bad.ogg", RATE, [(0.0, 5.0)])


def test_a_colour_map_has_256_colours_from_dark_to_light() -> None:
    for colours in colour_maps().values():
        assert len(colours) == 256 * 6
    assert colour_maps()["magma"].startswith("000003")
