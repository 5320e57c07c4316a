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
    Sample,
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
from train.data.waveforms import Waveforms, to_float

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
    crop, (first, last) = random_crop(waveform, wanted, np.random.default_rng(seed))
    assert crop.shape == (wanted,)
    assert set(crop.tolist()) == set(range(first, last))
    np.testing.assert_array_equal(np.diff(crop) % size, np.full(wanted - 1, 1 % size))


@pytest.fixture
def batches(tmp_path: Path, contract: Contract) -> Batches:
    recordings = [
        recording(label, "x", path=str(write_sound(tmp_path / f"{label}{i}.ogg", 3.0 + 4 * i)))
        for label in ("a", "b", "1234")
        for i in range(2)
    ]
    noise = [(write_sound(tmp_path / "noise.wav", 1.0), 60.0)]
    return make_batches(recordings, contract, "augment.mixup=0.5", background=noise)


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
        joined = _joined(Sample(chunk, one), Sample(chunk, other), (0.0, 0.0), np.random.default_rng(0))
        np.testing.assert_array_equal(joined.target, np.array([0.3, 0.8, 0.6, np.nan, 1.0], np.float32))


@pytest.mark.parametrize("levels_db", [(-6.0, 6.0), (-20.0, -3.0)])
def test_a_mix_is_a_sum_within_the_levels(levels_db: tuple[float, float]) -> None:
    rng = np.random.default_rng(0)
    first = np.array([0.5, -0.5] * 50, dtype=np.float32)
    second = np.full(100, 0.01, dtype=np.float32)
    for _ in range(20):
        silent = Sample(first, np.zeros(1, np.float32)), Sample(second, np.zeros(1, np.float32))
        added = _joined(*silent, levels_db, rng).chunk - first
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


@pytest.mark.parametrize("size", [1, 4000, 5119, 20_000])
@pytest.mark.parametrize("delay", [-100, 0, 1, 2400])
def test_what_is_filtered_in_blocks_is_as_if_it_were_filtered_at_once(size: int, delay: int) -> None:
    n_fft = 5120
    response = np.exp(-2j * np.pi * np.fft.rfftfreq(n_fft) * delay).astype(np.complex64)
    chunk = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    expected = np.zeros(size + abs(delay), dtype=np.float32)
    expected[max(0, delay) : max(0, delay) + size] = chunk
    expected = expected[max(0, -delay) :][:size]
    np.testing.assert_allclose(augment._filtered(chunk, response, n_fft), expected, atol=1e-5)


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


@pytest.mark.parametrize("setting", ["equalise", "speed", "background"])
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


@pytest.mark.parametrize("snr_db", [0.0, 12.0])
def test_a_background_lies_under_the_chunk_by_its_ratio_and_changes_no_label(
    tones: Paths, tmp_path: Path, contract: Contract, snr_db: float
) -> None:
    plain, noise = tones[0], tmp_path / "noise.wav"
    rate = contract.sample_rate
    soundfile.write(noise, 0.1 * np.sin(2 * np.pi * 6000 * np.arange(9 * rate) / rate), rate)
    batches = make_batches(
        [recording("a", "x", path=plain)], contract, *PLAIN, "augment.background=0.5",
        f"augment.background_snr_db=[{snr_db}, {snr_db}]", background=[(noise, None)],
    )  # fmt: skip
    chunks, targets = (np.concatenate(x) for x in zip(*(batches[s] for s in range(8)), strict=True))
    np.testing.assert_array_equal(targets, np.tile([1.0, 0.0, 0.0], (len(targets), 1)))
    hz = np.fft.rfftfreq(chunks.shape[1], 1 / contract.sample_rate)
    power = np.abs(np.fft.rfft(chunks)) ** 2
    of_tones = [power[:, abs(hz - tone) < 100].sum(axis=1) for tone in (1000, 6000)]
    ratios_db = 10 * np.log10(of_tones[0] / np.maximum(of_tones[1], 1e-9))
    over = ratios_db < 40
    assert 0.35 < over.mean() < 0.65
    np.testing.assert_allclose(ratios_db[over], snr_db, atol=0.5)
    assert batches.sources.soundscapes() == (noise.name,)  # it was heard whole, so it has trained


def test_contrast_scales_what_deviates_from_a_bands_mean_by_a_smooth_factor() -> None:
    config = Augment(contrast=0.5, contrast_range=(0.5, 2.0))
    log_mel = torch.rand(64, 1, 48, 30, generator=torch.Generator().manual_seed(1))
    draws = augment.draw_contrast(64, torch.Generator().manual_seed(2))
    changed = augment.band_contrast(log_mel, config, draws)
    torch.testing.assert_close(augment.band_contrast(log_mel[:8], config, draws[:8]), changed[:8])
    torch.testing.assert_close(changed.mean(dim=3), log_mel.mean(dim=3))
    factors = (changed.std(dim=3) / log_mel.std(dim=3))[:, 0]
    is_plain = (factors - 1).abs().amax(dim=1) < 1e-4
    assert 0.3 < is_plain.float().mean() < 0.7
    assert factors.min() >= 0.5 - 1e-4
    assert factors.max() <= 2.0 + 1e-4
    # Between six corners over 48 bands, so that neighbours differ by a fifth of the range at most.
    assert factors.diff(dim=1).abs().max() < 1.5 / 5


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


