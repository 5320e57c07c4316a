"""Synthetic singers, their songs and the scenes they sing in. Arrays in, arrays out.

The species share their bands and differ in the grammar of their songs (which way a note goes, how
fast they follow each other), so that a mean spectrum can't tell them apart and a network can.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import scipy.fft
import scipy.signal
from numpy.typing import NDArray

from birdkit import grid

Rng = np.random.Generator
Sound = NDArray[np.floating]
Cells = NDArray[np.int_]

RATE_HZ = 32_000
WINDOW_S, N_WINDOWS = int(grid.WINDOW_S), grid.WINDOWS_A_MINUTE
N_SAMPLES = RATE_HZ * WINDOW_S * N_WINDOWS  # of a soundscape
FRAME_S = 0.01  # the grain at which song is judged audible
AUDIBLE_DB, FAINT_DB = 0.0, -25.0  # of a frame over what else is in the species' band
POSITIVE_S = 0.4  # so much audible song makes a window positive


@dataclass(frozen=True)
class Song:
    """Phrases of `n_notes` notes that follow `contour_hz`.

    `harmonics` holds the amplitudes of the fundamental and its multiples; where it is empty, a note
    is noise between the two ends of the contour.
    """

    n_notes: tuple[int, int]
    note_s: float
    gap_s: float
    contour_hz: tuple[float, ...]
    harmonics: tuple[float, ...]

    @property
    def band_hz(self) -> tuple[float, float]:
        return min(self.contour_hz), max(self.contour_hz) * max(1, len(self.harmonics) - 1)


UP, DOWN, WAVE = (2300.0, 4500.0), (4500.0, 2300.0), (2300.0, 4500.0) * 7
BUZZ, CROAK = (2300.0, 4700.0), (640.0, 740.0, 600.0)
WHISTLED, CROAKED, HISSED = (1.0, 0.05), (0.3, 0.5, 0.8, 1.0, 0.8, 0.5, 0.3), ()
SONGS = {
    "9000001": Song((2, 5), 0.28, 0.30, CROAK, CROAKED),
    "9000002": Song((6, 14), 0.09, 0.14, BUZZ, HISSED),
    "9000003son1": Song((1, 2), 2.50, 0.20, BUZZ, HISSED),
    "demfal1": Song((2, 5), 0.50, 0.30, DOWN, WHISTLED),
    "demris1": Song((2, 5), 0.50, 0.30, UP, WHISTLED),
    "demtri1": Song((14, 32), 0.05, 0.03, DOWN, WHISTLED),
    "demtri2": Song((5, 11), 0.14, 0.09, DOWN, WHISTLED),
    "demwar1": Song((1, 2), 2.00, 0.30, WAVE, WHISTLED),
}
LABELS = list(SONGS)
TAXONOMY = pd.DataFrame(
    [
        (9000001, "Rana demonstrans", "Demo Frog", "Amphibia"),
        (9000002, "Tettigonia demonstrans", "Demo Katydid", "Insecta"),
        (9000003, "Cicada demonstrans", "Demo Cicada", "Insecta"),
        (9000004, "Sibilus descendens", "Falling Whistler", "Aves"),
        (9000005, "Sibilus ascendens", "Rising Whistler", "Aves"),
        (9000006, "Trillus celer", "Fast Triller", "Aves"),
        (9000007, "Trillus lentus", "Slow Triller", "Aves"),
        (9000008, "Sibilus undulans", "Demo Warbler", "Aves"),
    ],
    columns=["inat_taxon_id", "scientific_name", "common_name", "class_name"],
    index=pd.Index(LABELS, name="primary_label"),
)
AUTHOR_RATES_HZ = (32_000, 32_000, 44_100, 32_000, 32_000, 48_000, 32_000, 22_050, 32_000, 32_000)
STEREO_AUTHORS = (3, 5)


def individual(song: Song, rng: Rng) -> Song:
    """The song of one singer: its own pitch and tempo."""
    pitch, tempo = rng.lognormal(0, [0.07, 0.1])
    contour_hz = tuple(hz * pitch for hz in song.contour_hz)
    return replace(song, note_s=song.note_s / tempo, gap_s=song.gap_s / tempo, contour_hz=contour_hz)


def note(song: Song, rate_hz: int, rng: Rng) -> Sound:
    """One note, (samples,); no two notes are quite the same."""
    longer, higher = rng.lognormal(0, 0.04, 2)
    n = max(8, round(song.note_s * longer * rate_hz))
    contour_hz = np.array(song.contour_hz) * higher
    if song.harmonics:
        knots = np.linspace(0, n, len(contour_hz))
        phase = 2 * np.pi * np.cumsum(np.interp(np.arange(n), knots, contour_hz)) / rate_hz
        multiples = np.arange(1, len(song.harmonics) + 1)
        wave = np.array(song.harmonics) @ np.sin(np.outer(multiples, phase))
    else:
        n_fast = scipy.fft.next_fast_len(n, real=True)
        bin_hz = scipy.fft.rfftfreq(n_fast, 1 / rate_hz)
        inside = (bin_hz > contour_hz.min()) & (bin_hz < contour_hz.max())
        hiss = scipy.fft.rfft(rng.standard_normal(n_fast))
        wave = scipy.fft.irfft(inside * hiss, n_fast)[:n]
    return wave * scipy.signal.windows.tukey(n, min(1.0, 0.04 * rate_hz / n))


def sing(song: Song, n_samples: int, rate_hz: int, rng: Rng) -> Sound:
    """Phrases in a row from the first sample on, (n_samples,), with an RMS of 1 while they sound."""
    sound = np.zeros(n_samples)
    at = 0
    while at < n_samples:
        for _ in range(rng.integers(song.n_notes[0], song.n_notes[1] + 1)):
            wave = note(song, rate_hz, rng)[: max(0, n_samples - at)]
            sound[at : at + len(wave)] = wave
            at += len(wave) + round(song.gap_s * rate_hz)
        at += round(rng.uniform(0.8, 2.5) * rate_hz)
    return sound / np.sqrt(np.mean(sound[sound != 0] ** 2))


def coloured(n_samples: int, slope: float, rng: Rng) -> Sound:
    """Noise, (n_samples,), of RMS 1 whose power falls as f^-slope (1: pink) above the lowest bins."""
    n = scipy.fft.next_fast_len(n_samples, real=True)
    bins = np.arange(n // 2 + 1, dtype=np.float32)
    spectrum = rng.standard_normal((len(bins), 2), dtype=np.float32).view(np.complex64)[:, 0]
    spectrum *= np.maximum(bins, len(bins) / 200) ** np.float32(-slope / 2)
    noise = scipy.fft.irfft(spectrum, n)[:n_samples]
    return noise / noise.std()


def rain(drops_per_s: float, rng: Rng) -> Sound:
    sound = np.zeros(N_SAMPLES, np.float32)
    click = rng.standard_normal(200) * np.exp(-np.arange(200) / 40)
    n_drops = rng.poisson(drops_per_s * N_SAMPLES / RATE_HZ)
    for start in rng.integers(0, N_SAMPLES - len(click), n_drops):
        sound[start : start + len(click)] += rng.exponential() * click
    return sound


def background(site: Rng, rng: Rng) -> Sound:
    """(samples,): noise of the site (level, slope, hum), and wind and rain of the day."""
    level, slope = 10 ** (site.uniform(-50, -28) / 20), site.uniform(0.6, 1.6)
    hum_hz, hum = site.integers(90, 130), site.uniform(0, 1)
    phase = 2 * np.pi * hum_hz * np.arange(RATE_HZ) / RATE_HZ
    one_second = hum * np.sum([np.sin(k * phase) / k for k in (1, 2, 3)], axis=0)
    gusts = np.interp(np.linspace(0, 20, N_SAMPLES), np.arange(21), rng.lognormal(0, 0.5, 21))
    wind = coloured(N_SAMPLES // 4, 2.5, rng)  # seamless when repeated
    sound = np.resize(wind, N_SAMPLES) * gusts.astype(np.float32)
    sound += coloured(N_SAMPLES, slope, rng)
    sound += np.resize(one_second.astype(np.float32), N_SAMPLES)
    if rng.random() < 0.4:
        sound += rng.uniform(0.3, 1.0) * rain(rng.uniform(3, 40), rng)
    return level * sound


def from_afar(dry: Sound, distance: float, rng: Rng) -> Sound:
    """The sound with a low-pass, reverberation and its tail, for a distance of 0 (near) … 1 (far)."""
    sos = scipy.signal.butter(1, 9000 - 5500 * distance, fs=RATE_HZ, output="sos")
    n_tail = RATE_HZ // 3
    echo = rng.standard_normal(n_tail) * np.exp(-np.arange(n_tail) / (0.06 * RATE_HZ))
    echo *= 0.5 * distance / np.sqrt(np.sum(echo**2))
    echo[0] = 1.0
    return scipy.signal.oaconvolve(scipy.signal.sosfilt(sos, dry), echo)


def bouts(song: Song, noise_rms: float, rng: Rng) -> Sound:
    """The songs of one individual in a minute at the microphone, (samples,)."""
    track, own = np.zeros(N_SAMPLES, np.float32), individual(song, rng)
    for _ in range(rng.integers(2, 5)):
        snr_db = rng.uniform(-6, 15)
        dry = sing(own, round(rng.uniform(2, 9) * RATE_HZ), RATE_HZ, rng)
        wet = from_afar(dry, (15 - snr_db) / 21, rng)
        audible = track[round(rng.uniform(0, 58) * RATE_HZ) :][: len(wet)]
        audible += noise_rms * 10 ** (snr_db / 20) * wet[: len(audible)]
    return track


def band_power(sound: Sound, band_hz: tuple[float, float]) -> Sound:
    """Mean power within a band for each window of a soundscape, (windows,)."""
    windows = sound.reshape(N_WINDOWS, -1).astype(np.float32)
    low, high = (round(hz * WINDOW_S) for hz in band_hz)
    spectrum = scipy.fft.rfft(windows, axis=1)[:, low : high + 1]
    return 2 * np.sum(np.abs(spectrum) ** 2, axis=1) / windows.shape[1] ** 2


def frame_power(track: Sound) -> Sound:
    """Mean power of each frame of a track (samples,), (windows, frames)."""
    frames = track.reshape(N_WINDOWS, -1, round(FRAME_S * RATE_HZ))
    return np.einsum("wfs,wfs->wf", frames, frames) / frames.shape[2]


def judge(power: Sound, others: Sound, noise: Sound) -> tuple[Cells, Cells]:
    """Truth and mask of a species, each (windows,). Song that is too faint or too short is masked.

    `power` (windows, frames) is its own and `others` that of the other singers, of which half counts
    (a listener separates songs in one band down to about -3 dB). `noise` (windows,) is its band's.
    """
    snr = power / (noise[:, None] + others / 2)
    truth = np.sum(snr > 10 ** (AUDIBLE_DB / 10), axis=1) * FRAME_S >= POSITIVE_S
    hint = np.any(power > noise[:, None] * 10 ** (FAINT_DB / 10), axis=1)
    return truth.astype(int), (hint & ~truth).astype(int)


def soundscape(cast: list[str], site: Rng, rng: Rng) -> tuple[Sound, Cells, Cells]:
    """A minute of audio (samples,), and its truth and mask (windows, classes)."""
    sound = background(site, rng)
    noise = {label: band_power(sound, SONGS[label].band_hz) for label in cast}
    power = {}
    for label in cast:
        track = bouts(SONGS[label], noise[label].mean() ** 0.5, rng)
        power[label] = frame_power(track)
        sound += track
    truth = np.zeros((N_WINDOWS, len(LABELS)), int)
    mask = np.zeros_like(truth)
    for label in cast:
        others = sum(power.values()) - power[label]
        j = LABELS.index(label)
        truth[:, j], mask[:, j] = judge(power[label], others, noise[label])
    return sound, truth, mask


def casts(n_files: int, rng: Rng) -> Iterator[list[str]]:
    """The species of each soundscape, dealt from shuffled decks: the first three have all of them."""
    deck: list[str] = []
    for _ in range(n_files):
        n = rng.integers(3, 6)
        while len(deck) < n:
            deck += rng.permutation(LABELS).tolist()
        yield sorted(set(deck[:n]))
        del deck[:n]


def recording(label: str, author: int, rng: Rng) -> tuple[Sound, list[str]]:
    """A focal recording (samples,) or (samples, 2), and the species that call far behind."""
    rate_hz = AUTHOR_RATES_HZ[author]
    length_s = np.exp(np.interp(rng.random(), [0, 0.1, 0.9, 1], np.log([0.4, 3, 15, 20])))
    n = round(length_s * rate_hz)
    sound = sing(individual(SONGS[label], rng), n, rate_hz, rng)
    sound += 10 ** (rng.uniform(-36, -22) / 20) * coloured(n, rng.uniform(0.5, 1.5), rng)
    strangers = [other for other in LABELS if other != label]
    others = [str(rng.choice(strangers))] if rng.random() < 0.2 else []
    for other in others:
        faint = 10 ** (rng.uniform(-24, -18) / 20)
        sound += faint * sing(individual(SONGS[other], rng), n, rate_hz, rng)
    sound *= 10 ** (rng.uniform(-18, -1) / 20) / np.abs(sound).max()
    if author in STEREO_AUTHORS:
        sound = np.stack([sound, rng.uniform(0.5, 1.0) * sound], axis=1)
    return sound, others
