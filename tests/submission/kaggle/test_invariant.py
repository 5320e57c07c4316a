"""Whatever stops a run, wherever: the table is complete, valid and the mean of the passes it names.

The engine is a formula and the clock a fake, so that hundreds of moments and faults can be drawn; the
files, the decoding, the signal, the writing and the report are real.
"""

from __future__ import annotations

import _thread
import errno
import hashlib
import json
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from birdkit import audio
from birdkit.contract import Contract
from birdkit.engines import ladder
from birdkit.engines.engine import Answers
from birdkit.engines.layout import Layout
from birdkit.errors import UserError
from birdkit.grid import row_ids
from birdkit.kaggle import report, session, table
from birdkit.kaggle.bad_file_rows import fill_missing
from birdkit.scoring import budget, calibration, passes
from birdkit.scoring.calibration import Calibration
from birdkit.scoring.ensemble import Ensemble, Loaded, Spec, combine
from birdkit.scoring.passes import Pass
from birdkit.scoring.predict import Scores
from birdkit.signals import Stopped
from tests.conftest import submission_run as run
from tests.conftest import write_sound

CLASSES = ("a", "b", "1234")
N_WINDOWS = 12
CONTRACT = Contract(1000, 5.0, 5.0, CLASSES)
MINUTES = CONTRACT.over_stretches(60.0, 1.0)
SPEC = Spec({"x": 2.0, "y": 1.0}, smoothing=(0.25, 0.5, 0.25), shifts=(0.5, 0.25), pooling="soft")
ALL_PASSES = ["plain", "shift 0.5", "shift 0.25"]
FILE_S = 10.0  # of the fake clock, a file


class Formula:
    """An engine that answers with what it hears: windows, or the frames of whole minutes."""

    def __init__(self, world: World, weight: float, contract: Contract = CONTRACT) -> None:
        self.world, self.weight, self.contract = world, weight, contract

    def __call__(self, inputs: NDArray[np.float32]) -> Answers:
        self.world.happens("engine")
        if self.contract.stretch_s:
            loud = np.abs(inputs.reshape(len(inputs), 60, -1)).mean(axis=2, keepdims=True)
            framewise = (loud * self.weight * np.array([[9.0, 5.0, -2.0]])).astype(np.float32)
            return {"framewise": framewise, "attention": np.tanh(framewise)}
        loud = np.abs(inputs).mean(axis=1, keepdims=True)
        clipwise = np.clip(loud * self.weight * np.array([[1.0, 0.5, 0.2]]), 0, 1).astype(np.float32)
        return {"clipwise": clipwise, "segmentwise": clipwise}


@dataclass
class World:
    """A fake clock, and one fault at the n-th occasion of its kind."""

    kind: str
    at: int
    now: float = 0.0
    seen: int = 0
    tripped: bool = False

    def clock(self) -> float:
        return self.now

    def happens(self, kind: str) -> None:
        """Called wherever something could go wrong."""
        if kind == "engine":
            self.now += FILE_S / 2
        if kind not in self.kind:
            return
        self.seen += 1
        if self.seen <= self.at:
            return
        if self.kind.startswith("lasting ") or not self.tripped:
            self.tripped = True
            self.strike()

    def strike(self) -> None:
        if "SIGTERM" in self.kind:
            # Its handler, in the main thread, as a signal would: delivering a real one crashes a
            # process that holds torch, its loaders' handlers and two engines.
            _thread.interrupt_main(signal.SIGTERM)
        elif "breaks" in self.kind:
            raise RuntimeError("illegal instruction")
        elif "disk full" in self.kind:
            raise OSError(errno.ENOSPC, "No space left on device")
        elif "clock jumps" in self.kind:
            self.now += 1e6
        elif "memory" in self.kind:
            raise MemoryError


