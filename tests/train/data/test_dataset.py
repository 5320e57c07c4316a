"""What a run trains and validates on, by its recipe."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from birdkit import audio
from birdkit.errors import UserError
from tests.conftest import tiny_job, tiny_recipe, write_sound
from train.data import dataset, duplicates, speech
from train.data.batches import Batches
from train.data.folds import site_of
from train.rounds import plan


def read(folder: Path, cache: Path, *overrides: str) -> dataset.Dataset:
    return dataset.read([folder], tiny_recipe("data.cache=true", *overrides), cache)[0]


def notes(folder: Path, cache: Path, *overrides: str) -> list[str]:
    return dataset.read([folder], tiny_recipe("data.cache=true", *overrides), cache)[1]


def prepare(folder: Path, cache: Path, *overrides: str) -> Any:
    recipe = tiny_recipe(*overrides)
    stages = plan.stages(recipe, cache / "run")
    jobs = [member.job for stage in stages for member in stage.members]
    unlabelled = any(stage.draws_soundscapes for stage in stages)
    found, _ = dataset.read([folder], recipe, cache)
    return *dataset.prepare(found, jobs, cache, unlabelled=unlabelled), jobs


@pytest.mark.parametrize("policy", ["validate", "train", "split"])
def test_labelled_soundscapes_validate_train_or_are_split_by_site(
    competition: Path, tmp_path: Path, policy: str
) -> None:
    found = read(competition, tmp_path, f"data.labelled={policy}")
    n_labelled = len(found.competition.soundscapes)
    assert len(found.training) + len(found.validating) == n_labelled
    if policy == "split":
        sites = [{site_of(s.path) for s in part} for part in (found.training, found.validating)]
        assert all(sites)
        assert not sites[0] & sites[1]
    else:
        assert len(found.training if policy == "train" else found.validating) == n_labelled


def test_a_teacher_labels_neither_what_trains_by_its_truth_nor_what_validates(
    competition: Path, tmp_path: Path
) -> None:
    found = read(competition, tmp_path, "data.labelled=split")
    labelled = set(found.soundscapes(validating=False))
    assert labelled == set(found.unlabelled)
    assert not labelled & {each.path for each in (*found.training, *found.validating)}
    more = set(found.soundscapes(validating=True)) - labelled
    assert more == {each.path for each in found.validating}


def test_truth_windows_are_a_source_where_labelled_soundscapes_train(
    competition: Path, tmp_path: Path
) -> None:
    assert read(competition, tmp_path).sources(tiny_job()).truth is None
    found = read(competition, tmp_path, "data.labelled=train")
    sources = found.sources(tiny_job("data.labelled=train"))
    assert sources.truth is not None
    assert len(sources.truth) == 12 * len(found.training)
    assert sources.soundscapes() == tuple(sorted(s.path.name for s in found.training))


@pytest.fixture
def doubled(competition: Path, tmp_path: Path) -> Path:
    """The demo with one recording listed a second time, under another label and file name."""
    folder = tmp_path / "doubled"
    shutil.copytree(competition, folder)
    table = pd.read_csv(folder / "train.csv", dtype=str, keep_default_na=False)
    copy = table.iloc[0].copy()
    copy["filename"] = "demris1/XC1.ogg"
    copy["primary_label"] = "demris1"
    shutil.copy(
        folder / "train_audio" / table["filename"][0], folder / "train_audio" / copy["filename"]
    )
    pd.concat([table, copy.to_frame().T]).to_csv(folder / "train.csv", index=False)
    return folder


def test_duplicates_are_said_and_their_labels_joined_where_the_recipe_drops_them(
    doubled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = ("data.fold=-1", "data.cache=true")
    kept, said, _ = prepare(doubled, tmp_path, *keep)
    assert any("XC1" in line for line in said)
    dropped, lines, _ = prepare(doubled, tmp_path, *keep, "data.duplicates=drop")
    assert lines[0] == said[0]
    assert "all labels joined" in lines[1] or "all stay" in lines[1]
    assert lines[2] == "data: all recordings train, none is held out"
    # One stays for each label: a class must not lose a recording to another.
    assert len(dropped.recordings) <= len(kept.recordings)
    both = {kept.recordings[0].primary, "demris1"}
    monkeypatch.setattr(duplicates, "find_duplicates", None)  # found once, then kept
    assert prepare(doubled, tmp_path, *keep)[1][0] == said[0]
    joined = [r for r in dropped.recordings if {r.primary, *r.secondary} >= both]
    assert joined


def test_nothing_is_decoded_before_the_plan_nor_for_a_search_that_is_switched_off(
    doubled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(audio, "read", None)
        found, said = dataset.read([doubled], tiny_recipe("data.duplicates=drop"), tmp_path)
    assert len(dataset.fold_notes(found, [tiny_job()])) > 0
    assert not any("XC1" in line for line in said)
    monkeypatch.setattr(duplicates, "find_duplicates", None)
    monkeypatch.setattr(duplicates, "candidates", None)
    _, lines, _ = prepare(doubled, tmp_path, "data.duplicates=unsearched")
    assert lines == []


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[Path]:
    """How many times each file has been decoded."""
    counter: Counter[Path] = Counter()
    read = audio.read

    def counting(path: Path, *args: Any, **kwargs: Any) -> NDArray[np.float32]:
        counter[path] += 1
        return read(path, *args, **kwargs)

    monkeypatch.setattr(audio, "read", counting)
    return counter


def test_what_is_searched_for_duplicates_is_decoded_once(
    doubled: Path, tmp_path: Path, decoded: Counter[Path]
) -> None:
    found, *_ = prepare(doubled, tmp_path, "data.fold=-1", "data.cache=true")
    assert set(decoded) >= {recording.path for recording in found.recordings}
    assert set(decoded.values()) == {1}


@pytest.mark.parametrize("cache", ["true", "false"])
def test_a_file_that_was_found_to_be_good_is_decoded_again_only_once_it_changed(
    competition: Path, tmp_path: Path, decoded: Counter[Path], cache: str
) -> None:
    folder = shutil.copytree(competition, tmp_path / "data")
    settings = (f"data.cache={cache}", "data.duplicates=unsearched")
    found, *_ = prepare(folder, tmp_path, *settings)
    held_out = found.recordings_of(tiny_job().data)[1][0].path
    assert decoded[held_out] == 1
    decoded.clear()
    prepare(folder, tmp_path, *settings)
    assert not decoded
    os.utime(held_out, (0, 0))
    prepare(folder, tmp_path, *settings)
    assert decoded == {held_out: 1}
    # What was decoded in part says nothing about the rest.
    decoded.clear()
    prepare(folder, tmp_path, *settings, "data.first_s=1000")
    assert len(decoded) > 1


def test_with_and_without_the_cache_a_batch_is_the_same_bit_for_bit(
    competition: Path, tmp_path: Path
) -> None:
    found, lines, jobs = prepare(competition, tmp_path, "data.cache=true")
    assert any(line.startswith(f"waveform cache {tmp_path}: ") for line in lines)
    job, (note,) = jobs[0], dataset.cache_note(found, jobs, tmp_path, unlabelled=True)
    assert note.startswith(f"waveform cache {tmp_path}: holds all ")
    plain, lines, jobs = prepare(competition, tmp_path, "data.cache=false")
    assert lines == []
    (note,) = dataset.cache_note(plain, jobs, tmp_path, unlabelled=True)
    assert note.startswith("waveform cache: off, so that all is decoded")
    assert plain.waveforms.folder is None
    first, second = (Batches(each.sources(job), each.contract(job), job)[3] for each in (found, plain))
    assert first[0].equal(second[0])
    assert first[1].equal(second[1])


@pytest.mark.parametrize(
    ("rounds", "n_more"),
    [
        ("rounds=[{}]", 0),
        ("rounds=[{}, {}]", 3),
        ("rounds=[{repeat = 2}]", 3),
        ("rounds=[{}, {pseudo = {share = 0.0}}]", 0),
    ],
)
def test_soundscapes_are_in_the_cache_where_later_rounds_draw_from_them(
    competition: Path, tmp_path: Path, rounds: str, n_more: int
) -> None:
    found, (line,), (job, *_) = prepare(competition, tmp_path, "data.cache=true", rounds)
    n_recordings = len(found.recordings_of(job.data)[0])
    assert f": {n_recordings + n_more} recordings" in line


def test_models_of_other_folds_and_lengths_train_on_their_own_recordings(
    competition: Path, tmp_path: Path
) -> None:
    own = "models=[{name = 'a'}, {name = 'b', data.fold = 1, data.first_s = 2.0, data.chunk_s = 2.0}]"
    found, (line,), (a, b, *_) = prepare(
        competition, tmp_path, own, "data.cache=true", "data.window_s=1.0", "rounds=[{}]"
    )
    of_a, of_b = (found.recordings_of(job.data)[0] for job in (a, b))
    assert set(of_a) != set(of_b)
    assert f": {len(of_a) + len(of_b)} recordings" in line  # once by each length
    assert (found.contract(a).chunk_s, found.contract(b).chunk_s) == (5.0, 2.0)
    lines = dataset.fold_notes(found, [a, b])
    assert lines[0].startswith("a: fold 0 of 3")
    assert any(line.startswith("b: fold 1 of 3") for line in lines)


def test_speech_is_looked_for_where_the_recipe_asks_and_once(
    competition: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched = []

    def detector() -> Callable[[NDArray[np.float32], int], speech.Stretches]:
        def detect(waveform: NDArray[np.float32], sample_rate: int) -> speech.Stretches:
            searched.append(waveform.size)
            return ((0.0, 0.5),)

        return detect

    monkeypatch.setattr(speech, "SpeechDetector", detector)
    for policy in ("keep", "cut", "half"):
        found, lines, (job, _) = prepare(
            competition, tmp_path, "data.cache=true", f"data.speech={policy}"
        )
        assert bool(found.sources(job).speech) == (policy != "keep")
        assert any(line.startswith("human speech") for line in lines) == (policy != "keep")
    assert len(searched) == len(found.recordings_of(job.data)[0])


def test_the_fingerprint_knows_the_tables_and_the_sounds(competition: Path, tmp_path: Path) -> None:
    before = read(competition, tmp_path).fingerprint
    folder = tmp_path / "moved"
    shutil.copytree(competition, folder)
    assert read(folder, tmp_path).fingerprint == before  # where it lies does not matter
    sound = next((folder / "train_audio").rglob("*.ogg"))
    sound.write_bytes(sound.read_bytes() + b"0")
    assert read(folder, tmp_path).fingerprint != before


def test_a_cache_that_cannot_be_written_changes_nothing_but_time(
    competition: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    unwritable, *_ = prepare(competition, tmp_path / "file" / "cache", "data.cache=true")
    written, *_ = prepare(competition, tmp_path / "cache", "data.cache=true")
    assert unwritable.recordings == written.recordings
    speech._write_store(tmp_path / "file" / "speech.json", {}, {})
    assert speech.stored(tmp_path / "file" / "speech.json", 32_000) == {}


@pytest.fixture
def damaged(competition: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The demo with files whose headers are good and whose bodies are refused: one of each kind."""
    folder = tmp_path / "damaged"
    shutil.copytree(competition, folder)
    found = read(folder, tmp_path)
    train, held_out, _ = found.recordings_of(tiny_job().data)
    labelled, unlabelled = found.competition.soundscapes[0], found.unlabelled[0]
    bad = {train[0].path, held_out[0].path, labelled.path, unlabelled}
    decode = audio.read

    def refusing(path: Path, *args: Any, **kwargs: Any) -> NDArray[np.float32]:
        if path in bad:
            raise audio.AudioError(f"{path}: can't be decoded (lost sync); replace or remove it")
        return decode(path, *args, **kwargs)

    monkeypatch.setattr(audio, "read", refusing)
    return folder


