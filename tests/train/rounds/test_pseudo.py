from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from birdkit import audio
from birdkit.contract import Contract
from birdkit.errors import UserError
from birdkit.scoring.ensemble import Ensemble, Spec
from birdkit.scoring.parts import SoundFile
from birdkit.scoring.predict import predict
from tests.conftest import tiny_job, tiny_predictor, write_sound
from train.config.provenance import differences
from train.config.settings import Alarms, Fit, Postprocess, Pseudo
from train.fit.losses import Exponents, bce
from train.models.checkpoint import Final, made_by
from train.rounds import pseudo_labels, teachers
from train.rounds.alarms import alarms
from train.rounds.pseudo_labels import Summary
from train.scoring.evaluate import TorchEngine

CPU = torch.device("cpu")


def final(contract: Contract, seed: int, trained_on: tuple[str, ...] = ()) -> Final:
    predictor = tiny_predictor(contract)
    torch.manual_seed(seed)
    for weight in predictor.network.att_block.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    state = predictor.eval().state_dict()
    return Final(contract, made_by(tiny_job(), "", {}), "", "", {}, state, trained_on)


@pytest.fixture
def teacher(contract: Contract) -> teachers.Teacher:
    finals = {"one": final(contract, 1), "two": final(contract, 2)}
    return teachers.Teacher(finals, {"one": "hash 1", "two": "hash 2"}, Postprocess(), CPU)


@pytest.fixture
def files(tmp_path: Path, contract: Contract) -> list[SoundFile]:
    paths = [
        write_sound(tmp_path / "soundscapes" / f"S{i}_20250101_050000.ogg", 5.0 * (i + 1) + i)
        for i in range(3)
    ]
    return teachers.soundscape_files(paths, contract.window_s)


def expected(
    teacher: teachers.Teacher,
    names: Iterable[str],
    path: Path,
    n_windows: int,
    output: str,
    shifts: tuple[float, ...] = (),
) -> NDArray[np.float32]:
    spec = Spec(dict.fromkeys(names, 1.0), output)
    engines = {n: TorchEngine(teacher.finals[n].predictor(), CPU) for n in names}
    waveform = audio.read(path, teacher.contract.sample_rate)
    passes = [Ensemble(engines, spec).score(waveform, n_windows, s) for s in (0.0, *shifts)]
    return np.mean(passes, axis=(0, 1))


def scores_by_file(labels: pseudo_labels.Labels) -> dict[str, NDArray[np.float32]]:
    return {name: labels.scores[labels.file == index] for index, name in enumerate(labels.names)}


@pytest.mark.parametrize("output", ["clipwise", "segmentwise"])
def test_labels_are_what_the_teachers_ensemble_would_submit(
    teacher: teachers.Teacher,
    files: list[SoundFile],
    tmp_path: Path,
    output: Literal["clipwise", "segmentwise"],
) -> None:
    path = teachers.label(teacher, files, Pseudo(output=output, shifts=(0.5,)), tmp_path)
    found = scores_by_file(pseudo_labels.read(path))
    assert [len(scores) for scores in found.values()] == [1, 2, 3]  # whole windows only
    for file in files:
        want = expected(teacher, ("one", "two"), file.path, file.n_windows, output, (0.5,))
        np.testing.assert_allclose(found[file.path.name], want, atol=1e-6)
    assert max(scores.std() for scores in found.values()) > 1e-3


