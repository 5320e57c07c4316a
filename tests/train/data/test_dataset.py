"""What a run trains and validates on, by its recipe."""

from __future__ import annotations

import shutil

import pandas as pd
import pytest

from tests.conftest import tiny_recipe
from train.config import recipe
from train.data import dataset
from train.data.batches import Batches
from train.data.competition import site_of


def read(folder, cache, *overrides):
    return dataset.read([folder], tiny_recipe("data.cache=true", *overrides), cache)


@pytest.mark.parametrize("policy", ["validate", "train", "split"])
def test_labelled_soundscapes_validate_train_or_are_split_by_site(competition, tmp_path, policy):
    found = read(competition, tmp_path, f"data.labelled={policy}")
    n_labelled = len(found.competition.soundscapes)
    assert len(found.training) + len(found.validating) == n_labelled
    if policy == "split":
        sites = [{site_of(s.path) for s in part} for part in (found.training, found.validating)]
        assert all(sites)
        assert not sites[0] & sites[1]
    else:
        assert len(found.training if policy == "train" else found.validating) == n_labelled


def test_a_teacher_labels_neither_what_trains_by_its_truth_nor_what_validates(competition, tmp_path):
    found = read(competition, tmp_path, "data.labelled=split")
    labelled = set(found.soundscapes(validating=False))
    assert labelled == set(found.unlabelled)
    assert not labelled & {each.path for each in (*found.training, *found.validating)}
    more = set(found.soundscapes(validating=True)) - labelled
    assert more == {each.path for each in found.validating}


def test_truth_windows_are_a_source_where_labelled_soundscapes_train(competition, tmp_path):
    assert read(competition, tmp_path).sources().truth is None
    found = read(competition, tmp_path, "data.labelled=train")
    truth = found.sources().truth
    assert len(truth) == 12 * len(found.training)
    assert found.sources().soundscapes() == tuple(sorted(s.path.name for s in found.training))


@pytest.fixture
def doubled(competition, tmp_path):
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
    doubled, tmp_path, monkeypatch
):
    kept = read(doubled, tmp_path, "data.fold=-1")
    assert any("XC1" in line for line in kept.notes)
    dropped = read(doubled, tmp_path, "data.fold=-1", "data.duplicates=drop")
    # One stays for each label: a class must not lose a recording to another.
    assert len(dropped.recordings) <= len(kept.recordings)
    both = {kept.recordings[0].primary, "demris1"}
    monkeypatch.setattr(dataset.duplicates, "find_duplicates", None)  # found once, then kept
    assert read(doubled, tmp_path, "data.fold=-1").notes == kept.notes
    joined = [r for r in dropped.recordings if {r.primary, *r.secondary} >= both]
    assert joined


def test_with_and_without_the_cache_a_batch_is_the_same_bit_for_bit(competition, tmp_path):
    config = tiny_recipe("data.cache=true")
    found, lines = dataset.prepare(dataset.read([competition], config, tmp_path), config, tmp_path)
    assert any(line.startswith(f"waveform cache {tmp_path}: ") for line in lines)
    without = tiny_recipe("data.cache=false")
    plain, lines = dataset.prepare(dataset.read([competition], without, tmp_path), without, tmp_path)
    assert lines == []
    assert plain.waveforms.folder is None
    first, second = (
        Batches(each.sources(), each.contract, recipe.for_member(config, 0, "test_resnet"), 4)[3]
        for each in (found, plain)
    )
    assert first[0].equal(second[0])
    assert first[1].equal(second[1])


def test_soundscapes_are_in_the_cache_where_later_rounds_draw_from_them(competition, tmp_path):
    for rounds, n_more in (("rounds=[{}]", 0), ("rounds=[{}, {}]", 3)):
        config = tiny_recipe("data.cache=true", rounds)
        found = dataset.read([competition], config, tmp_path / rounds)
        (line,) = dataset.prepare(found, config, tmp_path / rounds)[1]
        assert f": {len(found.recordings) + n_more} recordings" in line


def test_speech_is_looked_for_where_the_recipe_asks_and_once(competition, tmp_path, monkeypatch):
    searched = []

    def detector():
        def detect(waveform, sample_rate):
            searched.append(waveform.size)
            return ((0.0, 0.5),)

        return detect

    monkeypatch.setattr(dataset.speech, "SpeechDetector", detector)
    for policy in ("keep", "cut", "half"):
        config = tiny_recipe("data.cache=true", f"data.speech={policy}")
        found, lines = dataset.prepare(dataset.read([competition], config, tmp_path), config, tmp_path)
        assert bool(found.speech) == (policy != "keep")
        assert any(line.startswith("human speech") for line in lines) == (policy != "keep")
    assert len(searched) == len(found.recordings)


def test_the_fingerprint_knows_the_tables_and_the_sounds(competition, tmp_path):
    before = read(competition, tmp_path).fingerprint
    folder = tmp_path / "moved"
    shutil.copytree(competition, folder)
    assert read(folder, tmp_path).fingerprint == before  # where it lies does not matter
    sound = next((folder / "train_audio").rglob("*.ogg"))
    sound.write_bytes(sound.read_bytes() + b"0")
    assert read(folder, tmp_path).fingerprint != before
