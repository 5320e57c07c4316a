from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from birdkit.contract import Contract
from tests.conftest import tiny_recipe, write_sound
from train.config.job import job_of
from train.config.settings import Augment, Data
from train.data import augment
from train.data.batches import (
    Batches,
    LabelledWindows,
    Sources,
    _joined,
    crop_notes,
    cumulated,
    drawn,
    random_crop,
    sampling_weights,
    target_matrix,
    true_windows,
)
from train.data.competition import Recording
from train.data.soundscapes import LabelledSoundscape
from train.data.waveforms import Waveforms

Paths = tuple[Path, Path]


def recording(primary: str, author: str, *secondary: str, path: str | Path = "x.ogg") -> Recording:
    return Recording(Path(path), primary, tuple(secondary), author)


def test_what_cropping_leaves_out_or_repeats_is_said() -> None:
    lengths = (0.5, 5.0, 59.0, 61.0, 300.0)
    recordings = [Recording(Path("x.ogg"), "a", (), "x", length) for length in lengths]
    longer, shorter = crop_notes(recordings, Data())
    assert "2 recordings are longer than data.first_s = 60 s" in longer
    assert "1 recordings are shorter than a chunk of 5 s" in shorter
    assert crop_notes(recordings[1:3], Data()) == []


def test_targets_hold_the_primary_label_and_weigh_the_secondary_ones() -> None:
    targets = target_matrix([recording("b", "x", "a")], ("a", "b", "c"), 0.5)
    np.testing.assert_array_equal(targets, [[0.5, 1.0, 0.0]])


def test_a_secondary_label_may_be_unknown() -> None:
    targets = target_matrix([recording("b", "x", "a")], ("a", "b", "c"), -1.0)
    np.testing.assert_array_equal(targets, [[np.nan, 1.0, 0.0]])


def test_balance_0_draws_classes_alike_and_1_draws_recordings_alike() -> None:
    recordings = [recording("a", "x")] * 9 + [recording("b", "x")]
    even = sampling_weights(recordings, 0.0)
    assert even[:9].sum() == pytest.approx(even[9])
    assert np.allclose(sampling_weights(recordings, 1.0), 0.1)
    root = sampling_weights(recordings, 0.5)
    assert root[:9].sum() / root[9] == pytest.approx(3.0)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 5))
def test_a_crop_is_a_stretch_of_the_recording_or_its_repetition(
    size: int, wanted: int, seed: int
) -> None:
    waveform = np.arange(size, dtype=np.int16)
    crop = random_crop(waveform, wanted, np.random.default_rng(seed))
    assert crop.shape == (wanted,)
    np.testing.assert_array_equal(np.diff(crop) % size, np.full(wanted - 1, 1 % size))


@pytest.fixture
def batches(tmp_path: Path, contract: Contract) -> Batches:
    recordings = [
        recording(label, "x", path=str(write_sound(tmp_path / f"{label}{i}.ogg", 3.0 + 4 * i)))
        for label in ("a", "b", "1234")
        for i in range(2)
    ]
    return make_batches(recordings, contract, "augment.mixup=0.5")


def make_batches(
    recordings: list[Recording], contract: Contract, *overrides: str, **more: Any
) -> Batches:
    """Batches of recordings; `more` are other sources."""
    return Batches(
        Sources(recordings, Waveforms(contract.sample_rate), more.pop("speech", {}), **more),
        contract,
        job_of(tiny_recipe(*overrides), min(1, len(more)), "test_resnet"),
    )


def test_a_batch_is_a_function_of_its_step(batches: Batches, contract: Contract) -> None:
    once, again = batches[7], batches[7]
    assert torch.equal(once[0], again[0])
    assert torch.equal(once[1], again[1])
    assert not torch.equal(once[0], batches[8][0])
    batches.seed += 1
    assert not torch.equal(once[0], batches[7][0])
    assert once[0].shape == (16, contract.chunk_samples)
    assert once[0].abs().max() <= 1.0


def test_processes_that_share_a_batch_draw_its_samples_and_each_only_its_own(batches: Batches) -> None:
    whole = batches[7]
    for own in (range(5), range(5, 16)):
        batches.own = own
        for tensor, of_whole in zip(batches[7], whole, strict=True):
            assert torch.equal(tensor, of_whole[own.start : own.stop])


