"""Crops begin where a teacher hears the recording's label, and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from conftest import tiny_predictor
from hypothesis import given
from hypothesis import strategies as st
from test_data import make_batches, recording

from birdkit.contract import Contract
from train import crops
from train.data import Starts
from train.evaluate import TorchEngine
from train.settings import Pseudo
from train.waveforms import Waveforms

RATE = 32000
CONTRACT = Contract(RATE, 5.0, 5.0, ("a", "b"))
SETTINGS = Pseudo(crop_above=0.5)


class Loudness:
    """An engine that hears class a in a chunk by how much of it is loud, and b the less for it."""

    contract = CONTRACT

    def __init__(self, worth: float = 1.0) -> None:
        self.worth, self.heard = worth, 0

    def __call__(self, chunks):
        self.heard += len(chunks)
        loud = (np.abs(chunks) > 0.1).mean(axis=1) * self.worth
        found = np.stack([loud, 1.0 - loud], axis=1).astype(np.float32)
        return {"clipwise": found, "segmentwise": 20.0 * (found - 0.5)}


def teacher(**engines):
    hashes = {name: f"hash of {name}" for name in engines}
    return SimpleNamespace(engines=engines, hashes=hashes, contract=CONTRACT)


def calling(path, duration_s, from_s, to_s, label="a"):
    """A recording that is loud from one moment to another."""
    at = np.arange(int(duration_s * RATE)) / RATE
    loud = (at >= from_s) & (at < to_s)
    soundfile.write(path, np.where(loud, 0.5, 0.001) * np.sign(np.sin(6000 * at)), RATE)
    return replace(recording(label, "x", path=str(path)), duration_s=duration_s)


@pytest.fixture
def recordings(tmp_path):
    return [
        calling(tmp_path / "late.wav", 20.0, 14.0, 16.0),
        calling(tmp_path / "short.wav", 3.0, 0.0, 1.0),
        calling(tmp_path / "early.wav", 30.0, 1.0, 3.0),
        calling(tmp_path / "other.wav", 11.0, 0.0, 6.0, label="b"),
    ]


def listen(of, recordings, folder, first_s=60.0, settings=SETTINGS):
    return crops.listen(of, recordings, Waveforms(RATE), first_s, settings, folder)


def test_crops_hold_the_sound_that_the_teacher_hears(recordings, tmp_path):
    path = listen(teacher(one=Loudness(), two=Loudness(0.5)), recordings, tmp_path / "round1")
    found = crops.to_draw_from(path, recordings, SETTINGS)
    late, short, early, other = recordings
    assert set(found) == {late.path, early.path, other.path}
    rng = np.random.default_rng(0)
    for each, holds in [(late, (14.0, 16.0)), (early, (1.0, 3.0)), (other, (6.5, 7.5))]:
        waveform = Waveforms(RATE)(each.path)
        begun = np.array(
            [found[each.path].crop(np.arange(waveform.size), 5 * RATE, rng)[0] for _ in range(200)]
        )
        middle = np.mean(holds) * RATE
        assert ((begun <= middle) & (middle <= begun + 5 * RATE)).all()
        assert np.ptp(begun) > RATE / 2  # not one crop again and again


def test_the_rest_of_a_recording_stays_out_and_the_beginning_is_all_that_is_heard(recordings, tmp_path):
    settings = replace(SETTINGS, output="clipwise")  # which is exactly 0 in silence
    path = listen(teacher(one=Loudness()), recordings, tmp_path, 10.0, settings)
    found = crops.to_draw_from(path, recordings, settings)
    assert max(starts.at.max() for starts in found.values()) == 5 * RATE
    late = found[recordings[0].path]  # silent in its first ten seconds: all starts are alike
    np.testing.assert_allclose(late.chance, 1 / len(late.at))


def test_models_are_averaged_over_the_output_that_is_asked_for(recordings, contract, tmp_path):
    model = TorchEngine(
        tiny_predictor(replace(contract, classes=("a", "b"))).eval(), torch.device("cpu")
    )
    for output in ("clipwise", "segmentwise"):
        settings = Pseudo(crop_above=0.5, output=output)
        both = listen(
            teacher(one=model, two=Loudness()), recordings[:1], tmp_path / output, 60.0, settings
        )
        table = crops.pq.read_table(both).to_pandas()
        waveform = Waveforms(RATE)(recordings[0].path) / np.float32(32767)
        chunks = np.stack([waveform[at : at + 5 * RATE] for at in table["sample"]])
        each = [engine(chunks)[output][:, 0] for engine in (model, Loudness())]
        if output == "segmentwise":
            each = [1 / (1 + np.exp(-logits)) for logits in each]
        np.testing.assert_allclose(table["probability"], np.mean(each, axis=0), atol=1e-5)


def test_it_is_done_once_and_again_only_for_another_teacher_recording_or_length(recordings, tmp_path):
    first, other = Loudness(), Loudness()
    path = listen(teacher(one=first), recordings, tmp_path)
    content, heard = path.read_bytes(), first.heard
    assert listen(teacher(one=first), recordings, tmp_path).read_bytes() == content
    assert first.heard == heard
    listen(teacher(other=other), recordings, tmp_path)
    assert other.heard == heard
    for changed in (recordings[:2], recordings):
        listen(teacher(one=first), changed, tmp_path)
    assert first.heard > 2 * heard
    assert listen(teacher(one=first), recordings, tmp_path).read_bytes() == content
    listen(teacher(one=first), recordings, tmp_path, first_s=10.0)
    assert path.read_bytes() != content


def test_what_was_heard_before_a_kill_is_not_heard_again(recordings, tmp_path, monkeypatch):
    monkeypatch.setattr(crops, "BLOCK_FILES", 2)
    whole = listen(teacher(one=Loudness()), recordings, tmp_path / "whole")
    engine = Loudness()

    def killed(path, first_s):
        if path == recordings[3].path:
            raise KeyboardInterrupt
        return Waveforms(RATE)(path, first_s)

    with pytest.raises(KeyboardInterrupt):
        crops.listen(teacher(one=engine), recordings, killed, 60.0, SETTINGS, tmp_path / "again")
    before = engine.heard
    path = listen(teacher(one=engine), recordings, tmp_path / "again")
    assert path.read_bytes() == whole.read_bytes()
    assert engine.heard - before < before  # the first two were kept
    assert [each.name for each in path.parent.iterdir()] == [crops.NAME]


@given(
    n_samples=st.integers(1, 400),
    chunk=st.integers(4, 60),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_crop_is_a_whole_stretch_and_begins_beside_a_start_that_is_allowed(n_samples, chunk, seed):
    contract = Contract(1, float(chunk), float(chunk), ("a",))
    at = crops.starts(n_samples, contract)
    assert (len(at) == 0) == (n_samples <= chunk)
    if not len(at):
        return
    assert at[0] == 0
    assert at[-1] == n_samples - chunk
    assert np.diff(at).max() <= -(-chunk // crops.STARTS_A_CHUNK)
    rng = np.random.default_rng(seed)
    allowed = rng.random(len(at)) < 0.5
    allowed[rng.integers(len(at))] = True
    waveform = np.arange(n_samples, dtype=np.int16)
    crop = Starts(at, allowed / allowed.sum()).crop(waveform, chunk, rng)
    assert len(crop) == chunk
    assert (np.diff(crop) == 1).all()
    assert np.abs(at[allowed] - crop[0]).min() <= np.diff(at).max()


def test_batches_heed_it_from_the_step_on_that_pseudo_labels_begin(recordings, contract):
    late = [replace(recordings[0], primary="a")]
    starts = Starts(np.array([0, 15 * RATE]), np.array([0.0, 1.0]))
    more = ["augment.mixup=0", "augment.noise=0", "augment.afar=0"]
    after = ["rounds=[{}, {pseudo = {after = 0.5, share = 0.0}}]", *more]
    guided = make_batches(late, contract, *after, crops={late[0].path: starts})
    free = make_batches(late, contract, *more)
    assert torch.equal(guided[7][0], free[7][0])
    assert not torch.equal(guided[8][0], free[8][0])


def test_without_its_speech_a_recordings_places_are_others(recordings, contract):
    late = [replace(recordings[0], primary="a")]
    starts = Starts(np.array([0, 15 * RATE]), np.array([0.0, 1.0]))
    more = ["augment.mixup=0", "augment.noise=0", "augment.afar=0", "data.speech=cut"]
    speech = {late[0].path: ((0.0, 9.0),)}
    guided = make_batches(late, contract, *more, crops={late[0].path: starts}, speech=speech)
    loud = (guided[0][0].abs() > 0.1).float().mean(dim=1)
    assert loud.unique().numel() > 2  # at random in what is left
