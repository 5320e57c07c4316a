from __future__ import annotations

import importlib.util
import itertools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.signal
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from birdkit import audio
from birdkit.errors import UserError
from tests.conftest import REAL
from train.data import speech
from train.data.speech import SpeechDetector, find_speech, notes, runs, speech_stretches, without_speech
from train.synthetic import birdsong

FORMANTS_HZ = ((700, 1200, 2600), (300, 2300, 3000), (500, 1800, 2500), (320, 800, 2300))


def speak(seconds: float, rate: int, seed: int) -> NDArray[np.float32]:
    """A voice of 120 Hz that says four vowels a second."""
    rng = np.random.default_rng(seed)
    n, n_vowel = round(seconds * rate), round(0.22 * rate)
    f0_hz = 120 + 25 * np.sin(2 * np.pi * 0.7 * np.arange(n) / rate)
    pulses = np.diff(np.floor(np.cumsum(f0_hz) / rate), prepend=0.0)
    glottis = scipy.signal.lfilter([1], [1, -0.97], pulses) + 0.005 * rng.standard_normal(n)
    voice = np.zeros(n)
    for start in range(0, n - n_vowel, rate // 4):
        vowel = glottis[start : start + n_vowel]
        for hz in FORMANTS_HZ[rng.integers(len(FORMANTS_HZ))]:
            radius = np.exp(-np.pi * 90 / rate)
            poles = [1, -2 * radius * np.cos(2 * np.pi * hz / rate), radius**2]
            vowel = scipy.signal.lfilter([1], poles, vowel)
        voice[start : start + n_vowel] = vowel * scipy.signal.windows.tukey(n_vowel, 0.5)
    return (0.5 * voice / np.abs(voice).max()).astype(np.float32)


def announced(rate: int, seed: int = 3) -> NDArray[np.float32]:
    """A voice from 1 s to 3.5 s of 6 s, over faint noise."""
    sound = 0.001 * np.random.default_rng(seed).standard_normal(6 * rate).astype(np.float32)
    sound[rate : round(3.5 * rate)] += speak(2.5, rate, seed)
    return sound


@pytest.fixture(scope="module")
def detector() -> SpeechDetector:
    return SpeechDetector()


@pytest.mark.parametrize("rate", [16000, 32000, 44100])
def test_a_voice_is_found_where_it_speaks(detector: SpeechDetector, rate: int) -> None:
    for seed in range(3):
        found = detector(announced(rate, seed), rate)
        spoken = np.zeros(600, dtype=bool)
        for start, end in found:
            spoken[round(100 * start) : round(100 * end)] = True
        assert spoken[100:350].mean() > 0.5
        # Padding, and the frames that the network takes to fall silent.
        assert not spoken[:60].any()
        assert not spoken[440:].any()


def test_neither_songs_nor_noise_nor_silence_are_speech(detector: SpeechDetector) -> None:
    rate = birdsong.RATE_HZ
    rng = np.random.default_rng(0)
    sounds = [birdsong.recording(label, 0, rng)[0] for label in birdsong.LABELS for _ in range(2)]
    sounds += [0.3 * rng.standard_normal(5 * rate), 0.1 * birdsong.coloured(5 * rate, 2.0, rng)]
    sounds += [np.zeros(5 * rate), np.zeros(1), np.zeros(0)]
    for sound in sounds:
        assert detector(sound.astype(np.float32), rate) == ()


def test_probabilities_are_those_of_the_package(detector: SpeechDetector) -> None:
    """Exactly so: it is the same network, run on a sequence at once rather than by frames."""
    torch = pytest.importorskip("torch")
    package = pytest.importorskip("silero_vad.utils_vad")
    reference = package.OnnxWrapper(str(speech._network().with_name("silero_vad.onnx")), True)
    # Over a border of blocks (16.4 s), and with a last frame that is not full.
    sound = np.tile(announced(16000), 3)[: 17 * 16000 + 7]
    expected = reference.audio_forward(torch.from_numpy(sound), 16000)[0].numpy()
    assert expected.max() > 0.9
    np.testing.assert_allclose(detector.probabilities(sound), expected, rtol=0, atol=1e-6)


levels = st.sampled_from([0.0, 0.34, 0.35, 0.36, 0.49, 0.5, 1.0])
courses = st.lists(st.tuples(levels, st.integers(1, 10)), max_size=12).map(
    lambda parts: np.repeat([p for p, _ in parts], [n for _, n in parts]).astype(np.float32)
)


@given(courses)
def test_runs_are_those_of_the_package(course: NDArray[np.float32]) -> None:
    package = pytest.importorskip("silero_vad.utils_vad")
    expected = package.get_speech_timestamps_from_probs(course, speech_pad_ms=0)
    assert [(a * 512, b * 512) for a, b in runs(course)] == [(e["start"], e["end"]) for e in expected]


@given(courses, st.integers(0, 511))
def test_stretches_hold_the_runs_lie_apart_and_within_the_recording(
    course: NDArray[np.float32], n_lacking: int
) -> None:
    duration_s = max(0, course.size * 512 - n_lacking) / 16000
    found = speech_stretches(course, duration_s)
    edges = [edge for stretch in found for edge in stretch]
    assert edges == sorted(set(edges))
    assert all(0 <= edge <= duration_s for edge in edges)
    for first, last in runs(course):
        last_s = min(last * 0.032, duration_s)
        assert any(s <= first * 0.032 + 1e-9 and last_s <= e + 1e-9 for s, e in found)


def test_a_run_is_padded_on_both_sides() -> None:
    course = np.zeros(200, dtype=np.float32)
    course[50:100] = 1.0
    (stretch,) = speech_stretches(course, 6.4)
    assert stretch == pytest.approx((1.6 - 0.2, 3.2 + 0.2))


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install --no-deps silero-vad=="):
        SpeechDetector()


# The store


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{index}.wav" for index in range(4)]
    for index, path in enumerate(paths):
        path.write_bytes(bytes(index))
    return paths


class Reader:
    """Announced recordings where the number is odd; counts what is read."""

    def __init__(self, stop_at: str | None = None) -> None:
        self.read: list[str] = []
        self.stop_at = stop_at

    def __call__(self, path: Path) -> NDArray[np.float32]:
        if path.name == self.stop_at:
            raise KeyboardInterrupt
        self.read.append(path.name)
        return announced(16000) if int(path.stem) % 2 else np.zeros(16000, dtype=np.float32)


def search(
    files: list[Path], store: Path, stop_at: str | None = None
) -> tuple[dict[Path, speech.Stretches], list[str]]:
    reader = Reader(stop_at)
    return find_speech(files, reader, 16000, store), reader.read


def test_a_second_search_reads_nothing_and_finds_the_same(files: list[Path], tmp_path: Path) -> None:
    store = tmp_path / "new" / "speech.json"
    first, read = search(files, store)
    assert read == ["0.wav", "1.wav", "2.wav", "3.wav"]
    assert [bool(first[path]) for path in files] == [False, True, False, True]
    again, read = search(files, store)
    assert read == []
    assert again == first
    assert os.listdir(store.parent) == ["speech.json"]


def test_only_a_changed_or_new_file_is_searched_again(files: list[Path], tmp_path: Path) -> None:
    store = tmp_path / "speech.json"
    search(files[:3], store)
    files[0].write_bytes(b"longer")
    facts = files[1].stat()
    os.utime(files[1], ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    assert search(files, store)[1] == ["0.wav", "1.wav", "3.wav"]


def test_a_search_of_some_forgets_no_others(files: list[Path], tmp_path: Path) -> None:
    store = tmp_path / "speech.json"
    search(files[:2], store)
    found, _ = search(files[2:], store)
    assert list(found) == files[2:]
    assert search(files, store)[1] == []


def test_an_interrupted_search_goes_on(files: list[Path], tmp_path: Path) -> None:
    store = tmp_path / "speech.json"
    with pytest.raises(KeyboardInterrupt):
        search(files, store, stop_at="2.wav")
    assert search(files, store)[1] == ["2.wav", "3.wav"]


def test_a_killed_search_loses_no_more_than_it_has_not_saved(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speech, "SAVE_EVERY_S", 1.5)
    clock = itertools.count()
    monkeypatch.setattr("train.data.speech.time.monotonic", lambda: next(clock))
    store = tmp_path / "speech.json"
    saved = []

    def read(path: Path) -> NDArray[np.float32]:
        saved.append(len(json.loads(store.read_text())["found"]) if store.exists() else 0)
        return np.zeros(16000, dtype=np.float32)

    find_speech(files, read, 16000, store)
    assert saved == [0, 0, 2, 2]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"made_by": "?"}', '{"made_by": MADE_BY, "found": [1]}', "\x00"]
)
def test_an_unreadable_store_or_one_of_other_settings_is_begun_anew(
    files: list[Path], tmp_path: Path, text: str
) -> None:
    store = tmp_path / "speech.json"
    search(files, store)
    made_by = json.loads(store.read_text())["made_by"]
    store.write_text(text.replace("MADE_BY", json.dumps(made_by)))
    assert len(search(files, store)[1]) == 4
    assert search(files, store)[1] == []