def test_an_index_is_drawn_as_numpy_draws_it() -> None:
    chance = np.array([0.0, 0.2, 0.0, 0.5, 0.3, 0.0])
    one, other = np.random.default_rng(3), np.random.default_rng(3)
    indices = [drawn(cumulated(chance), one) for _ in range(200)]
    assert indices == [other.choice(6, p=chance) for _ in range(200)]


def test_mixup_joins_the_labels_of_both(batches: Batches) -> None:
    targets = torch.cat([batches[step][1] for step in range(8)])
    assert set(targets.unique().tolist()) == {0.0, 1.0}
    labels_each = Counter(targets.sum(dim=1).tolist())
    # Half are mixed, two thirds of those with another class.
    assert set(labels_each) == {1.0, 2.0}
    assert 0.15 < labels_each[2.0] / len(targets) < 0.5


def test_a_mix_takes_the_higher_of_two_soft_labels_and_keeps_what_is_unknown() -> None:
    chunk = np.ones(4, dtype=np.float32)
    first = np.array([0.3, 0.0, 0.2, np.nan, np.nan], dtype=np.float32)
    second = np.array([0.0, 0.8, 0.6, 0.4, 1.0], dtype=np.float32)
    for one, other in ((first, second), (second, first)):
        _, target = _joined((chunk, one), (chunk, other), (0.0, 0.0), np.random.default_rng(0))
        np.testing.assert_array_equal(target, np.array([0.3, 0.8, 0.6, np.nan, 1.0], np.float32))


@pytest.mark.parametrize("levels_db", [(-6.0, 6.0), (-20.0, -3.0)])
def test_a_mix_is_a_sum_within_the_levels(levels_db: tuple[float, float]) -> None:
    rng = np.random.default_rng(0)
    first = np.array([0.5, -0.5] * 50, dtype=np.float32)
    second = np.full(100, 0.01, dtype=np.float32)
    for _ in range(20):
        added = augment.mix(first, second, levels_db, rng) - first
        ratio_db = 20 * np.log10(augment.rms(added) / augment.rms(first))
        assert levels_db[0] - 1e-3 <= ratio_db <= levels_db[1] + 1e-3
        np.testing.assert_allclose(added, added[0], rtol=1e-5)


def test_noise_has_the_ratio_asked_for_and_silence_stays_near_silent() -> None:
    bank = augment.noise_bank(8000, 0)
    chunk = np.sin(np.arange(40_000, dtype=np.float32))
    noisy = augment.add_noise(chunk, bank, (10.0, 10.0), np.random.default_rng(0))
    snr_db = 20 * np.log10(augment.rms(chunk) / augment.rms(noisy - chunk))
    assert snr_db == pytest.approx(10.0, abs=1.5)
    silence = augment.add_noise(0 * chunk, bank, (0.0, 0.0), np.random.default_rng(0))
    assert np.abs(silence).max() < 1e-4


def test_from_afar_dulls_and_reverberates_and_keeps_the_power() -> None:
    rng = np.random.default_rng(0)
    click = np.zeros(32000, dtype=np.float32)
    click[1000] = 1.0
    spectra = []
    for _ in range(50):
        heard = augment.from_afar(click, 32000, rng)
        assert heard.dtype == np.float32
        assert augment.rms(heard) == pytest.approx(augment.rms(click), rel=1e-3)
        assert np.abs(heard[1100:]).max() > 1e-4  # a tail
        spectra.append(np.abs(np.fft.rfft(heard)))
    mean = np.mean(spectra, axis=0)
    low, high = mean[500:1500].mean(), mean[12000:15000].mean()
    assert high < 0.7 * low
    assert augment.from_afar(0 * click, 32000, rng).max() == 0.0


def test_equalising_changes_the_colour_within_its_gains_and_keeps_the_power() -> None:
    rng = np.random.default_rng(2)
    click = np.zeros(32000, dtype=np.float32)
    click[16_000] = 1.0
    levels = []
    for _ in range(20):
        heard = augment.equalised(click, 32000, 12.0, rng)
        assert augment.rms(heard) == pytest.approx(augment.rms(click), rel=1e-3)
        levels_db = 20 * np.log10(np.abs(np.fft.rfft(heard)))
        assert np.ptp(levels_db) <= 24.1
        assert np.abs(np.diff(levels_db[125:])).max() < 0.5  # smooth: no gap between two bins
        levels.append(np.ptp(levels_db))
    assert np.mean(levels) > 10
    assert augment.equalised(click, 32000, 0.0, rng) == pytest.approx(click, abs=1e-6)
    assert not augment.equalised(0 * click, 32000, 12.0, rng).any()
    at_the_end = np.roll(click, 15_999)
    heard = augment.equalised(at_the_end, 32000, 12.0, rng)
    assert augment.rms(heard[:16_000]) < 1e-3 * augment.rms(heard)