@pytest.mark.parametrize("labelled", ["validate", "train"])
def test_files_whose_bodies_are_bad_are_left_out_with_and_without_the_cache_alike(
    damaged: Path, tmp_path: Path, labelled: str
) -> None:
    prepared = []
    for cache in ("true", "false"):
        settings = (f"data.cache={cache}", "data.skip_bad=true", f"data.labelled={labelled}")
        found, lines, (job, _) = prepare(damaged, tmp_path / cache, *settings)
        train, held_out, fold = found.recordings_of(job.data)
        bad = [line for line in lines if line.endswith("can't be decoded (lost sync)")]
        assert len(bad) == 4
        assert f"data: {fold}" in lines  # as the folds are now
        n_read = len(found.competition.recordings)
        assert len(train) + len(held_out) == len(found.recordings) == n_read - 2
        n_labelled = len(found.training) + len(found.validating)
        assert n_labelled == len(found.competition.soundscapes) - 1
        batches = Batches(found.sources(job), found.contract(job), job)
        prepared.append((sorted(bad), train, held_out, batches[3]))
    assert prepared[0][:3] == prepared[1][:3]
    assert all(one.equal(other) for one, other in zip(prepared[0][3], prepared[1][3], strict=True))


@pytest.mark.parametrize("cache", ["true", "false"])
def test_a_file_whose_body_is_bad_stops_a_run_before_it_trains(
    damaged: Path, tmp_path: Path, cache: str
) -> None:
    with pytest.raises(UserError, match=r"\(lost sync\) \(and 3 more\); restore it, .*skip_bad=true"):
        prepare(damaged, tmp_path / "cache", f"data.cache={cache}")


