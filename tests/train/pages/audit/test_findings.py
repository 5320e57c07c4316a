"""What an audit finds in a folder whose recordings are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from numpy.typing import NDArray

from birdkit.errors import UserError
from tests.train.pages.audit.conftest import ODD, SCRIPT, SPOKEN_S, noise
from train.data import dataset, speech, waveforms
from train.data.waveforms import FULL_SCALE, Waveforms
from train.pages.audit import figures, findings, sound, world
from train.pages.audit.findings import Audit
from train.pages.audit.folder import read


def found(done: Audit) -> dict[str, list[str]]:
    """The names of the files in each finding."""
    audio = done.folder.audio
    return {
        finding.name: [str(done.rows["path"][row].relative_to(audio)) for row in finding.rows]
        for finding in done.findings
    }


def test_each_finding_is_made_where_it_was_put(folder: Path) -> None:
    done = findings.audit(read(folder))
    assert found(done) == {
        "fault": ["rana/text.ogg", "rana/absent.ogg"],
        "duplicate": [f"{SCRIPT}/same.wav", "aves/same.wav"],
        "speech": ["aves/voice.mp3"],
        "silence": ["rana/silent.wav", "aves/half.ogg"],
        "clipping": [f"aves/{ODD}"],
        "short": ["rana/short.wav"],
    }
    rows = done.rows.set_index(done.rows["path"].map(lambda path: path.name))
    assert rows.loc["half.ogg", "silent"] == pytest.approx(0.5, abs=0.03)
    assert rows.loc[ODD, "clipped"] == pytest.approx(0.01, abs=1e-4)
    assert rows.loc["voice.mp3", "speech"] == (SPOKEN_S,)
    assert rows.loc["stereo.flac", "rate_hz"] == 44_100
    assert rows.loc["stereo.flac", "channels"] == 2
    assert rows.loc["absent.ogg", "fault"] == "is absent"
    assert done.folder.notes == ("1 sound files in train_audio are in no row of train.csv",)


def test_levels_of_known_samples() -> None:
    silence = np.zeros(10 * 1600, np.int16)
    assert sound.levels(silence) == (1.0, 0.0, 0.0)
    full = np.full(1600, -FULL_SCALE, np.int16)
    assert sound.levels(np.concatenate([silence[:4800], full])) == (0.75, 0.25, 1.0)
    assert sound.levels(silence[:1]) == (1.0, 0.0, 0.0)
    quiet = np.rint(FULL_SCALE * 10 ** (-79 / 20) * np.ones(1600)).astype(np.int16)
    assert sound.levels(quiet)[0] == 0.0


def test_without_authors_the_same_bytes_are_duplicates_and_the_same_length_is_not(
    folder: Path,
) -> None:
    audio = folder / "train_audio"
    (audio / "aves" / "copy.wav").write_bytes((audio / SCRIPT / "same.wav").read_bytes())
    (folder / "train.csv").unlink()
    assert found(findings.audit(read(folder)))["duplicate"] == [f"{SCRIPT}/same.wav", "aves/copy.wav"]


def test_a_file_of_two_rows_is_a_duplicate_of_itself(folder: Path) -> None:
    table = pd.read_csv(folder / "train.csv", dtype=str, keep_default_na=False)
    again = table.iloc[[5]].assign(primary_label="aves")
    pd.concat([table, again]).to_csv(folder / "train.csv", index=False)
    done = findings.audit(read(folder))
    assert done.groups == [[0, 1], [5, 10]]
    assert done.rows["class"][10] == "aves"


def test_a_second_audit_with_a_cache_decodes_only_what_may_be_a_duplicate(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(UserError, match="no such folder"):
        findings.audit(read(folder), cache)
    cache.mkdir()
    first = findings.audit(read(folder), cache)
    decode, decoded = Waveforms.__call__, set()

    def noted(self: Waveforms, path: Path, max_s: float | None = None) -> object:
        decoded.add(path.name)
        return decode(self, path, max_s)

    monkeypatch.setattr(Waveforms, "__call__", noted)
    assert found(findings.audit(read(folder), cache)) == found(first)
    assert decoded == {"same.wav"}
    assert [path.name for path in cache.iterdir()] == [sound.STORE_NAME]
    (cache / sound.STORE_NAME).write_text("{damaged")
    assert found(findings.audit(read(folder), cache)) == found(first)


def test_waveforms_and_speech_of_a_training_are_not_made_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = findings.audit(read(folder))
    paths = [path for path in first.rows["path"] if path.suffix in (".wav", ".mp3", ".flac")]
    waveforms.fill(tmp_path / "cache", [(path, sound.FIRST_S) for path in paths], sound.RATE_HZ)
    store = tmp_path / "cache" / dataset.SPEECH_NAME.format(sound.FIRST_S)
    speech.find_speech(paths, sound.Listener().waveform, sound.RATE_HZ, store)
    searched: list[float] = []

    def searching(_: object, waveform: NDArray[np.float32], rate: int) -> tuple[()]:
        searched.append(waveform.size / rate)
        return ()

    monkeypatch.setattr(speech.SpeechDetector, "__call__", searching)
    decode, decoded = waveforms._decode, set()

    def noted(path: Path, *more: object) -> object:
        decoded.add(path.name)
        return decode(path, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(waveforms, "_decode", noted)
    assert found(findings.audit(read(folder), tmp_path / "cache")) == found(first)
    assert searched == [4.0]
    assert decoded == {"half.ogg"}


def test_an_audit_writes_nothing_into_the_folder(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    findings.audit(read(folder))
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_folders_without_a_table_are_classes(folder: Path) -> None:
    for name in ("train.csv", "taxonomy.csv"):
        (folder / name).unlink()
    done = read(folder / "train_audio")
    assert sorted(set(done.rows["class"])) == [SCRIPT, "aves", "rana"]
    assert len(done.rows) == 10
    assert "author" in done.absent
    assert done.groups == {}


def test_no_folder_and_no_recordings_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        read(tmp_path / "nowhere")
    with pytest.raises(UserError, match="nor a folder of recordings"):
        read(tmp_path)


def test_recordings_of_a_place_share_a_dot_and_impossible_places_have_none() -> None:
    latitudes = np.array([18.1, 18.1, -33.9, 95.0, np.nan, 1.0])
    longitudes = np.array([-66.1, -66.1, 151.2, 0.0, 2.0, np.nan])
    drawn = world.draw(latitudes, longitudes, list("aabbbb"))
    assert drawn is not None
    assert drawn.dots == [0, 0, 1, -1, -1, -1]
    assert drawn.labels == ["18.10, −66.10: 2 recordings of a", "−33.90, 151.20: 1 recording of b"]
    assert world.draw(latitudes[3:], longitudes[3:], list("bbb")) is None


def test_a_place_is_drawn_on_the_land_that_it_is_on() -> None:
    view = world.View.around(np.array([18.2]), np.array([-66.5]))  # the middle of Puerto Rico
    (ring,) = (r for r in world._land() if np.hypot(*(r.mean(axis=0) - [-66.5, 18.2])) < 1)
    x, y = view.place(ring[:, 0], ring[:, 1])
    at_x, at_y = view.place(np.array(-66.5), np.array(18.2))
    assert x.min() < at_x < x.max()
    assert y.min() < at_y < y.max()
    assert at_x == pytest.approx(world.WIDTH / 2)


@pytest.mark.parametrize("latitude", [-89.0, 0.0, 80.0])
def test_a_view_is_within_the_world_and_no_strip(latitude: float) -> None:
    for lows, highs in (((0, 0), (0, 0)), ((-10, -170), (10, 175)), ((-40, 0), (9, 0.1))):
        latitudes = np.clip(latitude + np.array([lows[0], highs[0]], float), -90, 90)
        view = world.View.around(latitudes, np.array([lows[1], highs[1]], float))
        assert -180 <= view.west < view.east <= 180
        assert -90 <= view.south < view.north <= 90
        assert 0.3 < view.height / world.WIDTH < 1.3


def test_the_share_without_a_call_is_that_of_the_labels(folder: Path) -> None:
    assert "No soundscape is labelled" in figures.no_call_line(folder, ["aves", "rana"])
    (folder / "train_soundscapes").mkdir()
    soundfile.write(folder / "train_soundscapes" / "S.ogg", noise(20), 32_000)
    lines = ["filename,start,end,primary_label", "S.ogg,00:00:00,00:00:05,aves;rana"]
    lines += ["S.ogg,00:00:05,00:00:10,", "S.ogg,00:00:10,00:00:15,"]
    (folder / "train_soundscapes_labels.csv").write_text("\n".join(lines))
    line = figures.no_call_line(folder, ["aves", "rana"])
    assert line.startswith("2 of 3 labelled windows of 5 s (66.7%) in 1 soundscapes")
