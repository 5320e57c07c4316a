from __future__ import annotations

import errno
import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from birdkit import audio
from tests.conftest import ROOT, write_sound
from train.config import provenance
from train.data import bad_files, progress, waveforms
from train.data.waveforms import FULL_SCALE, INDEX, Waveforms, to_float

RATE = 32000
BYTES_PER_S = 2 * RATE


@pytest.fixture
def sounds(tmp_path: Path) -> list[Path]:
    """Three recordings: at the right rate, to be resampled, and in stereo."""
    return [
        write_sound(tmp_path / "audio" / "right.ogg", 2.0),
        write_sound(tmp_path / "audio" / "cd.ogg", 1.5, 44100),
        write_sound(tmp_path / "audio" / "stereo.flac", 1.0, 22050, channels=2),
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were decoded, in the order of it."""
    files: list[str] = []
    read = audio.read

    def counting(path: Path, *args: Any, **kwargs: Any) -> NDArray[np.float32]:
        files.append(path.name)
        return read(path, *args, **kwargs)

    monkeypatch.setattr(audio, "read", counting)
    return files


def fill(folder: Path, wanted: Sequence[waveforms.Source], rate: int) -> str:
    """The line of a fill that meets no bad file."""
    line, faults = waveforms.fill(folder, wanted, rate)
    assert not faults
    return line


def whole(paths: list[Path]) -> list[waveforms.Source]:
    return [(path, None) for path in paths]


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.npy"))


def index_of(folder: Path) -> dict[str, str]:
    return provenance.read_store(folder / INDEX)


def disk_with(free: int) -> Callable[[Path], SimpleNamespace]:
    return lambda _: SimpleNamespace(free=free)


def assert_the_same(cached: NDArray[np.int16], uncached: NDArray[np.int16]) -> None:
    assert cached.dtype == uncached.dtype == np.int16
    assert not cached.flags.writeable
    assert not uncached.flags.writeable
    np.testing.assert_array_equal(cached, uncached)


@pytest.mark.parametrize("max_s", [None, 0.7])
def test_cached_and_uncached_are_the_same_bit_for_bit(
    sounds: list[Path], folder: Path, max_s: float | None
) -> None:
    line = fill(folder, [(path, max_s) for path in sounds], RATE)
    assert line == f"waveform cache {folder}: 3 recordings, 0.00 GB, 3 decoded now"
    cached, uncached = Waveforms(RATE, folder), Waveforms(RATE)
    for path in sounds:
        assert isinstance(cached(path, max_s), np.memmap)
        assert_the_same(cached(path, max_s), uncached(path, max_s))
    assert not cached._kept


def test_a_waveform_is_the_decoded_one_to_half_a_step(sounds: list[Path]) -> None:
    for path in sounds:
        floats = to_float(Waveforms(RATE)(path))
        assert type(floats) is np.ndarray
        assert floats.dtype == np.float32
        # Half a step, and the rounding of float32 twice.
        np.testing.assert_allclose(floats, audio.read(path, RATE), rtol=0, atol=0.5 / FULL_SCALE + 1e-7)


@given(st.integers(-FULL_SCALE, FULL_SCALE))
def test_every_int16_survives_the_way_to_float_and_back(value: int) -> None:
    there = to_float(np.array([value], dtype=np.int16))
    assert abs(there[0]) <= 1.0
    assert np.rint(there * FULL_SCALE)[0] == value


def test_full_scale_and_halves_are_quantised_as_documented(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "any.ogg"
    path.touch()
    floats = np.array([-1, 1, 0, 0.5 / FULL_SCALE, 1.5 / FULL_SCALE], dtype=np.float32)
    monkeypatch.setattr(audio, "read", lambda *_, **__: floats)
    assert Waveforms(RATE)(path).tolist() == [-FULL_SCALE, FULL_SCALE, 0, 0, 2]


def test_max_s_is_honoured_and_has_an_entry_of_its_own(sounds: list[Path], folder: Path) -> None:
    path = sounds[0]
    fill(folder, [(path, None), (path, 0.5), (path, 60)], RATE)
    assert len(entries(folder)) == 3
    cached = Waveforms(RATE, folder)
    assert cached(path, 0.5).size == RATE // 2
    np.testing.assert_array_equal(cached(path, 0.5), cached(path)[: RATE // 2])
    assert isinstance(cached(path, 60.0), np.memmap)
    assert cached(path, 60.0).size == cached(path).size == 2 * RATE


def test_another_rate_is_another_entry_in_place_of_the_first(sounds: list[Path], folder: Path) -> None:
    fill(folder, whole(sounds), RATE)
    assert Waveforms(RATE // 2, folder)(sounds[0]).size == RATE
    assert "3 recordings, 0.00 GB, 3 decoded now" in fill(folder, whole(sounds), RATE // 2)
    assert len(entries(folder)) == 3


def test_a_second_fill_decodes_nothing(sounds: list[Path], folder: Path, decoded: list[str]) -> None:
    fill(folder, whole(sounds), RATE)
    assert sorted(decoded) == ["cd.ogg", "right.ogg", "stereo.flac"]
    line = fill(folder, whole([*sounds, sounds[0]]), RATE)
    for path in sounds:
        Waveforms(RATE, folder)(path)
    assert len(decoded) == 3
    assert line.endswith("3 recordings, 0.00 GB, 0 decoded now")


def test_a_call_writes_nothing(sounds: list[Path], folder: Path) -> None:
    folder.mkdir()
    Waveforms(RATE, folder)(sounds[0])
    assert list(folder.iterdir()) == []


def test_a_changed_file_is_decoded_again_and_its_stale_entry_removed(
    sounds: list[Path], folder: Path, decoded: list[str]
) -> None:
    fill(folder, whole(sounds), RATE)
    before = set(entries(folder))
    old = Waveforms(RATE, folder)(sounds[0])
    old_values = old.copy()
    write_sound(sounds[0], 3.0)
    assert Waveforms(RATE, folder)(sounds[0]).size == 3 * RATE
    decoded.clear()
    assert "3 recordings, 0.00 GB, 1 decoded now" in fill(folder, whole(sounds), RATE)
    assert decoded == ["right.ogg"]
    assert len(entries(folder)) == 3
    assert len(set(entries(folder)) & before) == 2
    assert set(index_of(folder)) == {path.name for path in entries(folder)}
    assert isinstance(Waveforms(RATE, folder)(sounds[0]), np.memmap)
    np.testing.assert_array_equal(old, old_values)  # who has it mapped keeps it


def test_a_touched_file_is_another_entry(sounds: list[Path], folder: Path) -> None:
    fill(folder, whole(sounds), RATE)
    os.utime(sounds[0], (1e9, 1e9))
    assert not isinstance(Waveforms(RATE, folder)(sounds[0]), np.memmap)


def test_entries_of_other_recordings_stay_until_their_source_is_gone(
    sounds: list[Path], folder: Path, tmp_path: Path
) -> None:
    other = write_sound(tmp_path / "other" / "x.ogg", 1.0)
    fill(folder, whole([other]), RATE)
    (entry,) = entries(folder)
    fill(folder, whole(sounds), RATE)
    assert len(entries(folder)) == 4
    other.unlink()
    fill(folder, whole(sounds), RATE)
    assert len(entries(folder)) == 3
    assert not entry.exists()


def test_a_short_disk_gets_the_first_recordings_and_is_named_with_the_need(
    sounds: list[Path], folder: Path, monkeypatch: pytest.MonkeyPatch, decoded: list[str]
) -> None:
    # Right, at a seconds cap, at another rate: 2.0 + 1.5 + 0.5 s.
    wanted = [(sounds[0], 60.0), (sounds[1], None), (sounds[2], 0.5)]
    needed = round(4.0 * BYTES_PER_S)
    monkeypatch.setattr(shutil, "disk_usage", disk_with(waveforms.RESERVE_BYTES + needed - 1))
    short = (
        "1 recordings are decoded as they are drawn, since 0.0 GB and 2.1 GB to spare are needed, "
        "2.1 GB are free"
    )
    assert waveforms.forecast(folder, wanted, RATE) == (
        "waveform cache: 2 recordings (1 of them soundscapes) of 3 are to be decoded once, "
        f"into {folder}; {short}"
    )
    assert not folder.exists()
    line = fill(folder, wanted, RATE)
    assert line == f"waveform cache {folder}: 2 recordings, 0.00 GB, 2 decoded now; {short}"
    assert len(entries(folder)) == 2
    assert sorted(decoded) == ["cd.ogg", "right.ogg", "stereo.flac"]  # the last one's body is checked
    assert Waveforms(RATE, folder)(sounds[0]).size == 2 * RATE
    monkeypatch.setattr(shutil, "disk_usage", disk_with(waveforms.RESERVE_BYTES + needed))
    assert "1 decoded now" in fill(folder, wanted, RATE)
    held = f"waveform cache {folder}: holds all 3 recordings"
    assert waveforms.forecast(folder, wanted, RATE) == held


def test_a_short_disk_is_no_matter_where_all_is_there(
    sounds: list[Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(folder, whole(sounds), RATE)
    monkeypatch.setattr(shutil, "disk_usage", disk_with(0))
    assert "0 decoded now" in fill(folder, whole(sounds), RATE)


@pytest.fixture
def limited_files() -> Iterator[None]:
    """No file may grow beyond 100,000 bytes: a write fails midway, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_write_that_fails_midway_leaves_what_was_written_and_that_is_used(
    sounds: list[Path], folder: Path, limited_files: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "usable_cores", lambda: 1)
    by_size = sounds[::-1]  # of 64,000, 96,000 and 128,000 bytes
    line = fill(folder, whole(by_size), RATE)
    assert line == (
        f"waveform cache: File too large in {folder}; "
        "recordings that it lacks are decoded as they are drawn"
    )
    assert sorted(folder.iterdir()) == sorted(
        [*entries(folder), folder / INDEX, folder / bad_files.DECODED_NAME]
    )
    waves = [Waveforms(RATE, folder)(path) for path in by_size]
    assert [isinstance(wave, np.memmap) for wave in waves] == [True, True, False]
    for path, wave in zip(by_size, waves, strict=True):
        assert_the_same(wave, Waveforms(RATE)(path))


def test_a_disk_that_fills_up_is_named_and_the_next_fill_goes_on(
    sounds: list[Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync, synced = os.fsync, []

    def until_full(file: int) -> None:
        synced.append(file)
        if len(synced) > 2:  # the index and one entry
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(file)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", until_full)
        line = fill(folder, whole(sounds), RATE)
    assert line.startswith(f"waveform cache: No space left on device in {folder}; ")
    assert sorted(folder.iterdir()) == sorted([*entries(folder), folder / INDEX])
    assert len(entries(folder)) == 1
    assert "2 decoded now" in fill(folder, whole(sounds), RATE)


def test_a_folder_that_cannot_be_made_is_said_and_no_error(sounds: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    line = fill(tmp_path / "file" / "cache", whole(sounds), RATE)
    assert line.startswith("waveform cache: Not a directory in ")
    assert Waveforms(RATE, tmp_path / "file" / "cache")(sounds[0]).size == 2 * RATE


KILLED = """
import resource, signal, sys
from pathlib import Path
from train.config import provenance
from train.data import progress, waveforms

signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
waveforms.fill(Path(sys.argv[1]), [(Path(sys.argv[2]), None)], 32000)
"""


@pytest.mark.slow
def test_a_fill_killed_in_mid_write_leaves_no_entry_and_its_litter_goes_later(
    sounds: list[Path], folder: Path
) -> None:
    path = os.pathsep.join([str(ROOT), str(ROOT / "submission")])
    arguments = [sys.executable, "-c", KILLED, str(folder), str(sounds[0])]
    done = subprocess.run(arguments, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == -signal.SIGXFSZ
    (litter,) = folder.glob("*.partial")
    assert litter.stat().st_size == 100_000
    assert entries(folder) == []
    assert_the_same(Waveforms(RATE, folder)(sounds[0]), Waveforms(RATE)(sounds[0]))
    assert "1 decoded now" in fill(folder, whole(sounds[:1]), RATE)
    assert litter.exists()  # for all one knows, another fill is at it
    long_ago = time.time() - waveforms.ABANDONED_S - 1
    os.utime(litter, (long_ago, long_ago))
    fill(folder, whole(sounds[:1]), RATE)
    assert not litter.exists()


def damage_to(entry: Path) -> Iterator[bytes]:
    good = entry.read_bytes()
    floats = entry.with_name("floats.npy")
    np.save(floats, np.zeros(1000, dtype=np.float32))
    square = entry.with_name("square.npy")
    np.save(square, np.zeros((10, 10), dtype=np.int16))
    yield from (b"", good[:5], good[:60], good[:-1], b"PK\x03\x04" + good[4:], bytes(len(good)))
    yield good.replace(b"{'descr'", b"{{{{scr'")
    yield floats.read_bytes()
    yield square.read_bytes()


def test_a_corrupt_entry_is_named_and_rewritten_by_a_call_and_by_a_fill(
    sounds: list[Path], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, right = sounds[0], Waveforms(RATE)(sounds[0])
    fill(folder, whole([path]), RATE)
    (entry,) = entries(folder)
    for damaged in list(damage_to(entry)):
        entry.write_bytes(damaged)
        assert f"1 decoded now, 1 of them for damaged entries ({entry.name})" in fill(
            folder, whole([path]), RATE
        )
        entry.write_bytes(damaged)
        waveforms._checked.clear()
        assert_the_same(Waveforms(RATE, folder)(path), right)
        assert capsys.readouterr().err == (
            f"waveform cache: {entry} is damaged; {path} is decoded again\n"
        )
        assert isinstance(Waveforms(RATE, folder)(path), np.memmap)
        assert "0 decoded now" in fill(folder, whole([path]), RATE)


@given(st.data())
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_bit_anywhere_in_an_entry_is_noticed_when_it_is_first_mapped(
    folder: Path, tmp_path: Path, data: st.DataObject
) -> None:
    path = tmp_path / "short.wav"
    if not path.exists():
        write_sound(path, 0.01)
    fill(folder, whole([path]), RATE)
    (entry,) = entries(folder)
    content = bytearray(entry.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    entry.write_bytes(content)
    waveforms._checked.clear()  # as in another process
    assert_the_same(Waveforms(RATE, folder)(path), Waveforms(RATE)(path))
    assert entry.read_bytes() != content


def test_a_checksum_is_computed_once_a_process(
    sounds: list[Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(folder, whole(sounds[:1]), RATE)
    for _ in range(2):
        assert isinstance(Waveforms(RATE, folder)(sounds[0]), np.memmap)
        monkeypatch.setattr(zlib, "crc32", None)


def test_a_damaged_entry_that_cannot_be_rewritten_is_decoded(
    sounds: list[Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(folder, whole(sounds[:1]), RATE)
    (entry,) = entries(folder)
    entry.write_bytes(bytes(len(entry.read_bytes())))

    def read_only(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(waveforms, "write_whole", read_only)
    assert_the_same(Waveforms(RATE, folder)(sounds[0]), Waveforms(RATE)(sounds[0]))


def test_a_cache_of_the_kit_that_kept_no_checksums_is_made_again(
    sounds: list[Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(waveforms, "VERSION", waveforms.VERSION.replace("2", "1", 1))
        fill(folder, whole(sounds), RATE)
    for entry in entries(folder):
        entry.write_bytes(entry.read_bytes()[: -waveforms.N_CHECKSUM])
    (folder / INDEX).write_text(json.dumps(index_of(folder)))
    assert fill(folder, whole(sounds), RATE).endswith("3 decoded now")
    assert len(entries(folder)) == 3


def test_threads_share_the_memory(tmp_path: Path) -> None:
    waves = Waveforms(8000, memory_bytes=5000)
    paths = [write_sound(tmp_path / f"{k}.wav", 0.1, 8000) for k in range(20)]
    sizes = progress.in_threads(lambda path: waves(path).size, paths * 20, "")
    assert sizes == [800] * 400


def test_a_corrupt_index_is_begun_anew(sounds: list[Path], folder: Path) -> None:
    fill(folder, whole(sounds[:1]), RATE)
    (folder / INDEX).write_text('{"a')
    assert "3 recordings, 0.00 GB, 2 decoded now" in fill(folder, whole(sounds), RATE)


def test_files_that_cannot_be_decoded_are_named_and_the_others_are_there(
    sounds: list[Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = sounds[0].with_name("broken.ogg")
    broken.write_bytes(b"OggS, and then nothing of the kind")
    for disk in (disk_with(0), disk_with(1 << 50)):
        monkeypatch.setattr(shutil, "disk_usage", disk)
        line, faults = waveforms.fill(folder, whole([broken, *sounds]), RATE)
        assert list(faults) == [broken]
        assert faults[broken].startswith("can't be decoded (")
    assert line == f"waveform cache {folder}: 3 recordings, 0.00 GB, 3 decoded now"
    assert len(entries(folder)) == 3
    with pytest.raises(audio.AudioError, match=r"broken\.ogg: can't be"):
        Waveforms(RATE, folder)(broken)
    with pytest.raises(audio.AudioError, match=r"absent\.ogg: can't be"):
        Waveforms(RATE, folder)(sounds[0].with_name("absent.ogg"))
    assert list(folder.glob("*.partial")) == []


@pytest.mark.parametrize("n_header", [20 * RATE * 3600 * 24, 2**63 - 1])
def test_a_header_that_promises_days_does_not_switch_the_cache_off(
    sounds: list[Path], folder: Path, monkeypatch: pytest.MonkeyPatch, n_header: int
) -> None:
    monkeypatch.setattr(soundfile.SoundFile, "frames", n_header)
    assert "3 recordings, 0.00 GB, 3 decoded now" in fill(folder, whole(sounds), RATE)


def test_it_is_pickled_without_what_it_keeps(sounds: list[Path], folder: Path) -> None:
    kept = Waveforms(RATE, folder, 12_345_678)
    right = kept(sounds[0])
    pickled = pickle.dumps(kept)
    assert len(pickled) < 1000
    again = pickle.loads(pickled)
    assert (again.sample_rate, again.folder, again.memory_bytes) == (RATE, folder, 12_345_678)
    assert_the_same(again(sounds[0]), right)


def test_the_memory_holds_the_latest_within_its_bound(sounds: list[Path], decoded: list[str]) -> None:
    right, cd, stereo = sounds  # of 2.0, 1.5 and 1.0 s
    waves = Waveforms(RATE, memory_bytes=round(3.5 * BYTES_PER_S))
    for path in (right, cd, right):
        waves(path)
    assert decoded == ["right.ogg", "cd.ogg"]
    waves(stereo)  # drops cd, the one not asked for the longest
    waves(right)
    assert decoded == ["right.ogg", "cd.ogg", "stereo.flac"]
    waves(cd)
    assert decoded[3:] == ["cd.ogg"]
    assert sum(kept.nbytes for kept in waves._kept.values()) <= waves.memory_bytes


def test_a_recording_larger_than_the_memory_is_given_and_not_kept(sounds: list[Path]) -> None:
    waves = Waveforms(RATE, memory_bytes=1000)
    assert waves(sounds[0]).size == 2 * RATE
    assert not waves._kept
