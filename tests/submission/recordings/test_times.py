"""When a recording began, told by names and headers."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from birdkit.recordings import times

SOUND = np.zeros(100)


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("H01_20250703_071500", "2025-07-03T07:15:00"),
        ("20250703_071500", "2025-07-03T07:15:00"),
        ("20250703_071500_1", "2025-07-03T07:15:00"),
        ("SITE-2025-07-03T07-15-00", "2025-07-03T07:15:00"),
        ("x20250703T071500+1030_y", "2025-07-03T07:15:00+10:30"),
        ("x20250703T071500-0200", "2025-07-03T07:15:00-02:00"),
        ("20250703_071500Z", "2025-07-03T07:15:00+00:00"),
        ("20250703_071500-1234", "2025-07-03T07:15:00"),
        ("5D7C4F00", "2019-09-14T02:22:56+00:00"),
        ("20251303_071500", None),  # no month has that number
        ("20250703_256000", None),
        ("120250703_071500", None),
        ("65123456", None),  # a catalogue's number
        ("XC134880", None),
        ("", None),
    ],
)
def test_a_name_tells_the_start_where_a_calendar_knows_it(stem: str, expected: str | None) -> None:
    start = times.of_name(stem)
    assert (start and start.isoformat()) == expected


def wav(path: Path, *chunks: tuple[bytes, bytes]) -> Path:
    """A WAV file with further chunks behind its sound."""
    soundfile.write(path, SOUND, 8000, subtype="PCM_16")
    content = path.read_bytes()
    for name, text in chunks:
        content += struct.pack("<4sI", name, len(text)) + text + b"\0" * (len(text) % 2)
    path.write_bytes(content[:4] + struct.pack("<I", len(content) - 8) + content[8:])
    return path


GUANO = b"GUANO|Version:1.0\nTimestamp:2017-04-18T22:15:00-07:00\nMake:x"


@pytest.mark.parametrize(
    ("chunk", "expected"),
    [
        ((b"guan", GUANO), "2017-04-18T22:15:00-07:00"),
        ((b"bext", bytes(320) + b"2021-05-0604:05:06" + bytes(264)), "2021-05-06T04:05:06"),
        ((b"guan", b"Timestamp: yesterday"), None),
        ((b"bext", b"short"), None),
    ],
)
def test_a_header_tells_the_start_where_the_name_does_not(
    tmp_path: Path, chunk: tuple[bytes, bytes], expected: str | None
) -> None:
    start = times.start_of(wav(tmp_path / "a.wav", (b"junk", b"odd"), chunk))
    assert (start and start.isoformat()) == expected
    named = times.start_of(wav(tmp_path / "20250703_071500.wav", chunk))
    assert named is not None
    assert named.isoformat() == "2025-07-03T07:15:00"


@pytest.mark.parametrize(
    ("zone", "expected"),
    [("UTC", "+00:00"), ("UTC+2", "+02:00"), ("UTC-3:30", "-03:30")],
)
def test_audiomoths_comment_tells_the_start(tmp_path: Path, zone: str, expected: str) -> None:
    with soundfile.SoundFile(tmp_path / "a.wav", "w", 8000, 1) as file:
        file.comment = f"Recorded at 19:17:30 10/12/2019 ({zone}) by AudioMoth 24F319055FDF2F5B"
        file.write(SOUND)
    start = times.start_of(tmp_path / "a.wav")
    assert start is not None
    assert start.isoformat() == f"2019-12-10T19:17:30{expected}"


def test_a_header_behind_hours_of_sound_is_found_by_the_true_size(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, SOUND, 8000, subtype="PCM_16", format="RF64")
    path.write_bytes(path.read_bytes() + struct.pack("<4sI", b"guan", len(GUANO)) + GUANO)
    start = times.start_of(path)
    assert start is not None
    assert start.isoformat() == "2017-04-18T22:15:00-07:00"


@pytest.mark.parametrize(
    "content", [b"", b"RIFF", b"RIFF\0\0\0\0WAVE", b"RIFF\0\0\0\0WAVEdata\xff\xff\xff\xff"]
)
def test_a_broken_header_tells_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    assert times.start_of(tmp_path / "a.wav") is None
    assert times.start_of(tmp_path / "absent.wav") is None
