"""The demo competition: its layout is Kaggle's, and only the time structure of song tells species."""

from __future__ import annotations

import filecmp
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import soxr
from librosa.filters import mel as librosa_mel
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from birdkit.errors import UserError
from tests.conftest import SMALL
from train.synthetic.birdsong import TAXONOMY, judge
from train.synthetic.competition import make_competition, write_hidden, write_recordings

RATE_HZ = 32_000
MELS: NDArray[np.float32] = librosa_mel(sr=RATE_HZ, n_fft=2048, n_mels=64, fmin=50, fmax=14_000)


@pytest.fixture(scope="module")
def small(competition: Path) -> Path:
    return competition


@pytest.fixture(scope="module")
def least(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_competition(tmp_path_factory.mktemp("demo") / "least", seed=1, scale=0.001)


def text(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def classes(competition: Path) -> list[str]:
    return text(competition / "taxonomy.csv")["primary_label"].tolist()


def cells(competition: Path, name: str) -> NDArray[np.float64]:
    """(windows, classes)"""
    return pd.read_csv(competition / "validation" / name)[classes(competition)].to_numpy()


def stems_of(table: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(table["row_id"].str.rpartition("_")[0]))


def test_one_seed_gives_the_same_tables_and_the_same_audio(small: Path, tmp_path: Path) -> None:
    again = make_competition(tmp_path / "again", scale=SMALL)
    tables = sorted(str(p.relative_to(small)) for p in small.rglob("*.csv"))
    assert len(tables) == 6
    assert filecmp.cmpfiles(small, again, tables, shallow=False) == (tables, [], [])
    sounds = sorted(p.relative_to(small) for p in small.rglob("*.ogg"))
    assert sounds == sorted(p.relative_to(again) for p in again.rglob("*.ogg"))
    for path in sounds[::5]:
        np.testing.assert_array_equal(sf.read(small / path)[0], sf.read(again / path)[0])


def test_another_seed_gives_other_audio_under_the_same_names(small: Path, least: Path) -> None:
    recordings = text(least / "train.csv")["filename"]
    assert set(recordings) == set(text(small / "train.csv")["filename"])
    frames = [sf.info(root / "train_audio" / recordings[0]).frames for root in (small, least)]
    assert frames[0] != frames[1]


def test_however_small_there_are_four_recordings_a_species_and_three_soundscapes_of_each_kind(
    least: Path,
) -> None:
    assert set(text(least / "train.csv")["primary_label"].value_counts()) == {4}
    n_labelled = text(least / "train_soundscapes_labels.csv")["filename"].nunique()
    n_train = len(list((least / "train_soundscapes").glob("*.ogg")))
    n_hidden = len(list((least / "validation" / "soundscapes").glob("*.ogg")))
    assert (n_labelled, n_train - n_labelled, n_hidden) == (3, 3, 3)


def test_train_csv_has_the_columns_of_2025_and_names_files_that_exist(small: Path) -> None:
    train = text(small / "train.csv")
    assert " ".join(train.columns) == (
        "primary_label secondary_labels type filename collection rating url latitude longitude "
        "scientific_name common_name author license"
    )
    written = {p.relative_to(small / "train_audio").as_posix() for p in small.rglob("XC*.ogg")}
    assert set(train["filename"]) == written
    assert (train["filename"].str.split("/").str[0] == train["primary_label"]).all()


def test_labels_are_words_numbers_and_both_in_the_order_of_the_taxonomy(small: Path) -> None:
    names = classes(small)
    assert names == sorted(names)
    assert any(name.isdigit() for name in names)
    assert any(name[0].isdigit() and not name.isdigit() for name in names)
    for table in ("sample_submission.csv", "validation/truth.csv", "validation/mask.csv"):
        assert text(small / table).columns.tolist() == ["row_id", *names]


def test_secondary_labels_are_another_species_or_an_empty_string_in_a_list(small: Path) -> None:
    train = text(small / "train.csv")
    assert (train["secondary_labels"] == "['']").any()
    others = train[train["secondary_labels"] != "['']"]
    assert len(others) >= 1
    for own, other in zip(others["primary_label"], others["secondary_labels"], strict=True):
        assert other in {f"['{name}']" for name in classes(small) if name != own}


def test_every_species_is_heard_by_several_authors_who_each_have_several_recordings(
    small: Path,
) -> None:
    train = text(small / "train.csv")
    assert train["author"].nunique() == 10
    assert train["author"].value_counts().min() >= 2
    assert train.groupby("primary_label")["author"].nunique().min() >= 4


def test_recordings_have_odd_rates_lengths_and_channels(small: Path) -> None:
    infos = [sf.info(path) for path in (small / "train_audio").rglob("*.ogg")]
    assert {info.samplerate for info in infos} == {22_050, 32_000, 44_100, 48_000}
    assert {info.channels for info in infos} == {1, 2}
    lengths_s = [info.duration for info in infos]
    assert 0.4 <= min(lengths_s) < 3 < np.median(lengths_s) < 15 < max(lengths_s) <= 20


def test_soundscapes_are_one_minute_at_32_khz_and_do_not_clip(small: Path) -> None:
    paths = [*small.glob("train_soundscapes/*"), *small.glob("validation/soundscapes/*")]
    for path in paths:
        waveform, rate_hz = sf.read(path)
        assert (waveform.shape, rate_hz) == ((60 * RATE_HZ,), RATE_HZ)
        assert 0 < np.abs(waveform).max() < 1


def test_soundscape_labels_list_each_5_s_window_twice(small: Path) -> None:
    labels = text(small / "train_soundscapes_labels.csv")
    assert (labels.value_counts() == 2).all()
    once = labels.drop_duplicates()
    assert once["start"].tolist()[:2] == ["00:00:00", "00:00:05"]
    assert once["end"].tolist()[11::12] == ["00:01:00"] * once["filename"].nunique()
    assert once.groupby("filename").size().eq(12).all()
    assert all((small / "train_soundscapes" / name).is_file() for name in once["filename"])
    assert (once["primary_label"] == "").any()
    sung = {name for joined in once["primary_label"] for name in joined.split(";") if name}
    assert sung <= set(classes(small))


def test_truth_and_mask_have_a_row_for_each_hidden_window_and_never_both(small: Path) -> None:
    truth = text(small / "validation" / "truth.csv")
    stems = sorted(p.stem for p in (small / "validation" / "soundscapes").glob("*.ogg"))
    assert sorted(stems_of(truth)) == stems
    ends = [f"{stem}_{end}" for stem in stems_of(truth) for end in range(5, 61, 5)]
    assert truth["row_id"].tolist() == ends
    assert text(small / "validation" / "mask.csv")["row_id"].tolist() == ends
    counts = cells(small, "truth.csv") + cells(small, "mask.csv")
    assert set(np.unique(counts)) == {0, 1}


def test_the_sample_submission_has_three_rows_and_the_test_folder_only_a_note(small: Path) -> None:
    sample = text(small / "sample_submission.csv")
    assert sample["row_id"].str.rpartition("_")[2].tolist() == ["5", "10", "15"]
    assert [p.name for p in (small / "test_soundscapes").iterdir()] == ["readme.txt"]


@pytest.mark.parametrize(
    ("power", "others", "expected"),
    [
        (0.0, 0.0, (0, 0)),  # nothing sings
        (1.1, 0.0, (1, 0)),  # louder than the noise
        (0.1, 0.0, (0, 1)),  # faint
        (1.0, 40.0, (0, 1)),  # drowned by another
        (1e-4, 0.0, (0, 0)),  # nobody could hear it
    ],
)
def test_a_window_counts_where_the_song_stands_out(
    power: float, others: float, expected: tuple[int, int]
) -> None:
    every = np.ones((12, 500))
    truth, mask = judge(power * every, others * every, np.ones(12))
    assert {(int(t), int(m)) for t, m in zip(truth, mask, strict=True)} == {expected}


def test_song_shorter_than_400_ms_in_a_window_is_undecided() -> None:
    power = np.zeros((12, 500))
    power[0, :39], power[1, :41] = 2.0, 2.0
    truth, mask = judge(power, np.zeros_like(power), np.ones(12))
    assert truth[:3].tolist() == [0, 1, 0]
    assert mask[:3].tolist() == [1, 0, 0]


def test_a_second_call_leaves_the_finished_competition_as_it_is(small: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in small.rglob("*")}
    assert make_competition(small, scale=SMALL) == small
    assert {path: path.stat().st_mtime_ns for path in small.rglob("*")} == before


@pytest.mark.parametrize("name", ["thesis.txt", "made_by.json"])
def test_a_folder_of_something_else_is_refused_and_untouched(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match="not the demo"):
        make_competition(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_demo_of_another_seed_is_refused(small: Path) -> None:
    with pytest.raises(UserError, match="seed 7"):
        make_competition(small, seed=7, scale=SMALL)


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("train.synthetic.competition.write_ogg", full_disk)
    with pytest.raises(OSError, match="No space"):
        make_competition(tmp_path / "demo")
    assert list(tmp_path.iterdir()) == []


def mean_log_mel(waveform: NDArray[np.float64]) -> NDArray[np.float64]:
    """(samples,) → (mels,)"""
    padded = np.pad(waveform, (0, max(0, 2048 - len(waveform))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, 2048)[::1024]
    power = np.abs(np.fft.rfft(frames * np.hanning(2048))) ** 2
    return np.log(power @ MELS.T + 1e-6).mean(0)


def training_features(competition: Path) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    """(recordings, mels) and the label of each."""
    train = text(competition / "train.csv")
    features = []
    for filename in train["filename"]:
        waveform, rate_hz = sf.read(competition / "train_audio" / filename, always_2d=True)
        features.append(mean_log_mel(soxr.resample(waveform.mean(1), rate_hz, RATE_HZ)))
    return np.stack(features), train["primary_label"].to_numpy()


def hidden_features(competition: Path) -> NDArray[np.float64]:
    """(windows, mels) in the order of truth.csv."""
    folder = competition / "validation"
    files = [
        sf.read(folder / "soundscapes" / f"{stem}.ogg")[0]
        for stem in stems_of(text(folder / "truth.csv"))
    ]
    return np.stack([mean_log_mel(window) for file in files for window in file.reshape(12, -1)])


def masked_macro_auc(competition: Path, scores: NDArray[np.float64]) -> float:
    truth, mask = cells(competition, "truth.csv"), cells(competition, "mask.csv")
    decided = [(truth[mask[:, j] == 0, j], scores[mask[:, j] == 0, j]) for j in range(truth.shape[1])]
    assert all(0 < t.sum() < len(t) for t, _ in decided)
    return float(np.mean([roc_auc_score(t, s) for t, s in decided]))


@pytest.mark.slow
def test_the_nearest_mean_spectrum_tells_species_apart_no_better_than_080(tmp_path: Path) -> None:
    competition = tmp_path  # whole, but for the soundscapes that train
    write_recordings(competition, 16, 2025)
    write_hidden(competition / "validation", 16, 2025)
    TAXONOMY.to_csv(competition / "taxonomy.csv")
    recordings, labels = training_features(competition)
    windows = hidden_features(competition)
    mean, spread = recordings.mean(0), recordings.std(0)

    def shape(mels: NDArray[np.float64]) -> NDArray[np.float64]:
        return (mels - mels.mean(1, keepdims=True)) / mels.std(1, keepdims=True)

    views = {
        "as it is": (recordings, windows),
        "each mel standardised": ((recordings - mean) / spread, (windows - mean) / spread),
        "each spectrum standardised": (shape(recordings), shape(windows)),
    }
    aucs = {}
    for name, (known, unknown) in views.items():
        centroids = np.stack([known[labels == label].mean(0) for label in classes(competition)])
        distance = np.linalg.norm(unknown[:, None] - centroids, axis=2)
        aucs[name] = masked_macro_auc(competition, -distance)
    assert max(aucs.values()) <= 0.80, aucs
    assert max(aucs.values()) >= 0.60, aucs  # else the baseline is broken, not the task hard
