"""The command for one's own recordings: its scores, its tables, and whatever is wrong."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from birdkit.detections import windows
from birdkit.errors import UserError
from birdkit.grid import row_ids
from birdkit.recordings import journal
from tests.conftest import ROOT, block_imports, submission_detect, submit, write_sound
from tests.submission.test_run import FORBIDDEN

TABLES = ("windows.csv", "windows.parquet", "detections.csv", "recordings.csv", "raven.selections.txt")


def detect(out: Path, model_dir: Path, *arguments: str | Path) -> int:
    return submission_detect.main([*map(str, arguments), "--model", str(model_dir), "--out", str(out)])


def windows_of(out: Path) -> pd.DataFrame:
    """(recording, start) × class."""
    table = pd.read_parquet(out / "windows.parquet")
    return table.pivot(index=["recording", "start_s"], columns="class", values="score")


def contents(out: Path) -> dict[str, bytes]:
    """All that a run writes but its journal."""
    files = [path for path in out.rglob("*") if path.is_file() and journal.NAME not in path.name]
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


@pytest.fixture
def long_recording(competition: Path, tmp_path: Path) -> Path:
    """Five minutes of 48-kHz stereo."""
    path = tmp_path / "long" / "SITE_20250703_071500.wav"
    path.parent.mkdir()
    with soundfile.SoundFile(path, "w", 48000, 2, "PCM_16") as file:
        for source in sorted((competition / "train_soundscapes").glob("*.ogg"))[:5]:
            sound = np.resize(soundfile.read(source)[0], 60 * 48000)
            file.write(np.stack([sound, 0.5 * sound], axis=1))
    return path


def test_windows_are_those_of_a_submission_on_the_same_minutes(
    competition: Path, model_dir: Path, long_recording: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    minutes = data / "test_soundscapes"
    minutes.mkdir(parents=True)
    shutil.copy(competition / "sample_submission.csv", data)
    for minute in range(5):
        sound, rate = soundfile.read(long_recording, start=minute * 60 * 48000, frames=60 * 48000)
        soundfile.write(minutes / f"m{minute}.wav", sound, rate, subtype="PCM_16")
    submit(data, model_dir, tmp_path / "submission.csv", "--max-passes", "1")
    submitted = pd.read_csv(tmp_path / "submission.csv", index_col="row_id")
    submitted = submitted.loc[[row for minute in range(5) for row in row_ids(f"m{minute}", 12, 5.0)]]
    assert detect(tmp_path / "out", model_dir, long_recording, "--floor", "0") == 0
    scored = windows_of(tmp_path / "out")[submitted.columns]
    assert scored.shape == (60, submitted.shape[1])
    # The resampler begins anew in each minute, and answers otherwise within milliseconds of its ends.
    difference = np.abs(scored.to_numpy() - submitted.to_numpy()).reshape(5, 12, -1)
    assert difference[:, 1:-1].max() < 1e-5
    assert difference.max() < 0.01
    assert submitted.to_numpy().std() > 0.01


def test_a_second_run_scores_nothing_and_changes_nothing(
    model_dir: Path, long_recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (long_recording.parent, "--threshold", "0.1", "--clips", "1", "--join")
    assert detect(tmp_path / "out", model_dir, *arguments) == 0
    before = contents(tmp_path / "out")
    capsys.readouterr()
    assert detect(tmp_path / "out", model_dir, *arguments) == 0
    assert "1 recordings; 1 are scored already" in capsys.readouterr().out
    assert contents(tmp_path / "out") == before
    assert set(TABLES) < set(before)
    assert any(name.startswith("clips/") for name in before)


@pytest.mark.slow  # starts six processes, each of which imports an engine
def test_killed_at_any_moment_it_ends_with_the_same_tables(
    competition: Path, model_dir: Path, long_recording: Path, tmp_path: Path
) -> None:
    for source in sorted((competition / "train_soundscapes").glob("*.ogg")):
        for index in range(10):
            (long_recording.parent / f"{source.stem}-{index}.ogg").symlink_to(source)
    arguments = (long_recording.parent, "--threshold", "0.1", "--clips", "2", "--join")
    assert detect(tmp_path / "whole", model_dir, *arguments) == 0
    command = [sys.executable, str(ROOT / "submission" / "detect.py"), *map(str, arguments)]
    command += ["--model", str(model_dir), "--out", str(tmp_path / "out")]
    rng = random.Random(0)
    for _ in range(5):
        running = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while running.poll() is None and not (tmp_path / "out" / journal.NAME).exists():
            time.sleep(0.05)
        time.sleep(rng.uniform(0.5, 3.0))
        running.kill()
        running.wait()
    subprocess.run(command, check=True)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_bad_recordings_are_counted_and_named_and_the_exit_status_says_so(
    model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = write_sound(tmp_path / "in" / "good0.wav", 5.0, rate=8000)
    for index in range(1, 20):
        (tmp_path / "in" / f"good{index}.wav").symlink_to(good)
    for index in range(4):
        (tmp_path / "in" / f"bad{index}.wav").write_bytes(b"x" * index)
    assert detect(tmp_path / "out", model_dir, tmp_path / "in") == 3
    said = capsys.readouterr()
    named = [line.split(": ")[1] for line in said.err.splitlines() if line.startswith("bad recording")]
    assert named == [f"bad{index}.wav" for index in range(4)]
    assert "4 bad recordings: bad0.wav; bad1.wav; bad2.wav …" in said.out
    table = pd.read_csv(tmp_path / "out" / "recordings.csv", keep_default_na=False)
    assert len(table) == 24
    assert table.loc[table["fault"] != "", "recording"].tolist() == named


def test_any_rate_length_and_number_of_channels_is_taken(model_dir: Path, tmp_path: Path) -> None:
    write_sound(tmp_path / "in" / "a" / "x.wav", 7.0, rate=192000, channels=4)
    write_sound(tmp_path / "in" / "b" / "x.wav", 0.2, rate=8000)
    write_sound(tmp_path / "in" / "c.flac", 5.0, rate=44100, channels=2)
    assert detect(tmp_path / "out", model_dir, tmp_path / "in", "--floor", "0") == 0
    rows = windows_of(tmp_path / "out").index.tolist()
    expected = [("a/x.wav", 0.0), ("a/x.wav", 5.0), ("b/x.wav", 0.0), ("c.flac", 0.0)]
    assert rows == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no such file or folder"),
        (["empty"], "empty: no recordings there"),
        (["in", "--threshold", "1.5"], "must be from 0.0 to 1.0"),
        (["in", "--threshold", "0.1", "--floor", "0.2"], "--floor 0.2 is above the threshold 0.1"),
        (["in", "--species", "dodo"], "'dodo' is no class of the model"),
        (["in", "--taxonomy", "nowhere.csv"], "nowhere.csv: not found"),
        (["in", "--model", "empty"], "ensemble.json: not found"),
        (["in", "--out", "in/a.wav"], "--out in/a.wav"),
        (["in", "--layout", "fast"], "layout 'fast'"),
        (["in", "--layout", "1x2x4", "--threads", "2"], "--layout 1x2x4 has its own threads"),
        (["in", "--engine", "steam"], "engine 'steam' is unknown"),
    ],
)
def test_a_mistake_is_one_line_and_is_found_before_anything_is_scored(
    model_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_sound(tmp_path / "in" / "a.wav", 1.0, rate=8000)
    (tmp_path / "empty").mkdir()
    given = [*arguments] if "--model" in arguments else [*arguments, "--model", str(model_dir)]
    with pytest.raises(UserError) as error:
        submission_detect.main([*given, *([] if "--out" in arguments else ["--out", "out"])])
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out" / "windows.csv").exists()


def test_without_pyarrow_it_says_so_before_it_begins(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sound(tmp_path / "in" / "a.wav", 1.0, rate=8000)
    monkeypatch.setattr(windows, "pyarrow", None)
    with pytest.raises(UserError, match="pip install pyarrow"):
        detect(tmp_path / "out", model_dir, tmp_path / "in")
    assert not (tmp_path / "out").exists()


def test_copied_alone_with_nothing_of_ours_importable_it_detects(
    model_dir: Path, tmp_path: Path
) -> None:
    alone = tmp_path / "elsewhere"
    shutil.copytree(ROOT / "submission", alone / "kit", ignore=shutil.ignore_patterns("model"))
    shutil.copytree(model_dir, alone / "kit" / "model")
    write_sound(alone / "in" / "a.wav", 11.0, rate=8000)
    done = subprocess.run(
        [sys.executable, "kit/detect.py", "in"],
        cwd=alone, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(block_imports(tmp_path / "block", FORBIDDEN))},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "1 recordings, 11 s of sound" in done.stdout
    assert (alone / "detections" / "windows.csv").is_file()