def test_the_table_tells_what_made_it_and_the_summary_its_mass_and_share_kept(
    teacher: teachers.Teacher, files: list[SoundFile], tmp_path: Path
) -> None:
    settings = Pseudo(power=2.0)
    path = teachers.label(teacher, files, settings, tmp_path)
    labels = pseudo_labels.read(path)
    assert labels.made_by["teachers"] == {"one": "hash 1", "two": "hash 2"}
    assert labels.made_by["output"] == "segmentwise"
    scores = labels.scores
    settings = replace(settings, keep_above=float(np.median(scores.max(axis=1))))
    summary = pseudo_labels.summarise(labels, settings)
    np.testing.assert_allclose(list(summary.mass.values()), (scores**2).sum(axis=0), rtol=1e-5)
    assert (summary.output, summary.n_windows, summary.n_soundscapes) == ("segmentwise", 6, 3)
    assert summary.kept == 0.5
    summary.save(tmp_path)
    assert json.loads((tmp_path / "pseudo.json").read_text())["mass"] == summary.mass


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[SoundFile]:
    """The files that were handed to be scored, so far."""
    files: list[SoundFile] = []

    def noting(group: Sequence[SoundFile], *rest: Any, **more: Any) -> Any:
        files.extend(group)
        return predict(group, *rest, **more)

    monkeypatch.setattr(teachers, "predict", noting)
    return files


def test_only_what_changed_is_scored_again_and_the_table_is_written_once(
    teacher: teachers.Teacher, files: list[SoundFile], tmp_path: Path, scored: list[SoundFile]
) -> None:
    settings = Pseudo()
    path = teachers.label(teacher, files, settings, tmp_path)
    wanted = pseudo_labels.made_by(teacher.hashes, teacher.postprocess.smoothing, files, settings)
    assert pseudo_labels.can_be_kept(path, wanted)
    assert len(scored) == 3
    before = path.read_bytes()
    teachers.label(teacher, files, replace(settings, power=2.0, keep_above=0.1), tmp_path)
    assert len(scored) == 3
    assert path.read_bytes() == before  # students know by their jobs
    teachers.label(teacher, files, replace(settings, output="clipwise"), tmp_path)
    assert len(scored) == 6
    other = replace(teacher, hashes={"one": "hash 1", "two": "retrained"})
    teachers.label(other, files, replace(settings, output="clipwise"), tmp_path)
    assert len(scored) == 9


def test_a_table_of_a_kit_that_wrote_more_into_it_is_kept(
    teacher: teachers.Teacher, files: list[SoundFile], tmp_path: Path, scored: list[SoundFile]
) -> None:
    path = teachers.label(teacher, files, Pseudo(), tmp_path)
    table = pq.read_table(path)
    facts = json.loads(table.schema.metadata[pseudo_labels.METADATA_KEY])
    facts |= {"transform": {"power": 1.0, "scale": "probability"}, "mass": {}}
    table = table.replace_schema_metadata({pseudo_labels.METADATA_KEY: json.dumps(facts)})
    pq.write_table(table, path)
    before = path.read_bytes()
    teachers.label(teacher, files, Pseudo(power=2.0), tmp_path)
    assert len(scored) == 3
    assert path.read_bytes() == before


@pytest.mark.parametrize("at", [0, 1, 2])
def test_killed_between_two_blocks_it_goes_on_to_the_same_table(
    teacher: teachers.Teacher,
    files: list[SoundFile],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scored: list[SoundFile],
    at: int,
) -> None:
    monkeypatch.setattr(teachers, "BLOCK_FILES", 1)
    whole = teachers.label(teacher, files, Pseudo(), tmp_path / "whole")
    save = teachers.Blocks.save

    class Killed(BaseException):
        pass

    def dies(blocks: teachers.Blocks, start: int, *rest: Any) -> None:
        if start == at:
            raise Killed
        save(blocks, start, *rest)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(teachers.Blocks, "save", dies)
        teachers.label(teacher, files, Pseudo(), tmp_path / "killed")
    scored.clear()
    path = teachers.label(teacher, files, Pseudo(), tmp_path / "killed")
    assert len(scored) == 3 - at
    assert path.read_bytes() == whole.read_bytes()
    assert [each.name for each in path.parent.iterdir()] == [pseudo_labels.NAME]


def test_kept_blocks_give_back_scores_gaps_and_reasons(tmp_path: Path) -> None:
    blocks = teachers.Blocks(tmp_path / "pseudo-key-0")
    assert blocks.load() == ([], {})
    scores = np.random.default_rng(0).random((2, 3), dtype=np.float32)
    blocks.save(0, [scores, None], {"b.ogg": "not a sound"})
    blocks.save(2, [None], {"c.ogg": "empty"})
    found, failures = blocks.load()
    np.testing.assert_array_equal(found[0], scores)
    assert found[1:] == [None, None]
    assert failures == {"b.ogg": "not a sound", "c.ogg": "empty"}