def test_another_sample_rate_is_another_search(files: list[Path], tmp_path: Path) -> None:
    search(files, tmp_path / "speech.json")
    reader = Reader()
    find_speech(files, reader, 32000, tmp_path / "speech.json")
    assert len(reader.read) == 4


# The cut


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_the_cut_takes_out_the_stretches_and_keeps_the_kind(dtype: type[Any]) -> None:
    sound = np.arange(1000).astype(dtype)
    cut = without_speech(sound, ((1.0, 2.5), (9.0, 10.0)), 100, 1.0)
    assert cut.dtype == dtype
    np.testing.assert_array_equal(cut, [*range(100), *range(250, 900)])


def test_a_recording_of_which_too_little_would_remain_stays_whole() -> None:
    sound = np.arange(1000, dtype=np.int16)
    assert without_speech(sound, ((0.0, 8.0),), 100, 2.0).size == 200
    assert without_speech(sound, ((0.0, 8.01),), 100, 2.0).size == 1000
    assert without_speech(sound, ((0.0, 10.0),), 100, 0.0).size == 1000
    assert without_speech(sound, (), 100, 99.0).size == 1000


borders = st.integers(-20, 120)


@given(st.integers(1, 100), st.lists(st.tuples(borders, borders), max_size=5), st.integers(0, 100))
def test_what_remains_is_all_that_no_stretch_holds_or_everything(
    size: int, ends: list[tuple[int, int]], least: int
) -> None:
    stretches = tuple((start / 10, end / 10) for start, end in ends)
    outside = [k for k in range(size) if not any(start <= k < end for start, end in ends)]
    cut = without_speech(np.arange(size, dtype=np.float32), stretches, 10, least / 10)
    np.testing.assert_array_equal(cut, outside if len(outside) >= max(1, least) else np.arange(size))


def test_people_read_how_much_speech_was_found(tmp_path: Path) -> None:
    found = {tmp_path / "a": ((0.0, 60.0), (70.0, 100.0)), tmp_path / "b": ()}
    assert notes(found) == ["human speech in 1 of 2 recordings, 1.5 minutes in all"]
    assert notes({tmp_path / "b": ()}) == []


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real recordings at {REAL}")
def test_a_real_announcement_is_found_and_the_song_after_it_kept(detector: SpeechDetector) -> None:
    """A recordist speaks in the first 1.8 s of XC362025; then a troupial sings."""
    sound = audio.read(REAL / "train_audio" / "ventro1" / "XC362025.ogg", 32000)
    ((start, end),) = detector(sound, 32000)
    assert start < 0.3
    assert 1.6 < end < 2.2