@pytest.mark.parametrize("speed", [0.5, 0.9, 1.0, 1.1, 2.0])
def test_a_faster_recording_is_higher_and_as_long_as_asked_for(speed: float) -> None:
    heard = round(32000 * speed)
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(heard) / 32000).astype(np.float32)
    played = augment.at_speed(tone, 32000)
    assert played.shape == (32000,)
    middle = played[4000:-4000] * np.hanning(24000)
    loudest_hz = np.argmax(np.abs(np.fft.rfft(middle, 320_000))) / 10
    assert loudest_hz == pytest.approx(1000 * speed, abs=1.0)
    assert augment.rms(played) == pytest.approx(0.5 / np.sqrt(2), rel=0.02)


@pytest.mark.parametrize("setting", ["equalise", "speed"])
def test_what_is_off_changes_no_other_draw_and_what_is_on_changes_the_sound_alone(
    setting: str, batches: Batches
) -> None:
    plain, targets = batches[3]
    batches.augment = replace(batches.augment, **{setting: 1.0})  # type: ignore[arg-type]
    changed, _ = batches[3]
    assert changed.shape == plain.shape
    assert not torch.equal(changed, plain)
    batches.augment = replace(batches.augment, **{setting: 0.0})  # type: ignore[arg-type]
    again, same = batches[3]
    assert torch.equal(again, plain)
    assert torch.equal(same, targets)


def test_spec_augment_masks_bands_and_stretches_and_repeats_by_its_generator() -> None:
    config = Augment(freq_masks=1, time_masks=1)
    log_mel = torch.rand(4, 1, 64, 100)

    def run(seed: int) -> torch.Tensor:
        draws = augment.draw_masks(len(log_mel), config, torch.Generator().manual_seed(seed))
        return augment.spec_augment(log_mel, config, draws)

    assert torch.equal(run(1), run(1))
    changed = (run(1) != log_mel)[:, 0]
    means = log_mel.mean(dim=(2, 3), keepdim=True).expand_as(log_mel)
    assert torch.equal(run(1)[changed[:, None]], means[changed[:, None]])
    assert changed.any()
    for one in changed:
        rows, columns = one.all(dim=1), one.all(dim=0)
        assert rows.sum() <= 0.12 * 64 + 1
        assert columns.sum() <= 0.1 * 100 + 1
        # Whatever changed lies in a masked band or a masked stretch.
        assert torch.equal(one, rows[:, None] | columns[None, :])


@pytest.fixture
def tones(tmp_path: Path) -> Paths:
    """A recording of class a at 1 kHz, and a soundscape whose second window of two is at 6 kHz."""

    def write(path: Path, *hz: int) -> Path:
        t = np.arange(5 * 32000) / 32000
        sound = np.concatenate([0.3 * np.sin(2 * np.pi * f * t) for f in hz]).astype(np.float32)
        soundfile.write(path, sound, 32000)
        return path

    return write(tmp_path / "r.wav", 1000), write(tmp_path / "s_20250101_050000.wav", 200, 6000)


def has_tone(chunk: NDArray[np.float32], hz: int) -> bool:
    spectrum = np.abs(np.fft.rfft(chunk))
    return bool(spectrum[hz * 5] > 0.2 * spectrum.max())


PLAIN = ("augment.mixup=0.0", "augment.noise=0.0", "rounds=[{}, {pseudo = {}}]")


def opinion(path: Path) -> LabelledWindows:
    targets = np.array([[0, 0, 0], [0, 0.7, 0]], dtype=np.float32)
    zeros = np.zeros(2, dtype=np.int64)
    return LabelledWindows((path,), zeros, np.arange(2), targets, np.array([0.0, 1.0]))


def test_pseudo_windows_are_samples_of_their_own_at_their_share(
    tones: Paths, contract: Contract
) -> None:
    plain, soundscape = tones
    batches = make_batches(
        [recording("a", "x", path=plain)], contract, *PLAIN, "rounds.1.pseudo.share=0.25",
        pseudo=opinion(soundscape),
    )  # fmt: skip
    chunks, targets = (np.concatenate(x) for x in zip(*(batches[s] for s in range(16)), strict=True))
    of_pseudo = targets[:, 1] > 0
    assert 0.15 < of_pseudo.mean() < 0.35
    for chunk, target, is_pseudo in zip(chunks, targets, of_pseudo, strict=True):
        assert has_tone(chunk, 6000) == is_pseudo
        assert has_tone(chunk, 1000) != is_pseudo
        np.testing.assert_allclose(target, [0, 0.7, 0] if is_pseudo else [1, 0, 0])


