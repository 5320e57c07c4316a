"""A batch: scores that go into the journal as they come, whatever a recording or a kill does."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from birdkit.contract import Contract
from birdkit.engines.engine import Answers
from birdkit.errors import UserError
from birdkit.recordings import journal as journal_module
from birdkit.recordings.batch import Batch
from birdkit.recordings.folders import Recording, find
from birdkit.recordings.journal import Journal, Model, Scored, Sound
from birdkit.recordings.progress import Progress
from birdkit.scoring.engine_failover import Failover
from birdkit.scoring.ensemble import Ensemble, Loaded, Spec
from birdkit.scoring.parts import PART_WINDOWS, SoundFile
from birdkit.scoring.predict import predict

RATE = 100  # Hz; nothing in the parts depends on it
Array = NDArray[np.float32]
KERNEL = (0.25, 0.5, 0.25)


class Hears:
    """An engine that answers with logits of a chunk's sound. It can be told to die at a call."""

    def __init__(self) -> None:
        self.contract = Contract(RATE, 10.0, 5.0, ("a", "b"), ("segmentwise",))
        self.calls, self.dies_at = 0, -1

    def __call__(self, chunks: Array) -> Answers:
        self.calls += 1
        if self.calls == self.dies_at:
            raise KeyboardInterrupt
        return {"segmentwise": np.stack([chunks[:, 0], chunks.mean(axis=1)], axis=1)}


def models(engine: Hears) -> Failover:
    """Rank averaging, of which a batch wants nothing."""
    spec = Spec({"x": 1.0}, "segmentwise", KERNEL, averaging="rank")
    loaded = Loaded(Ensemble({"x": engine}, spec), ["x"], [])

    def reopen(avoid: Sequence[str]) -> Loaded:
        raise UserError("no engine is left")

    return Failover(loaded, reopen)


def noise(path: Path, windows: float, rate: int = RATE) -> None:
    rng = np.random.default_rng(len(path.name))
    path.parent.mkdir(exist_ok=True)
    soundfile.write(path, rng.uniform(-1, 1, round(windows * 5 * rate)), rate, subtype="FLOAT")


def score(folder: Path, journal: Journal, engine: Hears, floor: float = 0.0) -> Batch:
    """Score what the journal lacks of a folder."""
    todo = [recording for recording in recordings(folder) if not journal.has(recording, floor)]
    batch = Batch(models(engine), journal, floor, Progress(len(todo), 1))
    batch.run(todo, streams=1)
    return batch


def recordings(folder: Path) -> list[Recording]:
    return find([folder], folder / "out")[0]


def scores(journal: Journal, folder: Path) -> dict[str, list[float]]:
    scored = {one.name: journal.read(one) for one in recordings(folder)}
    return {name: of.scores.tolist() for name, of in scored.items() if of is not None}


def test_a_recording_has_the_scores_of_a_submission_but_for_its_ranks(tmp_path: Path) -> None:
    noise(tmp_path / "a.wav", 2 * PART_WINDOWS + 3.5)
    with closing(Journal(tmp_path, "key")) as journal:
        score(tmp_path, journal, engine := Hears())
        scored = journal.read(recordings(tmp_path)[0])
    assert scored is not None
    n_windows = 2 * PART_WINDOWS + 4
    ensemble = Ensemble({"x": engine}, Spec({"x": 1.0}, "segmentwise"))
    file = SoundFile(tmp_path / "a.wav", n_windows)
    (members,) = predict([file], ensemble.score, ensemble.contract).scores
    assert members is not None
    padded = np.pad(members[0], ((1, 1), (0, 0)), mode="edge")
    smooth = 0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:]
    np.testing.assert_allclose(scored.scores.reshape(n_windows, 2), smooth, rtol=0, atol=1e-6)
    assert scored.sound == Sound(5 * (n_windows - 0.5), RATE, 1, "")


@pytest.mark.parametrize("dies_at", range(1, 8))
def test_a_batch_that_dies_at_any_call_ends_with_the_same_scores(tmp_path: Path, dies_at: int) -> None:
    noise(tmp_path / "in" / "a.wav", 2)
    noise(tmp_path / "in" / "long.wav", 4 * PART_WINDOWS, rate=147)
    noise(tmp_path / "in" / "z.wav", 3)
    with closing(Journal(tmp_path, "key")) as journal:
        score(tmp_path / "in", journal, whole := Hears())
        expected = scores(journal, tmp_path / "in")
    (tmp_path / "journal.sqlite").unlink()
    first, second = Hears(), Hears()
    first.dies_at = dies_at
    with closing(Journal(tmp_path, "key")) as journal, pytest.raises(KeyboardInterrupt):
        score(tmp_path / "in", journal, first)
    with closing(Journal(tmp_path, "key")) as journal:
        score(tmp_path / "in", journal, second)
        assert scores(journal, tmp_path / "in") == expected
    # Of the parts that were taken before it died none is scored again.
    assert whole.calls == 7
    assert second.calls <= 7 - dies_at + 1 + 3  # those begun ahead are