def test_a_class_without_recordings_is_counted_in_labelled_windows(
    competition: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "silent"
    shutil.copytree(competition, folder)
    table = pd.read_csv(folder / "train_soundscapes_labels.csv", dtype=str, keep_default_na=False)
    table = table.drop_duplicates()
    n_windows = int(table["primary_label"].str.split(";").map(lambda of: "demris1" in of).sum())
    assert n_windows > 0
    recordings = pd.read_csv(folder / "train.csv", dtype=str, keep_default_na=False)
    recordings[recordings["primary_label"] != "demris1"].to_csv(folder / "train.csv", index=False)
    with (folder / "taxonomy.csv").open("a") as file:
        file.write(f"47158son16{',x' * (len(pd.read_csv(file.name).columns) - 1)}\n")
    head = "2 of 9 classes have no recording (47158son16, demris1)"
    counted = f"{n_windows} labelled windows of 1 of them (demris1 {n_windows})"
    assert notes(folder, tmp_path, "data.labelled=train")[-1] == (
        f"{head}; {counted} train; the model answers for 1 of them, untrained"
    )
    assert notes(folder, tmp_path, "data.labelled=validate")[-1] == (
        f"{head}; the model answers for 2 of them, untrained; {counted} validate: "
        'data.labelled = "train" or "split" trains on them'
    )
    assert "have no recording" not in " ".join(notes(competition, tmp_path))


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    """Two good recordings, one of them below, and three that no background can be cut from."""
    folder = tmp_path / "noise"
    write_sound(folder / "rain.wav", 2.0)
    write_sound(folder / "surf" / "surf.flac", 70.0)
    write_sound(folder / "no-samples.wav", 0.0)
    (folder / "empty.ogg").write_bytes(b"")
    (folder / "text.mp3").write_text("no sound")
    (folder / "notes.txt").write_text("no recording either")
    return folder


@pytest.mark.parametrize("cached", ["true", "false"])
def test_a_folder_of_noise_is_drawn_from_without_its_bad_files_which_are_named(
    competition: Path, tmp_path: Path, noise: Path, cached: str
) -> None:
    settings = f"augment.background_folder={noise}", "augment.background=1.0"
    found, lines, jobs = prepare(competition, tmp_path, *settings, f"data.cache={cached}")
    sources = found.sources(jobs[0])
    assert {path.name for path, _ in sources.background} == {"rain.wav", "surf.flac"}
    assert sources.soundscapes() == ()
    named = [line for line in lines if line.startswith("background: left out: ")]
    assert [line.split(":")[2].split("/")[-1] for line in sorted(named)] == [
        "empty.ogg", "no-samples.wav", "text.mp3",
    ]  # fmt: skip
    batch, _ = Batches(sources, found.contract(jobs[0]), jobs[0])[0]
    assert np.isfinite(batch.numpy()).all()


def test_what_a_model_is_trained_over_is_part_of_what_made_it(
    competition: Path, tmp_path: Path, noise: Path
) -> None:
    found = read(competition, tmp_path)
    over = tiny_job("augment.background=0.5", f"augment.background_folder={noise}")
    before = found.background_parents(over)
    write_sound(noise / "wind.wav", 1.0)
    after = found.background_parents(over)
    assert before.keys() == after.keys() == {"backgrounds"}
    assert before != after
    assert found.background_parents(tiny_job()) == {}
    soundscapes = found.sources(tiny_job("augment.background=0.5"))
    assert {path for path, _ in soundscapes.background} == set(found.unlabelled)
    assert soundscapes.soundscapes() == tuple(sorted(path.name for path in found.unlabelled))


def test_a_background_that_is_not_there_is_named(
    competition: Path, tmp_path: Path, noise: Path
) -> None:
    found = read(competition, tmp_path)
    for folder, why in ((tmp_path / "nowhere", "no such folder"), (tmp_path / "bare", "no recordings")):
        (tmp_path / "bare").mkdir(exist_ok=True)
        job = tiny_job("augment.background=0.5", f"augment.background_folder={folder}")
        with pytest.raises(UserError, match=why):
            found.background_parents(job)
    with pytest.raises(UserError, match="there are no unlabelled soundscapes to cut it from"):
        replace(found, unlabelled=()).background(tiny_job("augment.background=0.5"))
    for good in ("rain.wav", "surf/surf.flac"):
        (noise / good).unlink()
    settings = f"augment.background_folder={noise}", "augment.background=1.0"
    with pytest.raises(UserError, match="none of 3 files can be decoded; the first"):
        prepare(competition, tmp_path, *settings)


def test_the_loss_has_the_groups_of_the_taxonomy_and_one_without_classes_is_named(
    competition: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "competition"
    shutil.copytree(competition, folder)
    table = pd.read_csv(folder / "taxonomy.csv")
    table["class_name"] = ["Amphibia", *["Aves"] * (len(table) - 1)]
    table.to_csv(folder / "taxonomy.csv", index=False)
    found, (first, *_) = read(folder, tmp_path), table["primary_label"]

    def groups(name: str) -> Mapping[str, str]:
        settings = "fit.loss='focal'", f"fit.focal_groups=[{{group='{name}', negative=4}}]"
        return found.sources(tiny_job(*settings)).groups

    assert {name for name, group in groups("Amphibia").items() if group == "Amphibia"} == {first}
    assert found.sources(tiny_job()).groups == {}  # read where the loss asks for them alone
    with pytest.raises(UserError, match=r"no class is of group 'Frogs'; there is Amphibia, Aves"):
        groups("Frogs")


def test_soundscapes_as_background_leave_none_out_of_fold() -> None:
    rounds = "rounds=[{}, {pseudo={out_of_fold=true}}]"
    models = "models=[{encoder='test_resnet', name='a'}, {encoder='test_resnet', name='b'}]"
    recipe = tiny_recipe(models, rounds, "augment.background=0.5")
    with pytest.raises(UserError, match=r"rounds\.1\.pseudo\.out_of_fold: augment\.background draws"):
        plan.stages(recipe, Path("run"))
