from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.signal
import soundfile
import soxr
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from birdkit import audio
from tests.conftest import REAL
from train.data.competition import Recording, read_competitions
from train.data.duplicates import (
    Group,
    correlation,
    drop_duplicates,
    find_duplicates,
    fingerprint,
    line,
)
from train.synthetic import birdsong

RATE = 32000


class Reader:
    """Reads files at 32 kHz and remembers which."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def __call__(self, path: Path) -> NDArray[np.float32]:
        self.read.append(path.name)
        return audio.read(path, RATE)


def song(seed: int, seconds: float = 6.0, label: str = "demris1") -> NDArray[np.float64]:
    """Of one species; each seed another singer, before noise."""
    rng = np.random.default_rng(seed)
    n = round(seconds * RATE)
    sound = birdsong.sing(birdsong.individual(birdsong.SONGS[label], rng), n, RATE, rng)
    return 0.1 * (sound + 0.05 * birdsong.coloured(n, 1.0, rng))


def write(
    path: Path, sound: NDArray[np.floating[Any]], quality: float = 0.5, rate: int = RATE
) -> Recording:
    """Ogg Vorbis of a quality from 0 (best) to 1; the Recording of it."""
    if rate != RATE:
        sound = soxr.resample(sound, RATE, rate)
    with soundfile.SoundFile(path, "w", rate, 1, compression_level=quality) as file:
        # By halves of seconds: libsndfile's Vorbis encoder overruns its stack on long buffers.
        for start in range(0, len(sound), rate // 2):
            file.write(sound[start : start + rate // 2])
    return Recording(path, "a", (), "Ann", soundfile.info(str(path)).duration)


def found(*recordings: Recording) -> list[Group]:
    return find_duplicates(recordings, Reader(), RATE)


def test_a_file_uploaded_twice_is_found(tmp_path: Path) -> None:
    first, second = (write(tmp_path / name, song(0)) for name in ("1.ogg", "2.ogg"))
    assert found(first, second) == [(first, second)]
    # Listed twice, it is as well.
    assert found(first, replace(first, primary="b")) == [(first, replace(first, primary="b"))]


@pytest.mark.parametrize(
    "quality, gain, rate", [(0.9, 1.0, RATE), (0.6, 0.05, RATE), (0.6, 0.5, 22050)]
)
@pytest.mark.parametrize("label", ["demtri1", "9000001", "9000003son1"])
def test_a_recording_encoded_anew_at_another_gain_or_rate_is_found(
    tmp_path: Path, label: str, quality: float, gain: float, rate: int
) -> None:
    sound = song(0, label=label)
    first = write(tmp_path / "1.ogg", sound)
    second = write(tmp_path / "2.ogg", gain * sound, quality, rate)
    assert found(first, second) == [(first, second)]
    # Far above the borders, as measured.
    sounds = [audio.read(each.path, RATE) for each in (first, second)]
    assert fingerprint(sounds[0], RATE) @ fingerprint(sounds[1], RATE) > 0.95
    assert correlation(sounds[0], sounds[1], RATE) > 0.85


def test_another_sound_of_the_same_author_and_length_is_none(tmp_path: Path) -> None:
    recordings = [write(tmp_path / f"{seed}.ogg", song(seed)) for seed in range(8)]
    reader = Reader()
    assert find_duplicates(recordings, reader, RATE) == []
    # By fingerprint: no waveforms had to be compared.
    assert len(reader.read) == 8


def test_noise_with_the_same_fades_is_none(tmp_path: Path) -> None:
    """They have one colour, rise and fall together in every band, and hold nothing else."""
    n = 6 * RATE
    fades = np.interp(np.arange(n), [0, RATE, 5 * RATE, n], [0, 1, 1, 0])
    noises = [0.1 * fades * birdsong.coloured(n, 1.0, np.random.default_rng(k)) for k in range(4)]
    recordings = [write(tmp_path / f"{k}.ogg", noise) for k, noise in enumerate(noises)]
    reader = Reader()
    assert find_duplicates(recordings, reader, RATE) == []
    assert len(reader.read) == 4


def test_like_calls_at_the_same_place_are_none(tmp_path: Path) -> None:
    """Of one fingerprint: only the waveforms tell such clips apart."""
    n = 2 * RATE
    loud = np.interp(np.arange(n), [0, 0.9 * RATE, RATE, 1.1 * RATE, n], [0.01, 0.01, 1, 0.01, 0.01])
    sounds = []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        sos = scipy.signal.butter(4, (3000, 4000), "bandpass", fs=RATE, output="sos")
        call = scipy.signal.sosfilt(sos, rng.standard_normal(n))
        sounds.append((0.3 * loud * call + 0.003 * rng.standard_normal(n)).astype(np.float32))
    assert fingerprint(sounds[0], RATE) @ fingerprint(sounds[1], RATE) > 0.9
    assert found(*(write(tmp_path / f"{k}.ogg", sound) for k, sound in enumerate(sounds))) == []


@given(st.integers(16, 2000), st.sampled_from([1e-3, -0.5, 1.0]), st.integers(0, 700))
def test_a_waveform_correlates_with_itself_at_any_gain_and_within_the_lag(
    size: int, gain: float, n_late: int
) -> None:
    sound = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    late = np.concatenate([np.zeros(n_late), gain * sound]).astype(np.float32)
    assert correlation(sound, late, 8000) == pytest.approx(1.0, abs=1e-3)


def test_a_fingerprint_holds_no_gain_and_silence_has_none() -> None:
    sound = song(0, 2.0).astype(np.float32)
    np.testing.assert_allclose(
        fingerprint(sound, RATE), fingerprint(sound / np.float32(64), RATE), atol=1e-6
    )
    assert np.linalg.norm(fingerprint(sound, RATE)) == pytest.approx(1.0)
    assert not fingerprint(np.zeros(1, dtype=np.float32), RATE).any()
    assert correlation(0 * sound, sound, RATE) == 0.0


def test_silence_and_the_shortest_recordings_are_borne(tmp_path: Path) -> None:
    silence = np.zeros(RATE)
    sounds: list[NDArray[np.float64]] = [silence, silence, np.zeros(1), song(0, 0.3), song(0, 0.3)]
    recordings = []
    for index, sound in enumerate(sounds):
        path = tmp_path / f"{index}.wav"
        soundfile.write(path, sound, RATE)
        recordings.append(Recording(path, "a", (), "Ann", len(sound) / RATE))
    assert found(*recordings) == [tuple(recordings[3:])]


def test_only_recordings_of_one_author_and_length_are_decoded(tmp_path: Path) -> None:
    """By what their headers say: here all hold the same."""
    same = write(tmp_path / "1.ogg", song(0, 2.0))
    lengths_s = {"1": 6.0, "2": 6.04, "3": 6.1, "4": 5.9, "5": 2.0, "6": 6.0}
    recordings = []
    for name, length_s in lengths_s.items():
        path = tmp_path / f"{name}.ogg"
        path.write_bytes(same.path.read_bytes())
        recordings.append(replace(same, path=path, duration_s=length_s))
    recordings[-1] = replace(recordings[-1], author="Bob")
    reader = Reader()
    assert find_duplicates(recordings, reader, RATE) == [tuple(recordings[:2])]
    assert set(reader.read) == {"1.ogg", "2.ogg"}
    assert find_duplicates([], reader, RATE) == []


def test_rows_of_one_file_and_copies_of_a_sound_are_not_compared_pair_by_pair(tmp_path: Path) -> None:
    one = write(tmp_path / "0.ogg", song(0, 1.0))
    copies = [
        replace(one, path=Path(shutil.copy(one.path, tmp_path / f"{k}.ogg"))) for k in range(1, 20)
    ]
    reader, rows = Reader(), [*[one] * 100, *copies, *[replace(one, author="Bob")] * 100]
    assert find_duplicates(rows, reader, RATE) == [tuple(rows)]
    assert Counter(reader.read).most_common(1)[0][1] <= 20
    assert len(reader.read) == 20 + 2 * 19  # a fingerprint each, and a comparison with each copy
    silent = tmp_path / "silent.wav"
    soundfile.write(silent, np.zeros(RATE), RATE)
    row = Recording(silent, "a", (), "Ann", 1.0)
    assert found(row, row) == [(row, row)]


def test_groups_are_joined_by_a_third_and_come_in_order(tmp_path: Path) -> None:
    first = [write(tmp_path / f"1{k}.ogg", song(1)) for k in range(3)]
    first = [replace(each, duration_s=6.0 + 0.04 * k) for k, each in enumerate(first)]
    second = [write(tmp_path / f"2{k}.ogg", song(2, 3.0)) for k in range(2)]
    mixed = [first[2], second[1], first[0], second[0], first[1]]
    assert found(*mixed) == [(first[2], first[0], first[1]), (second[1], second[0])]


# What is dropped


def listed(name: str, primary: str, *secondary: str) -> Recording:
    return Recording(Path("a") / name, primary, secondary, "Ann", 1.0)


def test_the_first_stays_with_the_labels_of_all() -> None:
    one, two, three = listed("1", "x", "y"), listed("2", "x", "z", "y"), listed("3", "x")
    other = listed("4", "z")
    kept, lines = drop_duplicates([one, other, two, three], [(one, two, three)])
    assert kept == [replace(one, secondary=("y", "z")), other]
    assert lines == ["a/1 = a/2 = a/3: a/2, a/3 left out, all labels joined in a/1"]


def test_no_class_loses_its_last_recording() -> None:
    group = (listed("1", "x"), listed("2", "y", "z"), listed("3", "x", "w"))
    kept, lines = drop_duplicates(group, [group])
    assert kept == [listed("1", "x", "y", "z", "w"), listed("2", "y", "x", "z", "w")]
    assert lines == ["a/1 = a/2 = a/3: a/3 left out, all labels joined in a/1, a/2"]
    kept, lines = drop_duplicates(group[:2], [group[:2]])
    assert [each.primary for each in kept] == ["x", "y"]
    assert lines == ["a/1 = a/2: all stay, for their primary labels differ; each has the labels of all"]


@given(st.lists(st.tuples(st.sampled_from("vwxyz"), st.sampled_from("vwxyz"), st.integers(0, 3))))
def test_every_class_that_was_primary_still_is_and_each_group_keeps_its_labels(
    rows: list[tuple[str, str, int]],
) -> None:
    recordings = [listed(f"{k}", first, second) for k, (first, second, _) in enumerate(rows)]
    members = [[r for r, row in zip(recordings, rows, strict=True) if row[2] == k] for k in range(3)]
    groups = [tuple(group) for group in members if len(group) > 1]
    kept, lines = drop_duplicates(recordings, groups)
    assert {each.primary for each in kept} == {each.primary for each in recordings}
    assert len(lines) == len(groups)
    for group in groups:
        paths = {each.path for each in group}
        stay = [each for each in kept if each.path in paths]
        assert len(stay) == len({each.primary for each in group})
        for each in stay:
            labels = {label for one in group for label in (one.primary, *one.secondary)}
            assert {each.primary, *each.secondary} == labels
            assert each.primary not in each.secondary


def test_a_row_listed_twice_stays_once() -> None:
    row = listed("1", "x")
    kept, lines = drop_duplicates([row, row], [(row, row)])
    assert kept == [row]
    assert len(lines) == 1


def test_without_groups_all_stay_as_they_are() -> None:
    recordings = [listed("1", "x"), listed("1", "x")]
    assert drop_duplicates(recordings, []) == (recordings, [])


def test_people_read_how_many_and_the_first_names() -> None:
    groups = [(listed(f"{k}", "x"), listed(f"{k}b", "x")) for k in range(4)]
    assert line(groups) == "4 recordings are there already (a/0 = a/0b; a/1 = a/1b; a/2 = a/2b; …)"
    assert line(groups[:1]) == "1 recordings are there already (a/0 = a/0b)"


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real recordings at {REAL}")
def test_real_recordings_of_one_author_and_length_are_not_taken_for_each_other() -> None:
    assert found(*read_competitions([REAL]).recordings) == []