KINDS = [
    "none",
    "SIGTERM at an engine call",
    "SIGTERM at a decode",
    "SIGTERM at a write",
    "SIGTERM at a line of progress",
    "lasting engine breaks",
    "an engine call breaks",
    "memory at an engine call",
    "disk full at a write",
    "lasting disk full at a write",
    "the clock jumps at an engine call",
    "the clock jumps at a decode",
    "a line of progress breaks",
    "SIGTERM at a calibration",
    "a calibration breaks",
    "SIGTERM once it is open",
]
Spoil = Callable[[Path], object]
BAD: dict[str, Spoil] = {
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(b"no sound" * 500),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:300]),
    "vanished": lambda path: path.unlink(),
}
UNUSUAL: dict[str, Spoil] = {
    "short": lambda path: write_sound(path, 0.3, 1000),
    "stereo": lambda path: write_sound(path, 8.0, 1000, 2),
    "other rate": lambda path: write_sound(path, 8.0, 1600),
    "long": lambda path: write_sound(path, 75.0, 1000),
    "silent": lambda path: write_samples(path, np.zeros(8000)),
    "nan": lambda path: write_samples(path, np.tile([0.1, np.nan, np.inf, 0.2], 2000)),
}


def write_samples(path: Path, samples: NDArray[np.float64]) -> None:
    soundfile.write(path, samples, 1000, subtype="FLOAT", format="WAV")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One good file; a draw copies and spoils it."""
    folder = tmp_path_factory.mktemp("sounds")
    return [write_sound(folder / f"{'s' * (i + 1)}.wav", 60.0, 1000) for i in range(4)]


def make_data(sounds: list[Path], spoilt: dict[int, str], folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "test_soundscapes").mkdir(parents=True)
    for index, sound in enumerate(sounds):
        path = folder / "test_soundscapes" / f"f{index}.wav"
        shutil.copy(sound, path)
        how = spoilt.get(index)
        if how and how != "vanished":
            {**BAD, **UNUSUAL}[how](path)
    # It names all rows, so that files of other lengths have as many.
    rows = [row for index in range(len(sounds)) for row in row_ids(f"f{index}", N_WINDOWS, 5.0)]
    sample = pd.DataFrame(0.1, index=range(len(rows)), columns=list(CLASSES))
    sample.insert(0, "row_id", rows)
    sample.to_csv(folder / "sample_submission.csv", index=False)
    return folder


def engines_of(world: World) -> Ensemble:
    return Ensemble({"x": Formula(world, 0.9), "y": Formula(world, 0.6, MINUTES)}, SPEC)


def reference(files: list[Path], names: list[str], scored: set[str]) -> NDArray[np.float32]:
    """The table of exactly these passes, by itself: no governor, no threads, no clock."""
    calm = engines_of(World("none", 0))
    shifts = {str(each): each.shift for each in (Pass(), Pass(0.5), Pass(0.25))}
    scores: list[Scores] = []
    for path in files:
        if path.name not in scored:
            scores.append(None)
            continue
        waveform = audio.read(path, CONTRACT.sample_rate)
        of_passes = [calm.score(waveform, N_WINDOWS, shifts[name]) for name in names or ["plain"]]
        scores.append(np.asarray(np.mean(of_passes, axis=0, dtype=np.float64), dtype=np.float32))
    unscored = np.full((N_WINDOWS, len(CLASSES)), np.nan, np.float32)
    tables = [unscored if of_file is None else of_file for of_file in combine(scores, SPEC)]
    return fill_missing(np.concatenate(tables))


# Long because it stands in for the whole world: files, clock, engine and disk.
def play(
    world: World, data: Path, out: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> int | BaseException:
    """The whole command in this world; its exit status, or what it raised.

    It is long because the world takes the place of everything that the command touches.
    """
    loaded = Loaded(engines_of(world), ["formula"], [])
    spare = Loaded(engines_of(replace(world, kind="none")), ["spare"], [])

    def reopen(
        self: session.Run,
        layout: Layout,
        members: Sequence[str] | None = None,
        avoid: Sequence[str] = (),
    ) -> Loaded:
        if "spare" in avoid:
            raise UserError("no engine is left")
        return spare if "formula" in avoid else loaded

    def decode(*given: Any, **named: Any) -> Iterator[NDArray[np.float32]]:
        world.happens("decode")
        yield from blocks(*given, **named)

    def write(*given: Any) -> bytes:
        world.happens("write")
        return to_csv(*given)

    def line(self: session.Lines, *given: Any) -> None:
        world.happens("line of progress")

    def calibrated(
        open_in: Callable[[Layout, Sequence[str] | None], Loaded],
        layouts: Sequence[Layout],
        n_windows: int,
        deadline: float,
    ) -> Calibration:
        world.happens("calibration")
        return Calibration(open_in(layouts[0], None), layouts[0], 1.0, {})

    def then_open(self: session.Run, fastest: Calibration) -> None:
        opened(self, fastest)
        world.happens("open")

    blocks, to_csv, opened = audio.blocks, table.to_csv, session.Run._opened
    with monkeypatch.context() as patch:
        patch.setattr(session.Run, "_open", reopen)
        patch.setattr(session.Run, "_opened", then_open)
        patch.setattr(calibration, "what_fits", calibrated)
        patch.setattr(Spec, "load", lambda folder: SPEC)
        patch.setattr(ladder, "check_files", lambda folder, stems: None)
        patch.setattr(session.Lines, "__call__", line)
        patch.setattr(audio, "blocks", decode)
        patch.setattr(table, "to_csv", write)
        patch.setattr(
            session, "run_passes", lambda *a, **k: passes.run_passes(*a, **k, clock=world.clock)
        )
        patch.setattr(run.time, "monotonic", world.clock)
        patch.setattr(run, "STARTED", 0.0)
        try:
            status: int = run.main(
                ["--data", str(data), "--out", str(out), "--layout", str(Layout(2, 1, 4)), *arguments]
            )
            return status
        except (Exception, Stopped) as error:
            return error
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def assert_holds(data: Path, out: Path, spoilt: dict[int, str]) -> dict[str, Any]:
    """Complete, valid, and the reference of the passes that the report names."""
    files = [data / "test_soundscapes" / f"f{index}.wav" for index in range(4)]
    submission = pd.read_csv(out, dtype={"row_id": str})
    rows = [f"{path.stem}_{5 * (k + 1)}" for path in files for k in range(N_WINDOWS)]
    assert submission.row_id.tolist() == rows
    assert submission.columns.tolist() == ["row_id", *CLASSES]
    values = submission.drop(columns="row_id").to_numpy()
    assert np.isfinite(values).all()
    written: dict[str, Any] = json.loads((out.parent / (out.name + report.REPORT_SUFFIX)).read_text())
    assert written["csv_sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    lost = {*written["failures"], *written["not_reached"]}
    scored = {path.name for path in files} - lost
    assert written["scored"] == len(scored)
    assert written["passes"] == ALL_PASSES[: len(written["passes"])]
    if written["passes"]:
        # A completed pass has scored every file that can be read.
        assert not written["not_reached"]
    np.testing.assert_allclose(values, reference(files, written["passes"], scored), atol=1e-6)
    return written


@pytest.mark.slow
@settings(
    max_examples=600,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    kind=st.sampled_from(KINDS),
    at=st.integers(0, 30) | st.just(0),
    budget_files=st.floats(0.0, 20.0),
    spoilt=st.dictionaries(st.integers(0, 3), st.sampled_from([*BAD, *UNUSUAL]), max_size=3),
)
# Seven arguments: what is drawn, and what pytest gives.
def test_at_any_moment_with_any_fault_the_table_is_that_of_its_passes(
    sounds: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    at: int,
    budget_files: float,
    spoilt: dict[int, str],
) -> None:
    spoilt = {index: how for index, how in spoilt.items() if how != "vanished"}
    data = make_data(sounds, spoilt, tmp_path / "data")
    out = tmp_path / "out" / "s.csv"
    shutil.rmtree(out.parent, ignore_errors=True)
    budget_min = (2.0 + FILE_S * budget_files + 0.01) / 60 / budget.USED_SHARE
    ended = play(World(kind, at), data, out, monkeypatch, "--budget-min", str(budget_min))
    if "disk full" in kind and not out.exists():
        assert isinstance(ended, OSError)  # from the first second on: nothing could ever be written
        return
    report = assert_holds(data, out, spoilt)
    if kind == "none" and budget_files > 16:
        assert report["passes"] == ALL_PASSES
        assert report["why_stopped"] == "all passes are done"
    if report["scored"] and not isinstance(ended, BaseException):
        assert ended == (0 if report["passes"] else run.EXIT_INCOMPLETE)


def test_a_file_that_disappears_between_passes_leaves_the_earlier_ones(
    sounds: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = make_data(sounds, {}, tmp_path / "data")
    joined = session.Run.write

    def then_vanish(self: session.Run) -> None:
        joined(self)
        if self.out.progress.result:
            shutil.move(data / "test_soundscapes" / "f2.wav", tmp_path / "f2.wav")

    monkeypatch.setattr(session.Run, "write", then_vanish)
    out = tmp_path / "s.csv"
    # The second move finds nothing: a fault of its own, which leaves the scores as they are.
    assert play(World("none", 0), data, out, monkeypatch) == 0
    shutil.move(tmp_path / "f2.wav", data / "test_soundscapes" / "f2.wav")
    assert assert_holds(data, out, {})["passes"] == ["plain"]
    assert "stopped by a fault: FileNotFoundError" in capsys.readouterr().err


def test_a_generous_budget_does_all_passes_and_says_so(
    sounds: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = make_data(sounds, {1: "garbage"}, tmp_path / "data")
    assert play(World("none", 0), data, tmp_path / "s.csv", monkeypatch) == 0
    report = assert_holds(data, tmp_path / "s.csv", {1: "garbage"})
    assert report["passes"] == ALL_PASSES
    assert "stopped: all passes are done" in capsys.readouterr().out


def test_the_same_scores_are_formatted_once(
    sounds: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty thousand files take a minute of it, and the budget keeps time for one such table."""
    to_csv, tables = table.to_csv, []

    def counting(given: pd.DataFrame) -> bytes:
        tables.append(given)
        return to_csv(given)

    monkeypatch.setattr(table, "to_csv", counting)
    data = make_data(sounds, {}, tmp_path / "data")
    assert play(World("none", 0), data, tmp_path / "s.csv", monkeypatch) == 0
    assert len(tables) == 1 + len(ALL_PASSES)
    report = assert_holds(data, tmp_path / "s.csv", {})
    assert report["why_stopped"] == "all passes are done"


