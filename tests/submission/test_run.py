"""The submission alone, as Kaggle runs it; and what it does with everything that can be wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from numpy.typing import NDArray

from birdkit.contract import Contract
from birdkit.errors import UserError
from birdkit.grid import row_ids
from birdkit.kaggle import manifest, mounts, session, table
from birdkit.kaggle.bad_file_rows import fill_missing
from birdkit.scoring import ensemble, predict
from birdkit.scoring.parts import SoundFile
from tests.conftest import ROOT, block_imports, submit, write_sound
from tests.conftest import submission_run as run
from train.models.checkpoint import Final
from train.scoring import evaluate

FORBIDDEN = (
    "torch",
    "timm",
    "onnx",
    "librosa",
    "nncf",
    "sklearn",
    "scipy",
    "train",
    "export",
    "tqdm",
    "matplotlib",
)


@pytest.fixture
def scored(competition: Path, tmp_path: Path) -> Path:
    """A competition folder whose test soundscapes are there, as in the scoring rerun."""
    data = tmp_path / "data"
    data.mkdir()
    for name in ("sample_submission.csv", "taxonomy.csv"):
        shutil.copy(competition / name, data / name)
    shutil.copytree(competition / "train_soundscapes", data / "train_soundscapes")
    (data / "test_soundscapes").mkdir()
    for path in sorted((competition / "validation" / "soundscapes").glob("*.ogg"))[:3]:
        shutil.copy(path, data / "test_soundscapes" / path.name)
    return data


def read(out: Path) -> pd.DataFrame:
    return pd.read_csv(out, dtype={"row_id": str}).set_index("row_id")


def assert_valid(out: Path, data: Path, stems: list[str], **counts: int) -> pd.DataFrame:
    """A table of twelve rows a file, or of as many as `counts` says."""
    submission = read(out)
    expected = [row_id for stem in stems for row_id in row_ids(stem, counts.get(stem, 12), 5.0)]
    assert submission.index.tolist() == expected
    sample = pd.read_csv(data / "sample_submission.csv", nrows=0).columns.tolist()
    assert ["row_id", *submission.columns] == sample
    assert np.isfinite(submission.to_numpy()).all()
    return submission


def stems(data: Path) -> list[str]:
    return [path.stem for path in mounts.soundscapes(data / "test_soundscapes")]


@pytest.mark.parametrize("engine", ["auto", "onnxruntime"])
def test_copied_alone_with_nothing_of_ours_importable_it_scores(
    scored: Path, model_dir: Path, tmp_path: Path, engine: str
) -> None:
    alone = tmp_path / "elsewhere"
    shutil.copytree(ROOT / "submission", alone / "submission", ignore=shutil.ignore_patterns("model"))
    shutil.copytree(model_dir, alone / "submission" / "model")
    block = block_imports(tmp_path / "block", FORBIDDEN)
    done = subprocess.run(
        [sys.executable, "submission/run.py", "--data", str(scored), "--engine", engine],
        cwd=alone, env={**os.environ, "PYTHONPATH": str(block)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    submission = assert_valid(alone / "submission.csv", scored, stems(scored))
    assert submission.std().min() > 0
    last = done.stdout.splitlines()[-1]
    assert "36 rows from 3/3 files" in last
    assert "700 files would take" in last
    assert ("openvino" in last) == (engine == "auto")


def test_both_engines_write_the_same_table_as_torch(
    scored: Path, model_dir: Path, run_dir: Path, tmp_path: Path
) -> None:
    tables = []
    for engine in ("openvino", "onnxruntime"):
        submit(scored, model_dir, tmp_path / f"{engine}.csv", "--engine", engine, "--max-passes", "1")
        tables.append(read(tmp_path / f"{engine}.csv"))
    finals = {path.parent.name: Final.load(path) for path in run_dir.glob("round0/*/final.pt")}
    cpu = torch.device("cpu")
    engines = {name: evaluate.TorchEngine(final.predictor(), cpu) for name, final in finals.items()}
    teacher = ensemble.Ensemble(engines, ensemble.Spec.load(model_dir))
    files = [SoundFile(path, 12) for path in mounts.soundscapes(scored / "test_soundscapes")]
    scores = predict.predict(files, teacher.score, teacher.contract).scores
    combined = ensemble.combine(scores, teacher.spec)
    reference = np.concatenate([of_file for of_file in combined if of_file is not None])
    for submission in tables:
        by_class = submission[list(teacher.contract.classes)].to_numpy()
        np.testing.assert_allclose(by_class, reference, atol=1e-5)


def test_the_commit_run_scores_train_soundscapes(
    scored: Path, model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (scored / "test_soundscapes").iterdir():
        path.unlink()
    assert submit(scored, model_dir, tmp_path / "s.csv") == 0
    assert "commit run" in capsys.readouterr().out
    names = [path.stem for path in mounts.soundscapes(scored / "train_soundscapes")]
    assert_valid(tmp_path / "s.csv", scored, names[: session.COMMIT_RUN_FILES])


Spoil = Callable[[Path], object]

BAD_FILES: dict[str, Spoil] = {
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(b"no sound" * 500),
    "no_samples": lambda path: soundfile.write(path, np.zeros(0), 32000),
    "pipe": os.mkfifo,
}
UNUSUAL_FILES: dict[str, Spoil] = {
    "short": lambda path: write_sound(path, 0.3),
    "stereo": lambda path: write_sound(path, 60.0, 32000, 2),
    "rate44": lambda path: write_sound(path, 60.0, 44100),
    "long": lambda path: write_sound(path, 75.0),
}


def test_the_scoring_rerun_survives_bad_files_counts_and_names_them(
    scored: Path, model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = stems(scored)
    for name, make in {**BAD_FILES, **UNUSUAL_FILES}.items():
        make(scored / "test_soundscapes" / f"{name}.ogg")
    soundfile.write(scored / "test_soundscapes" / "silent.wav", np.zeros(60 * 32000), 32000)
    spoilt = np.tile([0.1, np.nan, np.inf, 0.2], 480_000)
    soundfile.write(scored / "test_soundscapes" / "nan.wav", spoilt, 32000, subtype="FLOAT")
    assert submit(scored, model_dir, tmp_path / "s.csv") == 0
    submission = assert_valid(tmp_path / "s.csv", scored, stems(scored), short=1, long=15)
    warning = capsys.readouterr().err
    assert "4 bad files hold medians" in warning
    for name in BAD_FILES:
        assert f"{name}.ogg" in warning
        rows = submission.loc[row_ids(name, 12, 5.0)]
        assert (rows.nunique() == 1).all()
    scored_rows = submission.drop(index=[i for name in BAD_FILES for i in row_ids(name, 12, 5.0)])
    np.testing.assert_allclose(
        submission.loc["empty_5"].to_numpy(), scored_rows.median().to_numpy(), atol=1e-6
    )
    # The good files' rows are those of a run without the bad ones.
    for name in {**BAD_FILES, **UNUSUAL_FILES}:
        (scored / "test_soundscapes" / f"{name}.ogg").unlink()
    (scored / "test_soundscapes" / "silent.wav").unlink()
    (scored / "test_soundscapes" / "nan.wav").unlink()
    submit(scored, model_dir, tmp_path / "clean.csv")
    clean = assert_valid(tmp_path / "clean.csv", scored, good)
    np.testing.assert_allclose(submission.loc[clean.index].to_numpy(), clean.to_numpy(), atol=1e-6)


@pytest.mark.parametrize("change", ["altered", "missing", "extra"])
def test_a_kit_that_is_not_as_it_was_bundled_is_refused_by_a_strict_run_and_named_by_a_rerun(
    scored: Path,
    model_dir: Path,
    tmp_path: Path,
    change: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kit = tmp_path / "kit"
    shutil.copytree(ROOT / "submission", kit, ignore=shutil.ignore_patterns("model", "__pycache__"))
    shutil.copytree(model_dir, kit / "model")
    manifest.write(kit)
    monkeypatch.setattr(run, "HERE", kit)
    assert submit(scored, kit / "model", tmp_path / "s.csv", "--strict") == 0
    spoilt = kit / "model" / ("extra.onnx" if change == "extra" else "test_resnet.xml")
    if change == "missing":
        spoilt.unlink()
    else:
        spoilt.write_text("<net/>")
    with pytest.raises(UserError, match=rf"model/{spoilt.name}.*bundle and upload it again"):
        submit(scored, kit / "model", tmp_path / "strict.csv", "--strict")
    assert not (tmp_path / "strict.csv").exists()
    capsys.readouterr()
    assert submit(scored, kit / "model", tmp_path / "rerun.csv") == 0
    assert f"model/{spoilt.name}" in capsys.readouterr().err
    report = json.loads((tmp_path / "rerun.csv.report.json").read_text())
    assert any(f"model/{spoilt.name}" in note for note in report["notes"])
    pd.testing.assert_frame_equal(
        read(tmp_path / "rerun.csv"), read(tmp_path / "s.csv"), atol=1e-5, rtol=0
    )


def test_a_strict_run_fails_on_a_bad_file_by_name(
    scored: Path, model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    BAD_FILES["garbage"](scored / "test_soundscapes" / "bad.ogg")
    with pytest.raises(UserError, match="strict run: 1 fallback"):
        submit(scored, model_dir, tmp_path / "s.csv", "--strict")
    assert "bad.ogg" in capsys.readouterr().err


def test_two_files_of_a_stem_are_an_error_by_name_in_strict_runs_and_counted_in_others(
    scored: Path, model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = stems(scored)[0]
    submit(scored, model_dir, tmp_path / "alone.csv", "--max-passes", "1")
    soundfile.write(scored / "test_soundscapes" / f"{first}.wav", np.zeros(60 * 32000), 32000)
    with pytest.raises(UserError, match=rf"{first}\.wav has the rows of {first}\.ogg; remove one"):
        submit(scored, model_dir, tmp_path / "s.csv", "--strict")
    capsys.readouterr()
    assert submit(scored, model_dir, tmp_path / "s.csv", "--max-passes", "1") == 0
    assert f"warning: not scored: {first}.wav has the rows of {first}.ogg" in capsys.readouterr().err
    pd.testing.assert_frame_equal(read(tmp_path / "s.csv"), read(tmp_path / "alone.csv"))


def test_soundscapes_of_other_lengths_are_noted_in_a_strict_run_and_no_fault(
    scored: Path, model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sound(scored / "test_soundscapes" / "seven.ogg", 7.0)
    assert submit(scored, model_dir, tmp_path / "s.csv", "--strict", "--max-passes", "1") == 0
    printed = capsys.readouterr()
    assert (
        "note: 1 files have more or less than the 12 windows of a minute (seven.ogg 2)" in printed.out
    )
    assert not printed.err
    assert_valid(tmp_path / "s.csv", scored, stems(scored), seven=2)
    assert "seven.ogg" in json.loads((tmp_path / "s.csv.report.json").read_text())["remarks"][0]


def test_files_that_can_none_of_them_be_read_are_an_error(
    scored: Path, model_dir: Path, tmp_path: Path
) -> None:
    for path in (scored / "test_soundscapes").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match="not one of 3 files was scored"):
        submit(scored, model_dir, tmp_path / "s.csv", "--strict")
    assert not (tmp_path / "s.csv").exists()
    with pytest.raises(UserError, match="not one of 3 files was scored"):
        submit(scored, model_dir, tmp_path / "s.csv")
    # The rerun's table is complete all the same, and its exit status says that it knows nothing.
    assert_valid(tmp_path / "s.csv", scored, stems(scored))


def change_columns(data: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    sample = pd.read_csv(data / "sample_submission.csv")
    change(sample).to_csv(data / "sample_submission.csv", index=False)


def test_a_column_the_model_does_not_know_is_constant_and_counted(
    scored: Path, model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change_columns(scored, lambda sample: sample.assign(newbird=0.1))
    with pytest.raises(UserError, match="1 columns the model doesn't know: newbird"):
        submit(scored, model_dir, tmp_path / "s.csv", "--strict")
    assert submit(scored, model_dir, tmp_path / "s.csv") == 0
    submission = assert_valid(tmp_path / "s.csv", scored, stems(scored))
    assert submission["newbird"].nunique() == 1
    assert "newbird" in capsys.readouterr().err


def test_columns_that_are_all_unknown_are_an_error_even_in_a_rerun(
    scored: Path, model_dir: Path, tmp_path: Path
) -> None:
    change_columns(scored, lambda sample: sample[["row_id"]].assign(x=0.1, y=0.1))
    with pytest.raises(UserError, match="no class in common"):
        submit(scored, model_dir, tmp_path / "s.csv")


def test_a_class_the_sample_submission_lacks_is_left_out_and_counted(
    scored: Path, model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change_columns(scored, lambda sample: sample.iloc[:, :-1])
    with pytest.raises(UserError, match="1 model classes without a column"):
        submit(scored, model_dir, tmp_path / "s.csv", "--strict")
    assert submit(scored, model_dir, tmp_path / "s.csv") == 0
    assert_valid(tmp_path / "s.csv", scored, stems(scored))
    assert "1 model classes without a column" in capsys.readouterr().err


def test_columns_go_by_name_whatever_their_order(scored: Path, model_dir: Path, tmp_path: Path) -> None:
    submit(scored, model_dir, tmp_path / "a.csv")
    change_columns(scored, lambda sample: sample[["row_id", *sample.columns[:0:-1]]])
    submit(scored, model_dir, tmp_path / "b.csv")
    assert_valid(tmp_path / "b.csv", scored, stems(scored))
    pd.testing.assert_frame_equal(read(tmp_path / "a.csv"), read(tmp_path / "b.csv"), check_like=True)


def with_sample_rows(data: Path, rows: list[str]) -> None:
    columns = pd.read_csv(data / "sample_submission.csv", nrows=0).columns
    sample = pd.DataFrame(0.1, index=range(len(rows)), columns=columns)
    sample["row_id"] = rows
    sample.to_csv(data / "sample_submission.csv", index=False)


def test_rows_come_from_the_sample_submission_where_it_covers_the_files(
    scored: Path, model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = stems(scored)
    rows = [
        *row_ids(second, 3, 5.0),
        *row_ids("vanished", 2, 5.0),
        *row_ids(first, 12, 5.0),
        *row_ids(third, 1, 5.0),
    ]
    with_sample_rows(scored, rows)
    assert submit(scored, model_dir, tmp_path / "s.csv") == 0
    submission = read(tmp_path / "s.csv")
    assert submission.index.tolist() == rows
    assert "1 recordings of the sample submission are absent (vanished)" in capsys.readouterr().err
    present = submission.drop(index=row_ids("vanished", 2, 5.0))
    np.testing.assert_allclose(submission.loc["vanished_5"], present.median(), atol=1e-6)


def test_a_sample_submission_that_names_some_files_only_is_filled_up(
    scored: Path, tmp_path: Path
) -> None:
    first, second, third = stems(scored)
    files = mounts.soundscapes(scored / "test_soundscapes")
    listed = row_ids(second, 3, 5.0)
    plan = table.plan_rows(files, [*listed, *row_ids(first, 12, 5.0)], 5.0)
    rest = [*row_ids(second, 12, 5.0)[3:], *row_ids(third, 12, 5.0)]
    assert plan.row_ids == [*listed, *row_ids(first, 12, 5.0), *rest]


def test_rows_off_the_models_grid_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'s_7' does not end on the model's grid of 5 s"):
        table.plan_rows([tmp_path / "s.ogg"], ["s_7"], 5.0)


def test_scores_that_are_no_numbers_cost_their_file_only(tmp_path: Path, contract: Contract) -> None:
    files = [SoundFile(write_sound(tmp_path / f"{i}.wav", 5.0), 1) for i in range(3)]
    calls: list[int] = []

    def score(waveform: NDArray[np.float32], n_windows: int) -> NDArray[np.float32]:
        calls.append(1)
        return np.full((n_windows, 3), np.nan if len(calls) == 2 else 0.5, np.float32)

    prediction = predict.predict(files, score, contract)
    assert list(prediction.failures) == ["1.wav"]
    assert [scores is None for scores in prediction.scores] == [False, True, False]


def test_missing_files_get_each_classs_median() -> None:
    rows = np.array([[0.1, 0.5], [0.2, 0.6], [0.9, 0.7]], dtype=np.float32)
    unscored = np.full((2, 2), np.nan, dtype=np.float32)
    filled = fill_missing(np.concatenate([rows, unscored]))
    np.testing.assert_array_equal(filled[:3], rows)
    np.testing.assert_allclose(filled[3:], [[0.2, 0.6]] * 2)
    # A single NaN is a fault that the check of the table has to see.
    rows[0, 0] = np.nan
    assert np.isnan(fill_missing(rows)[0, 0])


def test_a_broken_first_engine_falls_to_the_next_and_a_strict_run_says_no(
    scored: Path, model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "model"
    shutil.copytree(model_dir, broken)
    for path in broken.glob("*.xml"):
        path.write_text("<net/>")
    assert submit(scored, broken, tmp_path / "s.csv") == 0
    assert "openvino on test_resnet.xml" in capsys.readouterr().err
    submit(scored, model_dir, tmp_path / "whole.csv")
    np.testing.assert_allclose(read(tmp_path / "s.csv"), read(tmp_path / "whole.csv"), atol=1e-6)
    with pytest.raises(UserError, match="strict run"):
        submit(scored, broken, tmp_path / "s.csv", "--strict")


def test_a_mistake_of_the_caller_is_one_line_and_exit_status_2(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "submission" / "run.py"), "--data", str(tmp_path / "nowhere")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no such folder" in done.stderr


def test_mistakes_of_the_caller_are_named(scored: Path, model_dir: Path, tmp_path: Path) -> None:
    for arguments, message in [
        (["--model", str(tmp_path)], "ensemble.json: not found"),
        (["--engine", "tensorrt"], "engine 'tensorrt' is unknown"),
        (["--budget-min", "0"], "must be above 0"),
    ]:
        with pytest.raises(UserError, match=message):
            submit(scored, model_dir, tmp_path / "s.csv", *arguments)
    assert not (tmp_path / "s.csv").exists()


def test_a_table_that_kaggle_would_refuse_is_refused() -> None:
    good = pd.DataFrame({"row_id": ["s_5", "s_10"], "a": [0.1, 0.2]})
    table.check(good, ["s_5", "s_10"], ["a"])
    for bad, message in [
        (good.assign(a=[0.1, np.nan]), "NaN"),
        (good.assign(a=["x", "y"]), "not numeric"),
        (good[:1], "row ids"),
        (good.assign(row_id="s_5"), "row ids"),
        (good.rename(columns={"a": "b"}), "columns differ"),
    ]:
        with pytest.raises(UserError, match=message):
            table.check(bad, ["s_5", "s_10"], ["a"])


@pytest.mark.slow
def test_a_real_sigterm_leaves_a_complete_table(scored: Path, model_dir: Path, tmp_path: Path) -> None:
    folder = scored / "test_soundscapes"
    first = mounts.soundscapes(folder)[0]
    for index in range(300):
        (folder / f"s{index:03}.ogg").symlink_to(first)
    command = [sys.executable, str(ROOT / "submission" / "run.py"), "--data", str(scored)]
    running = subprocess.Popen(
        [*command, "--model", str(model_dir), "--layout", "1x1x4"],
        cwd=tmp_path, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert running.stdout is not None
    while "pass 'plain'" not in running.stdout.readline():
        assert running.poll() is None
    running.terminate()
    rest = running.communicate(timeout=60)[0]
    assert running.returncode == run.EXIT_INCOMPLETE
    assert "stopped: it was told to end" in rest
    assert_valid(tmp_path / "submission.csv", scored, stems(scored))


@pytest.mark.slow
def test_the_memory_for_180_files_stays_under_1_gb(
    scored: Path, model_dir: Path, tmp_path: Path
) -> None:
    """Decoded all at once they would be 1.4 GB."""
    folder = scored / "test_soundscapes"
    first = next(folder.glob("*.ogg"))
    for number in range(180):
        os.link(first, folder / f"soundscape_{number}.ogg")
    first.unlink()
    peak_mib = peak_of_a_run(scored, model_dir, tmp_path / "s.csv")
    assert len(read(tmp_path / "s.csv")) == 12 * len(list(folder.glob("*.ogg"))) > 12 * 180
    assert 50 < peak_mib < 1024


@pytest.mark.slow
def test_the_memory_for_three_hours_stays_under_1_gb(
    scored: Path, model_dir: Path, tmp_path: Path
) -> None:
    """Decoded at once they would be 1.4 GB, and their chunks as much again."""
    for path in (scored / "test_soundscapes").iterdir():
        path.unlink()
    with soundfile.SoundFile(scored / "test_soundscapes" / "three.flac", "w", 8000, 1) as file:
        for minute in range(180):
            file.write(np.full(60 * 8000, minute / 180))
    peak_mib = peak_of_a_run(scored, model_dir, tmp_path / "s.csv")
    assert read(tmp_path / "s.csv").index.tolist() == row_ids("three", 2160, 5.0)
    assert 50 < peak_mib < 1024


def peak_of_a_run(data: Path, model_dir: Path, out: Path) -> float:
    """MiB that a submission of two passes takes, in a process of its own."""
    # VmHWM and not getrusage: that one would count what this process held when it forked.
    script = (
        "import pathlib, runpy, sys\n"
        "sys.argv = sys.argv[1:]\n"
        "try:\n"
        "    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally:\n"
        "    pathlib.Path('peak').write_text(pathlib.Path('/proc/self/status').read_text())\n"
    )
    run_py = str(ROOT / "submission" / "run.py")
    arguments = ["--data", str(data), "--model", str(model_dir), "--out", str(out)]
    arguments += ["--max-passes", "2"]  # the second adds its table to the first one's
    subprocess.run([sys.executable, "-c", script, run_py, *arguments], check=True, cwd=out.parent)
    status = dict(line.split(":", 1) for line in (out.parent / "peak").read_text().splitlines())
    peak_mib = int(status["VmHWM"].split()[0]) / 1024
    print(f"peak memory {peak_mib:.0f} MiB")
    return peak_mib


def test_the_competition_is_found_in_both_of_kaggles_layouts(tmp_path: Path) -> None:
    for place in ("birdclef-2025", "competitions/birdclef-2025"):
        root = tmp_path / place.replace("/", "_")
        folder = root / place
        (folder / "test_soundscapes").mkdir(parents=True)
        (folder / "sample_submission.csv").write_text("row_id\n")
        assert mounts.find_competition(root) == folder
    with pytest.raises(UserError, match="no competition is mounted"):
        mounts.find_competition(tmp_path / "nothing")
