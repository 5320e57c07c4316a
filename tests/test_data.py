from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_recipe, write_sound
from hypothesis import given
from hypothesis import strategies as st

from birdkit.errors import UserError
from train import augment
from train.competition import Recording
from train.data import Batches, crop_notes, random_crop, sampling_weights, split, target_matrix
from train.recipe import Augment, Data


def recording(primary, author, *secondary, path="x.ogg"):
    return Recording(Path(path), primary, tuple(secondary), author)


many = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.sampled_from([f"author{i}" for i in range(12)])),
    min_size=30,
    max_size=80,
).filter(
    lambda pairs: (
        len({author for _, author in pairs}) >= 5
        and max(Counter(label for label, _ in pairs).values()) >= 5
    )
)


@given(many, st.integers(0, 4))
def test_no_author_is_on_both_sides_but_for_classes_that_have_no_other_recording(pairs, fold):
    recordings = [recording(p, a, path=f"{i}.ogg") for i, (p, a) in enumerate(pairs)]
    train, held_out, _ = split(recordings, Data(fold=fold), seed=0)
    assert sorted(r.path for r in [*train, *held_out]) == sorted(r.path for r in recordings)
    assert {r.primary for r in train} == {r.primary for r in recordings}
    held_authors = {r.author for r in held_out}
    leaked = {r.primary for r in train if r.author in held_authors}
    for label in leaked:
        assert all(r.author in held_authors or r in train for r in recordings if r.primary == label)


def test_fold_minus_one_holds_nothing_out_and_a_fold_too_many_is_named():
    recordings = [recording("a", str(i)) for i in range(6)]
    assert split(recordings, Data(fold=-1), 0)[:2] == (recordings, [])
    with pytest.raises(UserError, match=r"data\.fold 5 is not below"):
        split(recordings, Data(fold=5), 0)
    with pytest.raises(UserError, match=r"n_folds 5 is more than these recordings bear \(3"):
        split(recordings[:3], Data(), 0)


def test_what_cropping_leaves_out_or_repeats_is_said():
    lengths = (0.5, 5.0, 59.0, 61.0, 300.0)
    recordings = [Recording(Path("x.ogg"), "a", (), "x", length) for length in lengths]
    longer, shorter = crop_notes(recordings, Data())
    assert "2 recordings are longer than data.first_s = 60 s" in longer
    assert "1 recordings are shorter than a chunk of 5 s" in shorter
    assert crop_notes(recordings[1:3], Data()) == []


def test_targets_hold_the_primary_label_and_weigh_the_secondary_ones():
    targets = target_matrix([recording("b", "x", "a")], ("a", "b", "c"), 0.5)
    np.testing.assert_array_equal(targets, [[0.5, 1.0, 0.0]])


def test_balance_0_draws_classes_alike_and_1_draws_recordings_alike():
    recordings = [recording("a", "x")] * 9 + [recording("b", "x")]
    even = sampling_weights(recordings, 0.0)
    assert even[:9].sum() == pytest.approx(even[9])
    assert np.allclose(sampling_weights(recordings, 1.0), 0.1)
    root = sampling_weights(recordings, 0.5)
    assert root[:9].sum() / root[9] == pytest.approx(3.0)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 5))
def test_a_crop_is_a_stretch_of_the_recording_or_its_repetition(size, wanted, seed):
    waveform = np.arange(size, dtype=np.float32)
    crop = random_crop(waveform, wanted, np.random.default_rng(seed))
    assert crop.shape == (wanted,)
    np.testing.assert_array_equal(np.diff(crop) % size, np.full(wanted - 1, 1 % size))


@pytest.fixture
def batches(tmp_path, contract):
    recordings = [
        recording(label, "x", path=str(write_sound(tmp_path / f"{label}{i}.ogg", 3.0 + 4 * i)))
        for label in ("a", "b", "1234")
        for i in range(2)
    ]
    return Batches(recordings, contract, tiny_recipe("augment.mixup=0.5"))


def test_a_batch_is_a_function_of_its_step(batches, contract):
    once, again = batches[7], batches[7]
    assert torch.equal(once[0], again[0])
    assert torch.equal(once[1], again[1])
    assert not torch.equal(once[0], batches[8][0])
    assert once[0].shape == (16, contract.chunk_samples)
    assert once[0].abs().max() <= 1.0


def test_mixup_joins_the_labels_of_both(batches):
    targets = torch.cat([batches[step][1] for step in range(8)])
    assert set(targets.unique().tolist()) == {0.0, 1.0}
    labels_each = Counter(targets.sum(dim=1).tolist())
    # Half are mixed, two thirds of those with another class.
    assert set(labels_each) == {1.0, 2.0}
    assert 0.15 < labels_each[2.0] / len(targets) < 0.5


def test_a_mix_is_a_sum_within_the_gain():
    rng = np.random.default_rng(0)
    first, second = np.float32([0.5, -0.5] * 50), np.float32([0.01] * 100)
    for _ in range(20):
        added = augment.mix(first, second, 6.0, rng) - first
        ratio_db = 20 * np.log10(augment.rms(added) / augment.rms(first))
        assert abs(ratio_db) <= 6.0 + 1e-3
        np.testing.assert_allclose(added, added[0], rtol=1e-5)


def test_noise_has_the_ratio_asked_for_and_silence_stays_near_silent():
    bank = augment.noise_bank(8000, 0)
    chunk = np.sin(np.arange(40_000, dtype=np.float32))
    noisy = augment.add_noise(chunk, bank, (10.0, 10.0), np.random.default_rng(0))
    snr_db = 20 * np.log10(augment.rms(chunk) / augment.rms(noisy - chunk))
    assert snr_db == pytest.approx(10.0, abs=1.5)
    silence = augment.add_noise(0 * chunk, bank, (0.0, 0.0), np.random.default_rng(0))
    assert np.abs(silence).max() < 1e-4


def test_spec_augment_masks_bands_and_stretches_and_repeats_by_its_generator():
    config = Augment(freq_masks=1, time_masks=1)
    picture = torch.rand(4, 1, 64, 100)

    def run(seed):
        return augment.spec_augment(picture, config, torch.Generator().manual_seed(seed))

    assert torch.equal(run(1), run(1))
    changed = (run(1) != picture)[:, 0]
    assert changed.any()
    for one in changed:
        rows, columns = one.all(dim=1), one.all(dim=0)
        assert rows.sum() <= 0.12 * 64 + 1
        assert columns.sum() <= 0.1 * 100 + 1
        # Whatever changed lies in a masked band or a masked stretch.
        assert torch.equal(one, rows[:, None] | columns[None, :])