def test_out_of_fold_no_model_labels_what_it_was_trained_on(
    contract: Contract, files: list[SoundFile], tmp_path: Path
) -> None:
    names = [file.path.name for file in files]
    finals = {
        "one": final(contract, 1, (names[0],)),
        "two": final(contract, 2, (names[1],)),
    }
    teacher = teachers.Teacher(finals, {"one": "1", "two": "2"}, Postprocess(), CPU)
    settings = Pseudo(out_of_fold=True)
    found = scores_by_file(pseudo_labels.read(teachers.label(teacher, files, settings, tmp_path)))
    for file, labelled_by in zip(files, (("two",), ("one",), ("one", "two")), strict=True):
        want = expected(teacher, labelled_by, file.path, file.n_windows, "segmentwise")
        np.testing.assert_allclose(found[file.path.name], want, atol=1e-6)
    everywhere = {"one": replace(finals["one"], trained_on=tuple(names))}
    with pytest.raises(UserError, match="every teacher was trained on it"):
        teachers.label(replace(teacher, finals=everywhere), files, settings, tmp_path / "b")


def test_a_soundscape_that_cant_be_read_is_left_out_by_name(
    teacher: teachers.Teacher, files: list[SoundFile], tmp_path: Path
) -> None:
    files[1].path.write_bytes(b"not a sound")
    path = teachers.label(teacher, files, Pseudo(), tmp_path)
    labels = pseudo_labels.read(path)
    assert labels.names == (files[0].path.name, files[2].path.name)
    assert files[1].path.name in labels.failures
    for file in files:
        file.path.write_bytes(b"not a sound")
    with pytest.raises(UserError, match="no soundscape could be scored"):
        teachers.label(teacher, files, Pseudo(output="clipwise"), tmp_path)


@pytest.mark.parametrize("change", [{"output": "clipwise"}, {"shifts": (0.5,)}, {"out_of_fold": True}])
def test_what_changes_the_probabilities_is_among_what_a_table_was_made_by(
    teacher: teachers.Teacher, files: list[SoundFile], change: dict[str, Any]
) -> None:
    def made(pseudo: Pseudo) -> dict[str, Any]:
        return pseudo_labels.made_by(teacher.hashes, teacher.postprocess.smoothing, files, pseudo)

    (name,) = change
    default = Pseudo(output="segmentwise", shifts=(), out_of_fold=False)
    assert differences(made(default), made(replace(default, **change))) == [name]


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :]