@pytest.mark.parametrize(("chunk_s", "reach"), [(5.0, 0), (9.0, 0), (10.0, 1), (15.0, 1), (20.0, 2)])
def test_a_chunk_that_is_longer_than_its_window_is_taught_all_that_it_holds(
    contract: Contract, chunk_s: float, reach: int
) -> None:
    """Against the maximum over each chunk's windows, of two files of which one has a gap."""
    rng = np.random.default_rng(0)
    places = [(0, window) for window in range(6)] + [(1, window) for window in (0, 1, 4, 5)]
    file, window = np.array(places).T
    targets = rng.choice(np.array([0.0, 0.3, 0.7, 1.0], dtype=np.float32), (len(places), 3))
    labelled = LabelledWindows((Path("a"), Path("b")), file, window, targets, np.full(10, 0.1))
    found = labelled.over_chunks(replace(contract, chunk_s=chunk_s)).targets
    for row, (of, at) in enumerate(places):
        near = [i for i, (f, w) in enumerate(places) if f == of and abs(w - at) <= reach]
        expected = targets[near].max(axis=0)
        in_gap = of == 1 and any(0 < abs(w - at) <= reach for w in (2, 3))
        expected = np.where(in_gap & (expected < 1.0), np.nan, expected)
        np.testing.assert_array_equal(found[row], expected)
    np.testing.assert_array_equal(labelled.targets, targets)  # they stay as they were


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


class Places:
    """Embeddings that say which stretch of which file was asked for."""

    size = 3

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __call__(self, path: Path, start_s: float, end_s: float) -> NDArray[np.float32]:
        return np.array([self.paths.index(path), start_s, end_s], dtype=np.float32)


def of_recordings(tmp_path: Path, contract: Contract, *overrides: str, **more: Any) -> Batches:
    paths = [write_sound(tmp_path / f"{seconds:g}.ogg", seconds) for seconds in (3.0, 11.0)]
    recordings = [recording("a", "x", path=path) for path in paths]
    return make_batches(recordings, contract, *overrides, embeddings=Places(paths), **more)


def test_a_chunk_s_embedding_is_that_of_the_stretch_it_was_cut_from(
    tmp_path: Path, contract: Contract
) -> None:
    plain = ("augment.mixup=0.0", "augment.noise=0.0", "rounds=[{}, {}]")
    chunks, _, embeddings = of_recordings(tmp_path, contract, *plain)[0]
    rate = contract.sample_rate
    sounds = [to_float(Waveforms(rate)(tmp_path / f"{seconds}.ogg")) for seconds in (3, 11)]
    assert {int(row[0]) for row in embeddings} == {0, 1}
    for chunk, (file, start_s, end_s) in zip(chunks.numpy(), embeddings.tolist(), strict=True):
        if file == 0:  # repeated: all of it is heard
            assert (start_s, end_s) == (0.0, pytest.approx(3.0))
        else:
            first = round(start_s * rate)
            assert end_s == pytest.approx(start_s + 5.0)
            np.testing.assert_array_equal(chunk, sounds[1][first : first + chunk.size])


def test_a_window_s_embedding_is_that_of_the_chunk_around_it(
    tmp_path: Path, contract: Contract
) -> None:
    path = write_sound(tmp_path / "S1.ogg", 20.0)
    targets = np.ones((1, 3), dtype=np.float32)
    one = LabelledWindows((path,), np.zeros(1, int), np.array([2]), targets, np.ones(1))
    long = replace(contract, chunk_s=8.0)
    settings = ("augment.mixup=0.0", "data.labelled_share=1.0", "rounds=[{}, {}]")
    batches = make_batches([recording("a", "x")], long, *settings, truth=one, embeddings=Places([path]))
    assert batches[0][2].unique(dim=0).tolist() == [[0.0, 8.5, 16.5]]


def test_a_mix_of_chunks_has_the_mix_of_their_embeddings() -> None:
    rng, chunk, target = np.random.default_rng(0), np.ones(4, np.float32), np.zeros(1, np.float32)
    one, other = (
        Sample(size * chunk, target, np.array(of, np.float32))
        for size, of in ((0.5, (1.0, 0.0)), (0.1, (0.0, 1.0)))
    )
    mixed = _joined(one, other, (-6.0, -6.0), rng)
    level = 10 ** (-6 / 20)
    np.testing.assert_allclose(mixed.chunk, 0.5 * (1 + level), rtol=1e-5)
    np.testing.assert_allclose(mixed.embedding, np.array([1.0, level]) / (1 + level), rtol=1e-5)
    unknown = other._replace(embedding=np.full(2, np.nan, np.float32))
    assert np.isnan(_joined(one, unknown, (0.0, 0.0), rng).embedding).all()


def test_where_speech_was_cut_out_no_embedding_is_known(tmp_path: Path, contract: Contract) -> None:
    speech = {tmp_path / "11.ogg": ((2.0, 3.0),)}
    settings = ("augment.mixup=0.0", "data.speech=cut", "rounds=[{}, {}]")
    embeddings = of_recordings(tmp_path, contract, *settings, speech=speech)[0][2]
    assert set(torch.isnan(embeddings).all(dim=1).tolist()) == {True, False}
    assert set(embeddings[:, 0].nan_to_num(9).tolist()) == {0.0, 9.0}
