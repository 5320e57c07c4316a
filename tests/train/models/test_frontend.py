from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from birdkit.contract import Contract
from tests.conftest import tiny_predictor
from train.config.settings import FrontEnd
from train.models.frontend import LogMel, to_log_mel

N = 160_000
RATE = 32000


def signals() -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    t = np.arange(N) / RATE
    chirp = np.sin(2 * np.pi * (500 * t + 1500 * t**2))
    faint = 1e-4 * rng.standard_normal(N)
    click = np.zeros(N)
    click[[0, 70_001, N - 1]] = 1.0
    tone = 0.5 * np.sin(2 * np.pi * 1000 * t)
    return np.array([0.1 * rng.standard_normal(N), chirp, faint, click, tone], dtype=np.float32)


@pytest.mark.parametrize(
    "config",
    [
        FrontEnd(),
        FrontEnd(n_fft=4096, hop=1252, n_mels=224),  # the 2025 winner's: hop does not divide n_fft
        FrontEnd(n_fft=1024, hop=500, n_mels=64, fmin_hz=0.0),
        FrontEnd(n_fft=1000, hop=250, n_mels=40),  # not a power of two
        FrontEnd(n_fft=1018, hop=509, n_mels=20),  # twice a prime: the factorisation is 1 × 1018
        FrontEnd(n_fft=2048, hop=320),  # more slices than are worth a node each
    ],
)
def test_mel_power_is_librosas_in_float64_to_a_thousandth_of_a_db(config: FrontEnd) -> None:
    waveforms = signals()
    ours = LogMel(config).mel_power(torch.from_numpy(waveforms)).numpy()
    for waveform, mel in zip(waveforms, ours, strict=True):
        reference = librosa.feature.melspectrogram(
            y=waveform.astype(np.float64), sr=RATE, n_fft=config.n_fft, hop_length=config.hop,
            n_mels=config.n_mels, fmin=config.fmin_hz, fmax=config.fmax_hz, pad_mode="constant",
            dtype=np.float64,
        )  # fmt: skip
        assert mel.shape == reference.shape
        heard = reference > reference.max() * 1e-6  # within 60 dB of the peak
        off_db = 10 * np.abs(np.log10(mel[heard]) - np.log10(reference[heard]))
        assert off_db.max() < 1e-3


@pytest.mark.parametrize("n_samples", [1, 511, 512, 513, 2047, 2048, 2049, N - 1, N, N + 1])
def test_frames_are_one_more_than_the_hops_that_fit(n_samples: int) -> None:
    front_end = LogMel(FrontEnd())
    log_mel = front_end(torch.zeros(2, n_samples))
    assert log_mel.shape == (2, 1, 128, front_end.n_frames(n_samples))
    assert front_end.n_frames(n_samples) == 1 + n_samples // 512


def test_the_log_mel_lies_in_0_to_1_and_does_not_see_the_gain() -> None:
    front_end = LogMel(FrontEnd())
    waveforms = torch.from_numpy(signals())
    log_mel = front_end(waveforms)
    assert log_mel.min() >= 0
    assert log_mel.amax(dim=(1, 2, 3)).allclose(torch.ones(len(waveforms)))
    # Exact up to the rounding of f32, but for the faint one, which sinks into the floor.
    quieter = front_end(0.1 * waveforms)
    loud = [0, 1, 3, 4]
    assert (quieter[loud] - log_mel[loud]).abs().max() < 1e-4
    assert (quieter[2] <= log_mel[2] + 1e-5).all()


def test_digital_silence_is_an_empty_log_mel() -> None:
    assert LogMel(FrontEnd())(torch.zeros(1, N)).abs().max() == 0


def test_the_log_mel_stays_f32_inside_a_bf16_training_step(contract: Contract) -> None:
    """bf16 would move the mel by tenths of a dB and more; here it must not move at all."""
    predictor = tiny_predictor(contract).train()
    waveforms = torch.from_numpy(signals())
    alone = predictor.front_end(waveforms)
    seen: dict[str, torch.Tensor] = {}
    predictor.front_end.register_forward_hook(lambda module, given, made: seen.update(mel=made))
    predictor.network.hidden.register_forward_hook(lambda module, given, made: seen.update(net=made))
    with torch.autocast("cpu", torch.bfloat16):
        clipwise, segmentwise = predictor(waveforms)
    (clipwise.float().sum() + segmentwise.float().sum()).backward()
    assert seen["net"].dtype == torch.bfloat16  # the step really is a bf16 one
    assert seen["mel"].dtype == torch.float32
    assert torch.equal(seen["mel"], alone)


def test_half_precision_input_is_raised_to_f32_first() -> None:
    waveforms = torch.from_numpy(signals())
    front_end = LogMel(FrontEnd())
    assert front_end(waveforms.bfloat16()).dtype == torch.float32


def test_the_log_mel_is_decibels_below_the_peak() -> None:
    power = torch.tensor([[[1.0, 0.1], [1e-4, 1e-9]]])
    expected = torch.tensor([[[[1.0, 0.875], [0.5, 0.0]]]])
    assert to_log_mel(power).allclose(expected, atol=1e-6)


def test_what_is_steady_in_a_band_can_be_taken_off() -> None:
    """A hum leaves no band brighter than another; what comes and goes stays, at its height above."""
    t = np.arange(N) / RATE
    hum = 0.3 * np.sin(2 * np.pi * 2000 * t)
    call = np.where((t > 2) & (t < 2.5), 0.3 * np.sin(2 * np.pi * 6000 * t), 0.0)
    noise = 1e-3 * np.random.default_rng(0).standard_normal(N)
    given = torch.from_numpy((hum + call + noise).astype(np.float32)[None])
    plain = LogMel(FrontEnd())(given)[0, 0]
    less = LogMel(FrontEnd(subtract_mean=1.0))(given)[0, 0]
    band_of_hum, band_of_call = plain.mean(dim=1).argmax(), plain[:, 140].clone()
    band_of_call[band_of_hum - 5 : band_of_hum + 6] = 0
    call_at = int(band_of_call.argmax())
    assert plain[band_of_hum].mean() - plain.mean() > 0.3
    assert abs(less[band_of_hum].mean() - less.mean()) < 0.02
    height = plain[call_at, 140] - plain[call_at].mean()
    assert less[call_at, 140] - less[call_at].mean() == pytest.approx(float(height), abs=1e-5)
    half = LogMel(FrontEnd(subtract_mean=0.5))(given)[0, 0]
    assert half.allclose((plain + less) / 2, atol=1e-5)