def test_a_flipped_bit_anywhere_in_a_table_is_noticed(
    teacher: teachers.Teacher,
    files: list[SoundFile],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = teachers.label(teacher, files, Pseudo(), tmp_path)
    good, whole = path.read_bytes(), pseudo_labels.read(path)
    wanted = pseudo_labels.made_by(teacher.hashes, teacher.postprocess.smoothing, files, Pseudo())
    noticed = 0
    for at in range(0, len(good), 13):
        path.write_bytes(flipped(good, at))
        if pseudo_labels.can_be_kept(path, wanted):  # in what nobody reads, such as statistics
            np.testing.assert_array_equal(pseudo_labels.read(path).scores, whole.scores)
            assert pseudo_labels.read(path).classes == whole.classes
        else:
            noticed += 1
            assert capsys.readouterr().err.startswith(f"{path}: ")
    assert noticed > 0.5 * len(good) / 13
    path.write_bytes(good[: len(good) // 2])
    assert teachers.label(teacher, files, Pseudo(), tmp_path).read_bytes() == good


def test_a_damaged_block_is_named_and_its_files_are_scored_again(
    files: list[SoundFile], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = teachers.Blocks(tmp_path / "pseudo-0-key")
    for start, file in enumerate(files):
        blocks.save(start, [np.full((file.n_windows, 3), 0.5, dtype=np.float32)], {})
    second = tmp_path / "pseudo-0-key-000001.npz"
    good = second.read_bytes()
    for at in range(0, len(good), 13):
        second.write_bytes(flipped(good, at))
        scores, _ = blocks.load()
        if len(scores) == 1:
            assert capsys.readouterr().err.startswith(f"{second}: damaged (")
        else:  # in what nobody reads, such as the time of writing
            np.testing.assert_array_equal(np.concatenate([s for s in scores if s is not None]), 0.5)


def test_a_table_of_somebody_elses_is_refused(tmp_path: Path) -> None:
    path = tmp_path / pseudo_labels.NAME
    path.write_bytes(b"junk")
    with pytest.raises(UserError, match="no pseudo labels of this kit"):
        pseudo_labels.read(path)


tables = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2),
    elements=st.floats(0, 1, width=32, allow_subnormal=False),
)


@given(
    tables,
    st.floats(0.3, 3),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from(["none", "max", "sum"]),
)
def test_transforms_keep_order_range_and_thresholds(
    scores: NDArray[np.float32],
    power: float,
    zero: float,
    one: float,
    keep: float,
    weighting: Literal["none", "max", "sum"],
) -> None:
    settings = Pseudo(power=power, zero_below=zero, one_from=one, keep_above=keep, weighting=weighting)
    try:
        targets, chance = pseudo_labels.transformed(scores, settings)
    except UserError:
        kept = scores.max(axis=1) >= keep
        assert not (kept & (weighting == "none")).any()
        assert not ((scores >= min(zero, one)) & (scores**power > 0) & kept[:, None]).any()
        return
    assert chance.sum() == pytest.approx(1.0)
    assert (chance[scores.max(axis=1) < keep] == 0).all()
    assert (targets[scores >= one] == 1).all()
    assert (targets[(scores < zero) & (scores < one)] == 0).all()
    between = (scores >= zero) & (scores < one)
    np.testing.assert_allclose(targets[between], scores[between] ** power, rtol=1e-5)
    if weighting != "none":
        worth = targets.max(axis=1) if weighting == "max" else targets.sum(axis=1)
        drawn = chance > 0
        np.testing.assert_allclose(
            chance[drawn] / chance.max(), worth[drawn] / worth[drawn].max(), 1e-4
        )


def test_what_a_teacher_is_unsure_of_is_not_learnt() -> None:
    scores = np.array([[0.01, 0.1, 0.3, 0.9]], dtype=np.float32)
    settings = Pseudo(unsure=(0.1, 0.4), zero_below=0.05, weighting="sum", power=2.0)
    targets, _ = pseudo_labels.transformed(scores, settings)
    np.testing.assert_allclose(targets, [[0, np.nan, np.nan, 0.81]], rtol=1e-6)
    sure, _ = pseudo_labels.transformed(scores, replace(settings, one_from=0.4))
    np.testing.assert_array_equal(sure, [[0, np.nan, np.nan, 1]])
    logits = torch.zeros(1, 4, requires_grad=True)
    bce(logits, torch.from_numpy(targets), Exponents.of(Fit())).backward()
    assert logits.grad is not None
    assert (logits.grad[0] != 0).tolist() == [True, False, False, True]


def test_a_student_leaves_out_the_soundscapes_of_another_fold(
    teacher: teachers.Teacher, files: list[SoundFile], tmp_path: Path
) -> None:
    labels = pseudo_labels.read(teachers.label(teacher, files, Pseudo(), tmp_path))
    paths = [file.path for file in files]
    windows = pseudo_labels.windows_of(labels, Pseudo(), paths, [paths[2].name])
    np.testing.assert_allclose(windows.chance, [1 / 3] * 3 + [0] * 3)
    with pytest.raises(UserError, match="leaves this model no window"):
        pseudo_labels.windows_of(labels, Pseudo(), paths, [path.name for path in paths])


def summary(mass: dict[str, float], spread: float = 1.0, output: str = "segmentwise") -> Summary:
    return Summary(output, 100, 9, 1.0, mass, dict.fromkeys(mass, spread))


def test_alarms_name_the_class_that_collapses_explodes_or_is_constant() -> None:
    before = summary({"a": 10.0, "b": 10.0, "c": 1.0})
    assert alarms(summary({"a": 9.0, "b": 12.0, "c": 1.0}), before, Alarms()) == []
    assert alarms(before, None, Alarms()) == []
    (line,) = alarms(summary({"a": 0.1, "b": 10.0, "c": 1.0}), before, Alarms())
    assert line.startswith("a: its share of the labels' mass collapses, 47.62% → 0.90%")
    (line,) = alarms(summary({"a": 10.0, "b": 10.0, "c": 40.0}), before, Alarms())
    assert line.startswith("c: its share of the labels' mass explodes")
    lines = alarms(summary({"a": 10.0}, spread=1e-5), None, Alarms())
    assert lines[0].startswith("a: segmentwise labels differ by 1.0e-05 over 100 windows")


def test_a_share_below_a_hundredth_of_an_even_one_neither_collapses_nor_explodes() -> None:
    def masses(of_a: float) -> Summary:
        return summary({"a": of_a, "b": 100.0})

    assert alarms(masses(1e-6), masses(0.4), Alarms()) == []
    assert alarms(masses(0.4), masses(1e-6), Alarms()) == []
    (line,) = alarms(masses(1e-6), masses(10.0), Alarms())
    assert "collapses" in line


def test_alarm_limits_are_the_outputs_own_and_another_scale_raises_none() -> None:
    small = summary({"a": 1.0, "b": 2.0}, spread=1e-5, output="clipwise")
    assert alarms(small, None, Alarms()) == []
    segmentwise = summary({"a": 100.0, "b": 200.0})
    assert alarms(segmentwise, small, Alarms()) == []


def test_classes_may_have_the_names_of_the_tables_own_columns(
    files: list[SoundFile], tmp_path: Path
) -> None:
    classes = ("soundscape", "window", "_window")
    scores = [np.full((f.n_windows, 3), (0.1, 0.2, 0.3), dtype=np.float32) for f in files]
    path = tmp_path / pseudo_labels.NAME
    pseudo_labels.write(path, files, scores, classes, {"made_by": {}, "failures": {}})
    labels = pseudo_labels.read(path)
    assert labels.classes == classes
    assert labels.names == tuple(file.path.name for file in files)
    assert labels.window.tolist() == [k for file in files for k in range(file.n_windows)]
    np.testing.assert_array_equal(labels.scores, np.concatenate(scores))


@pytest.mark.parametrize("n_header", [32000 * 86400 * 365, 2**63 - 1])
def test_a_soundscape_has_the_windows_that_decode_whatever_its_header_promises(
    files: list[SoundFile], monkeypatch: pytest.MonkeyPatch, n_header: int
) -> None:
    path = write_sound(files[0].path.with_name("promising.ogg"), 12.0)
    monkeypatch.setattr(soundfile.SoundFile, "frames", n_header)
    measured = []
    length_s = audio.length_s

    def counting(path: Path) -> float:
        measured.append(path)
        return length_s(path)

    monkeypatch.setattr(audio, "length_s", counting)
    for _ in range(2):
        (file,) = teachers.soundscape_files([path], 5.0)
        assert file.n_windows == 2
    assert measured == [path]  # once


def test_teachers_are_averaged_where_they_know_a_class_and_what_none_knows_stays_unknown() -> None:
    nan = np.nan
    one = np.array([[0.2, 0.4, nan, nan]], dtype=np.float32)
    other = np.array([[0.6, nan, 0.9, nan]], dtype=np.float32)
    mean = teachers.averaged([one, None, other], [1.0, 7.0, 3.0])
    assert mean is not None
    odds = (0.2 / 0.8) ** 0.25 * (0.6 / 0.4) ** 0.75
    np.testing.assert_allclose(mean, [[odds / (1 + odds), 0.4, 0.9, nan]], rtol=1e-5)
    assert teachers.averaged([None, None], [1.0, 1.0]) is None
    assert teachers.averaged([None, one], [1.0, 1.0]) is one  # not a bit is rounded


def test_an_unknown_class_is_not_learnt_and_a_window_without_a_known_one_not_drawn() -> None:
    scores = np.array([[0.9, np.nan], [0.001, np.nan], [np.nan, np.nan]], dtype=np.float32)
    targets, chance = pseudo_labels.transformed(scores, Pseudo(zero_below=0.01))
    np.testing.assert_allclose(targets, [[0.9, np.nan], [0, np.nan], [np.nan, np.nan]], rtol=1e-6)
    np.testing.assert_allclose(chance, [0.5, 0.5, 0.0])
    _, by_surest = pseudo_labels.transformed(scores, Pseudo(zero_below=0.01, weighting="max"))
    np.testing.assert_allclose(by_surest, [1.0, 0.0, 0.0])
    numbers = np.arange(3)
    labels = pseudo_labels.Labels(("s.ogg",), 0 * numbers, numbers, scores, ("a", "b"), {}, {})
    summary = pseudo_labels.summarise(labels, Pseudo())
    assert list(summary.mass) == list(summary.spread) == ["a"]
    assert alarms(summary, None, Alarms()) == []


class StandIn:
    """A teacher from outside that knows the first class alone, of all windows the same."""

    name, classes, credit, knows = "outside", ("a", "b", "1234"), "a stand-in", ""

    def __init__(self, fails: str = "") -> None:
        self.fails, self.made_by = fails, {"file": "hash"}

    def check(self, files: Sequence[SoundFile]) -> None:
        """It answers for all."""

    def scores_of(self, files: Sequence[SoundFile]) -> tuple[list[Any], dict[str, str]]:
        row = np.array([0.5, np.nan, np.nan], dtype=np.float32)
        scores = [None if f.name == self.fails else np.tile(row, (f.n_windows, 1)) for f in files]
        return scores, {self.fails: "bad"} if self.fails else {}


def test_a_teacher_from_outside_counts_as_much_as_the_models_together(
    teacher: teachers.Teacher, files: list[SoundFile], tmp_path: Path
) -> None:
    alone = scores_by_file(pseudo_labels.read(teachers.label(teacher, files, Pseudo(), tmp_path)))
    both = replace(teacher, outside=(StandIn(),))
    assert both.names == ("one", "two", "outside")
    labels = pseudo_labels.read(teachers.label(both, files, Pseudo(), tmp_path))
    for name, scores in scores_by_file(labels).items():
        odds = np.sqrt(alone[name][:, 0] / (1 - alone[name][:, 0]))  # those of 0.5 are 1
        mean = odds / (1 + odds)
        np.testing.assert_allclose(scores[:, 0], mean, rtol=1e-4)
        np.testing.assert_allclose(scores[:, 1:], alone[name][:, 1:], rtol=1e-4)
    assert labels.made_by["outside"] == {"outside": {"file": "hash", "weight": 1.0}}
    heavier = replace(both, weights={"outside": 3.0})
    assert differences(heavier.made_by(files, Pseudo()), labels.made_by) == ["outside.outside.weight"]
    wanted = both.made_by(files, Pseudo())
    assert differences(wanted, teacher.made_by(files, Pseudo())) == ["outside"]


def test_without_models_the_labels_are_those_from_outside_alone(
    files: list[SoundFile], tmp_path: Path
) -> None:
    fails = files[1].name
    teacher = teachers.Teacher({}, {}, Postprocess(), CPU, (StandIn(fails),))
    settings = Pseudo(out_of_fold=True)  # it never trained on a soundscape of these
    labels = pseudo_labels.read(teachers.label(teacher, files, settings, tmp_path))
    assert labels.names == (files[0].name, files[2].name)
    assert labels.failures == {fails: "bad"}
    assert labels.classes == StandIn.classes
    np.testing.assert_array_equal(labels.scores[:, 0], 0.5)
    assert np.isnan(labels.scores[:, 1:]).all()