def test_pseudo_windows_are_mixed_into_labelled_samples_and_their_labels_join(
    tones: Paths, contract: Contract
) -> None:
    plain, soundscape = tones
    batches = make_batches(
        [recording("a", "x", path=plain)], contract, *PLAIN, "rounds.1.pseudo.share=0.5",
        "rounds.1.pseudo.mixing=mixed", "rounds.1.pseudo.gain_db=0.0", pseudo=opinion(soundscape),
    )  # fmt: skip
    chunks, targets = (np.concatenate(x) for x in zip(*(batches[s] for s in range(16)), strict=True))
    assert targets[:, 0].tolist() == [1.0] * len(targets)
    assert 0.35 < (targets[:, 1] > 0).mean() < 0.65
    for chunk, target in zip(chunks, targets, strict=True):
        assert has_tone(chunk, 1000)
        assert has_tone(chunk, 6000) == (target[1] > 0)


def test_the_soundscapes_level_is_over_the_recordings(tones: Paths, contract: Contract) -> None:
    plain, soundscape = tones
    batches = make_batches(
        [recording("a", "x", path=plain)], contract, *PLAIN, "rounds.1.pseudo.share=1.0",
        "rounds.1.pseudo.mixing=mixed", "rounds.1.pseudo.level_db=-20.0", "rounds.1.pseudo.gain_db=0.0",
        pseudo=opinion(soundscape),
    )  # fmt: skip
    chunks, targets = batches[0]
    for chunk in chunks[targets[:, 1] > 0].numpy():
        spectrum = np.abs(np.fft.rfft(chunk))
        hz = np.fft.rfftfreq(chunk.size, 1 / contract.sample_rate)
        power = [(spectrum[abs(hz - tone) < 100] ** 2).sum() for tone in (6000, 1000)]
        assert 10 * np.log10(power[0] / power[1]) == pytest.approx(-20.0, abs=0.5)


def test_what_is_unsure_stays_so_in_a_mix_unless_the_other_is_certain(
    tones: Paths, contract: Contract
) -> None:
    plain, soundscape = tones
    targets = np.array([[0, 0, 0], [np.nan, np.nan, 0]], dtype=np.float32)
    windows = replace(opinion(soundscape), targets=targets)
    batches = make_batches(
        [recording("a", "x", path=plain)], contract, *PLAIN, "rounds.1.pseudo.share=1.0",
        "rounds.1.pseudo.mixing=mixed", pseudo=windows,
    )  # fmt: skip
    np.testing.assert_array_equal(batches[0][1][0], [1.0, np.nan, 0.0])


def test_labelled_soundscapes_train_on_their_truth_where_rows_cover_the_window(
    tones: Paths, contract: Contract
) -> None:
    plain, soundscape = tones
    truth = true_windows([LabelledSoundscape(soundscape, ((5.0, 10.0, ("b", "1234")),))], contract)
    batches = make_batches(
        [recording("a", "x", path=plain)], contract, *PLAIN, "data.labelled_share=1.0", truth=truth
    )
    chunks, targets = batches[0]
    assert targets.tolist() == [[0.0, 1.0, 1.0]] * len(targets)
    assert all(has_tone(chunk, 6000) for chunk in chunks.numpy())
    assert batches.sources.soundscapes() == (soundscape.name,)
    assert true_windows([], contract) is None


@pytest.mark.parametrize(
    ("policy", "shares"), [("keep", (0.7, 0.97)), ("cut", (0, 0)), ("half", (0.1, 0.6))]
)
def test_speech_is_kept_cut_or_kept_half_of_the_time(
    tones: Paths, contract: Contract, policy: str, shares: tuple[float, float]
) -> None:
    _, soundscape = tones
    speech = {} if policy == "keep" else {soundscape: ((5.0, 10.0),)}
    batches = make_batches(
        [recording("a", "x", path=soundscape)], contract, *PLAIN, f"data.speech={policy}", speech=speech
    )
    chunks = np.concatenate([batches[step][0] for step in range(4)])
    spoken = np.mean([has_tone(chunk, 6000) for chunk in chunks])
    assert shares[0] <= spoken <= shares[1]