def test_max_passes_is_kept(
    sounds: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_data(sounds, {}, tmp_path / "data")
    assert play(World("none", 0), data, tmp_path / "s.csv", monkeypatch, "--max-passes", "2") == 0
    assert assert_holds(data, tmp_path / "s.csv", {})["passes"] == ALL_PASSES[:2]


def test_an_engine_that_dies_is_replaced_and_a_strict_run_says_so(
    sounds: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = make_data(sounds, {}, tmp_path / "data")
    out = tmp_path / "s.csv"
    assert play(World("lasting engine breaks", 3), data, out, monkeypatch) == 0
    report = assert_holds(data, out, {})
    assert report["passes"] == ALL_PASSES
    assert report["notes"] == ["formula failed at work (illegal instruction)"]
    ended = play(World("lasting engine breaks", 3), data, out, monkeypatch, "--strict")
    assert isinstance(ended, UserError)
    assert "formula failed at work" in capsys.readouterr().err


def test_told_to_end_in_a_strict_run_before_anything_is_scored_leaves_no_table(
    sounds: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_data(sounds, {}, tmp_path / "data")
    world = World("SIGTERM at an engine call", 0)
    play(world, data, tmp_path / "s.csv", monkeypatch, "--strict")
    assert world.tripped
    assert not (tmp_path / "s.csv").exists()