def test_a_bad_recording_is_named_and_ends_nothing(tmp_path: Path) -> None:
    for name in ("a", "c"):
        noise(tmp_path / f"{name}.wav", 1)
    noise(tmp_path / "cut.wav", 8)
    whole = (tmp_path / "cut.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b.wav").write_bytes(b"no sound")
    (tmp_path / "empty.flac").write_bytes(b"")
    soundfile.write(tmp_path / "none.wav", np.zeros(0), RATE)
    noise(tmp_path / "short.wav", 0.04)  # 0.2 s
    (tmp_path / "folder.wav").mkdir()
    with closing(Journal(tmp_path, "key")) as journal:
        batch = score(tmp_path, journal, Hears())
        done = scores(journal, tmp_path)
    assert sorted(batch.faults) == ["b.wav", "empty.flac", "none.wav"]
    assert "can't be decoded" in batch.faults["b.wav"]
    assert "holds no samples" in batch.faults["none.wav"]
    assert {name: len(of) // 2 for name, of in done.items()} == {
        "a.wav": 1,
        "c.wav": 1,
        "cut.wav": 4,
        "short.wav": 1,
    }


def test_a_header_that_promises_more_than_there_is_adds_no_windows(tmp_path: Path) -> None:
    noise(tmp_path / "a.flac.wav", 1)
    samples = np.random.default_rng(0).uniform(-1, 1, 8000 * 5 * 60)
    soundfile.write(tmp_path / "cut.flac", samples, 8000)
    whole = (tmp_path / "cut.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(whole[: len(whole) // 2])
    with closing(Journal(tmp_path, "key")) as journal:
        score(tmp_path, journal, Hears())
        scored = journal.read(recordings(tmp_path)[1])
    assert scored is not None
    assert scored.windows.max() + 1 in (29, 30, 31)
    assert scored.sound.duration_s == 5 * (scored.windows.max() + 1)


def test_only_what_changed_is_scored_again(tmp_path: Path) -> None:
    noise(tmp_path / "a.wav", 1)
    noise(tmp_path / "b.wav", 1)
    with closing(Journal(tmp_path, "key")) as journal:
        score(tmp_path, journal, Hears(), floor=0.1)
        score(tmp_path, journal, again := Hears(), floor=0.2)
        assert again.calls == 0
        noise(tmp_path / "b.wav", 2)
        score(tmp_path, journal, again, floor=0.1)
        assert again.calls == 1
        score(tmp_path, journal, again, floor=0.05)
        assert again.calls == 3
    with closing(Journal(tmp_path, "other models")) as journal:
        score(tmp_path, journal, again, floor=0.1)
        assert again.calls == 5
    with closing(Journal(tmp_path, "key")) as journal:  # the first models' are still there
        score(tmp_path, journal, again, floor=0.1)
        assert again.calls == 5


def test_scores_below_the_floor_are_not_kept() -> None:
    table = np.array([[0.1, 0.5], [0.49, 0.9]], dtype=np.float32)
    kept = Scored.of(Sound(10.0, RATE, 1, ""), table, 0.5)
    assert kept.windows.tolist() == [0, 1]
    assert kept.classes.tolist() == [1, 1]
    np.testing.assert_array_equal(kept.scores, np.array([0.5, 0.9], np.float32))
    assert kept.above(0.6).windows.tolist() == [1]
    assert kept.of_classes([0]).windows.tolist() == []


def test_a_full_disk_is_one_line_and_what_was_done_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "COMMIT_EVERY_S", 0.0)
    for index in range(30):
        noise(tmp_path / "in" / f"{index:02}.wav", PART_WINDOWS)
    with closing(Journal(tmp_path, "key")) as journal:
        (pages,) = journal._db.execute("PRAGMA page_count").fetchone()
        journal._db.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(UserError, match=r"journal\.sqlite: database or disk is full; make room"):
            score(tmp_path / "in", journal, Hears())
    with closing(Journal(tmp_path, "key")) as journal:
        kept = len(scores(journal, tmp_path / "in"))
        score(tmp_path / "in", journal, engine := Hears())
        assert len(scores(journal, tmp_path / "in")) == 30
    assert 0 < kept < 30
    assert engine.calls == 30 - kept


def test_a_journal_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").write_bytes(b"no journal" * 100)
    with pytest.raises(UserError, match="remove it"):
        Journal(tmp_path, "key")


def test_a_journal_remembers_its_models(tmp_path: Path) -> None:
    model = Model("m", ("a", "b"), 5.0, 32000, "2x1x2")
    with closing(Journal(tmp_path, "key")) as journal:
        assert journal.model is None
        journal.model = model
    with closing(Journal(tmp_path, "key")) as journal:
        assert journal.model == model
    assert sqlite3.connect(tmp_path / "journal.sqlite").execute(
        "PRAGMA integrity_check"
    ).fetchone() == ("ok",)


def test_progress_counts_bytes_of_this_run_only() -> None:
    now = [0.0]
    progress = Progress(2, 1000, clock=lambda: now[0])
    progress.skip(400)  # by an earlier run
    now[0] = 10.0
    progress.part(200, 3600.0)
    progress.recording()
    said = "1/2 recordings, 1 h 0 min of sound, 360 times real time, 20 s left"
    assert str(progress) == said
