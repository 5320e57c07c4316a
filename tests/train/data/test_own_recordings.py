"""Data that is nothing but recordings, in one folder for each class."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from birdkit.contract import Contract
from birdkit.errors import UserError
from export import to_onnx
from export.folder.model_folder import gate_recordings
from export.gates.parity import probe_inputs
from tests.conftest import REAL, TINY, submit, tiny_recipe, write_sound
from train import run as train_run
from train.config.settings import Data
from train.data import dataset
from train.data.competition import Recording, class_groups, read_competitions
from train.models.checkpoint import Final

real = [
    pytest.mark.skipif(not REAL.is_dir(), reason=f"no real recordings at {REAL}"),
    pytest.mark.slow,
]
SHORT = ["fit.epochs=1", "fit.steps_per_epoch=2", "data.fold=-1"]


@pytest.fixture(params=["demo", pytest.param("birdclef-mini", marks=real)])
def whole(request: pytest.FixtureRequest, competition: Path) -> Path:
    return competition if request.param == "demo" else REAL


@pytest.fixture
def alone(whole: Path, tmp_path: Path) -> Path:
    """The recordings of a competition and nothing else."""
    folder = tmp_path / "alone"
    folder.mkdir()
    (folder / "train_audio").symlink_to(whole / "train_audio")
    return folder


@pytest.fixture
def listed(whole: Path, tmp_path: Path) -> Path:
    """The same with its tables, which say no more than the folders do."""
    folder = tmp_path / "listed"
    folder.mkdir()
    (folder / "train_audio").symlink_to(whole / "train_audio")
    shutil.copy(whole / "taxonomy.csv", folder)
    table = pd.read_csv(whole / "train.csv", dtype=str, keep_default_na=False)
    table.assign(secondary_labels="['']", author="").to_csv(folder / "train.csv", index=False)
    return folder


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    """Two classes of three recordings."""
    for name in ("wren/a.wav", "wren/b.wav", "wren/c.flac", "owl/a.wav", "owl/b.wav", "owl/c.wav"):
        write_sound(tmp_path / "birds" / name, 6.0)
    return tmp_path / "birds"


def resolved(recordings: Sequence[Recording]) -> list[Recording]:
    return [replace(recording, path=recording.path.resolve()) for recording in recordings]


def train(data: Path, out: Path, *overrides: str) -> int:
    arguments = ["--recipe", "demo", "--data", str(data), "--out", str(out), "--device", "cpu"]
    for override in [*TINY, *SHORT, *overrides]:
        arguments += ["--set", override]
    return train_run.main([*arguments, "--cache", str(out.parent / "cache")])


def test_recordings_alone_are_the_data_that_their_tables_describe(
    alone: Path, listed: Path, tmp_path: Path
) -> None:
    derived, described = (
        dataset.read([folder], tiny_recipe(), tmp_path / "cache")[0] for folder in (alone, listed)
    )
    assert derived.competition.classes == described.competition.classes
    assert resolved(derived.recordings) == resolved(described.recordings)
    for fold in range(3):
        data = Data(n_folds=3, fold=fold)
        one, other = derived.recordings_of(data), described.recordings_of(data)
        assert resolved(one[0]) == resolved(other[0])
        assert resolved(one[1]) == resolved(other[1])
        assert one[1]
    assert (derived.training, derived.validating, derived.unlabelled) == ((), (), ())


def test_recordings_alone_train_to_the_weights_that_they_do_with_their_tables(
    alone: Path, listed: Path, tmp_path: Path
) -> None:
    states = []
    for folder in (alone, listed):
        out = tmp_path / f"run-{folder.name}"
        assert train(folder, out, "rounds=[{}]") == 0
        states.append(Final.load(next(out.glob("round0/*/final.pt"))).state)
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_a_line_says_what_was_derived(birds: Path) -> None:
    line = f"{birds}: no train.csv: 2 classes from its folders, 6 recordings"
    assert read_competitions([birds]).left_out == (line,)
    (birds / "taxonomy.csv").write_text("primary_label\nwren\nowl\n")
    (birds / "train_audio").mkdir()
    for name in ("wren", "owl"):
        (birds / name).rename(birds / "train_audio" / name)
    line = f"{birds}: no train.csv: 2 classes from the folders of train_audio/, 6 recordings"
    found = read_competitions([birds])
    assert found.left_out == (f"{line}; taxonomy.csv lists the classes",)
    assert found.classes == ("wren", "owl")


def test_a_list_of_names_may_be_longer_than_the_folders_and_must_not_be_shorter(birds: Path) -> None:
    taxonomy = birds / "taxonomy.csv"
    taxonomy.write_text("primary_label,common_name\nwren,Wren\nowl,Owl\nkite,Kite\n")
    assert read_competitions([birds]).classes == ("wren", "owl", "kite")
    assert class_groups(birds) == {}  # the list has none
    taxonomy.write_text("primary_label,class_name\nwren,Aves\n")
    assert class_groups(birds) == {"wren": "Aves"}
    with pytest.raises(UserError, match=r"birds/owl: unknown label 'owl'; add it to taxonomy\.csv"):
        read_competitions([birds])


def test_a_table_of_recordings_goes_before_the_folders(birds: Path) -> None:
    (birds / "taxonomy.csv").write_text("primary_label\nwren\nowl\n")
    header = "primary_label,secondary_labels,filename,author\n"
    (birds / "train.csv").write_text(f"{header}wren,['owl'],{birds}/wren/a.wav,Ann\n")
    found = read_competitions([birds])
    assert [(r.path, r.secondary) for r in found.recordings] == [(birds / "wren" / "a.wav", ("owl",))]
    assert found.left_out == ()


def test_folders_of_recordings_join_a_competition(birds: Path, competition: Path) -> None:
    one = read_competitions([competition])
    both = read_competitions([competition, birds], "union")
    assert both.classes == (*one.classes, "owl", "wren")
    assert len(both.recordings) == len(one.recordings) + 6
    narrow = read_competitions([competition, birds])
    assert narrow.classes == one.classes
    assert f"{birds}: 6 recordings of classes that are not asked for" in narrow.left_out


def test_pieces_of_one_recording_are_never_on_both_sides_of_a_fold(birds: Path) -> None:
    for name in ("wren/XC12_a.wav", "wren/XC12_b.wav", "wren/XC123.wav", "owl/xc12-c.wav"):
        write_sound(birds / name, 1.0)
    authors = {r.path.name: r.author for r in read_competitions([birds]).recordings}
    assert authors["XC12_a.wav"] == authors["XC12_b.wav"] == authors["xc12-c.wav"]
    assert len(set(authors.values()) - {authors["XC12_a.wav"]}) == len(authors) - 3


def test_a_damaged_recording_stops_training_and_is_named_by_its_path(birds: Path) -> None:
    (birds / "owl" / "a.wav").write_bytes(b"garbage")
    with pytest.raises(
        UserError, match=rf"^{birds}/owl/a\.wav can't be decoded .*; restore it, remove"
    ):
        read_competitions([birds])
    found = read_competitions([birds], skip_bad=True)
    assert len(found.recordings) == 5
    assert any("owl/a.wav: can't be decoded" in line for line in found.left_out)


def test_one_class_alone_is_said(birds: Path) -> None:
    assert not any("there is one class" in line for line in read_competitions([birds]).left_out)
    shutil.rmtree(birds / "owl")
    assert any("there is one class, wren" in line for line in read_competitions([birds]).left_out)


def test_the_parity_gate_hears_a_minute_of_recordings_of_every_class(
    birds: Path, contract: Contract
) -> None:
    (birds / "owl" / "a.wav").write_bytes(b"garbage")
    write_sound(birds / "owl" / "b.wav", 70.0)
    heard = gate_recordings(birds)
    named = [path.relative_to(birds).as_posix() for path in heard]
    assert named == ["wren/a.wav", "owl/b.wav", "wren/b.wav", "owl/c.wav", "wren/c.flac"]
    n_inputs = len(probe_inputs(contract, heard))
    assert n_inputs - len(probe_inputs(contract)) == 4 * 2 + 12  # 6 s are two windows, a minute twelve
    write_sound(birds / "train_soundscapes" / "s.wav", 1.0)
    assert [path.name for path in gate_recordings(birds)] == ["s.wav"]


def test_the_parity_gate_says_why_folders_of_classes_give_it_nothing(
    birds: Path, tmp_path: Path
) -> None:
    deeper = tmp_path / "deeper"
    deeper.mkdir()
    birds.rename(deeper / birds.name)
    with pytest.raises(UserError, match=r"no sound files for the parity gate \(.*a folder deeper"):
        gate_recordings(tmp_path / "deeper")


def test_own_soundscapes_are_labelled_by_a_teacher_and_without_them_its_round_is_left_out(
    birds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train(birds, out) == 0
    why = "there are no unlabelled soundscapes (train_soundscapes/) to label"
    assert f"data: round 1 of the recipe is left out: {why}" in capsys.readouterr().out
    assert not (out / "round1").exists()
    for name in ("s1.wav", "s2.wav"):
        write_sound(birds / "train_soundscapes" / name, 20.0)
    assert train(birds, out) == 0
    said = capsys.readouterr().out
    assert "is left out" not in said
    assert "final.pt: done already" in said
    assert len(list(out.glob("round1/*/final.pt"))) == 1


def test_what_was_derived_is_written_down_as_the_tables_of_a_competition(
    birds: Path, tmp_path: Path
) -> None:
    write_sound(birds / "test_soundscapes" / "t.wav", 60.0)
    before = {path: path.stat().st_mtime_ns for path in birds.rglob("*")}
    out = tmp_path / "run"
    assert train(birds, out, "data.fold=1") == 0
    now = {path: path.stat().st_mtime_ns for path in birds.rglob("*")}
    assert now == before  # nothing was written there
    derived, written = read_competitions([birds]), read_competitions([out / "data"])
    assert written.classes == derived.classes
    assert written.recordings == derived.recordings
    table = pd.read_csv(out / "data" / "train.csv")
    _, held_out, _ = dataset.read([birds], tiny_recipe("data.fold=1"), tmp_path / "cache")[
        0
    ].recordings_of(Data(n_folds=3, fold=1))
    named = set(table["filename"][table["held_out_1_of_3"] == 1])
    assert named == {str(recording.path) for recording in held_out}
    assert named
    sample = pd.read_csv(out / "data" / "sample_submission.csv")
    assert list(sample.columns) == ["row_id", "owl", "wren"]
    assert sample["row_id"].tolist() == [f"t_{end}" for end in range(5, 61, 5)]


@pytest.mark.slow
@pytest.mark.parametrize("names", [("<script>", "two words", "Zaunkönig;"), ("alone",)])
def test_folders_of_recordings_are_trained_exported_and_scored(
    tmp_path: Path, names: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    birds = tmp_path / "birds"
    for name in names:
        write_sound(birds / name / "a.wav", 6.0)
        write_sound(birds / name / "b.wav", 0.2)
    run, model, out = tmp_path / "run", tmp_path / "model", tmp_path / "submission.csv"
    assert train(birds, run) == 0
    assert to_onnx.main([str(run), "--data", str(birds), "--out", str(model)]) == 0
    assert "has no labelled soundscapes" in capsys.readouterr().out
    with pytest.raises(UserError, match="name a folder of recordings with --soundscapes DIR"):
        submit(birds, model, out)
    write_sound(birds / "test_soundscapes" / "t.wav", 60.0)
    assert submit(birds, model, out, "--max-passes", "1") == 0
    table = pd.read_csv(out)
    assert table.columns.tolist() == ["row_id", *sorted(names)]
    assert table["row_id"].tolist() == [f"t_{end}" for end in range(5, 61, 5)]
    assert table[sorted(names)].to_numpy().std() > 0
