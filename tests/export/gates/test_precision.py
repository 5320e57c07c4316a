"""Lower precisions ship through their gate, or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from birdkit.engines import ladder, wheels
from birdkit.engines.engine import OpenVinoEngine
from birdkit.engines.layout import Layout
from birdkit.engines.openvino_graphs import split
from birdkit.engines.precision import LOWER_PRECISIONS
from birdkit.errors import UserError
from birdkit.scoring import ensemble
from birdkit.scoring.ensemble import Spec
from birdkit.scoring.parts import SoundFile
from export import to_openvino
from export.gates import lower_precisions, parity, precision
from export.gates.precision import Table, Verdict
from export.models import quantize
from tests.conftest import submit
from tests.submission.test_run import read
from train.scoring.auc import macro_auc
from train.scoring.evaluate import TruthSet

N_FILES, N_CLASSES = 30, 4


@pytest.fixture
def labelled(tmp_path: Path) -> TruthSet:
    rng = np.random.default_rng(0)
    truth = rng.random((12 * N_FILES, N_CLASSES)) < 0.3
    files = tuple(SoundFile(tmp_path / f"{i}.ogg", 12) for i in range(N_FILES))
    return TruthSet.of("soundscapes", files, truth, np.ones_like(truth))


@pytest.fixture
def f32(labelled: TruthSet) -> Table:
    noise = np.random.default_rng(1).random(labelled.truth.labels.shape)
    return table_of((0.3 * labelled.truth.labels + 0.7 * noise).astype(np.float32), labelled)


def table_of(rows: NDArray[np.float32], labelled: TruthSet) -> Table:
    return Table(rows, macro_auc(labelled.truth, rows).macro, 100.0)


def test_rounding_is_accepted(f32: Table, labelled: TruthSet) -> None:
    rows = (f32.rows + np.random.default_rng(2).normal(0, 1e-4, f32.rows.shape)).astype(np.float32)
    verdict = precision.compare("bf16", f32, table_of(rows, labelled), labelled)
    assert verdict.faults() == []
    assert "accepted" in str(verdict)


def test_what_ranks_worse_is_refused_with_the_figures(f32: Table, labelled: TruthSet) -> None:
    rows = (f32.rows - 0.05 * labelled.truth.labels).astype(np.float32)
    verdict = precision.compare("int8", f32, table_of(rows, labelled), labelled)
    assert verdict.loss == pytest.approx(f32.auc - macro_auc(labelled.truth, rows).macro, abs=1e-9)
    assert verdict.loss > 0.001
    assert verdict.loss_bound > verdict.loss
    assert any("macro-AUC falls by" in fault for fault in verdict.faults())
    assert f"REFUSED, macro-AUC falls by {verdict.loss:.4f}" in str(verdict)


def test_what_ranks_otherwise_but_as_well_is_refused_too(f32: Table, labelled: TruthSet) -> None:
    noise = np.random.default_rng(3).normal(0, 0.05, f32.rows.shape)
    # Among windows of like truth only, so that the AUC can't fall much.
    rows = np.where(labelled.truth.labels, f32.rows + 1.0, f32.rows + noise).astype(np.float32)
    verdict = precision.compare("int8", f32, table_of(rows, labelled), labelled)
    assert verdict.loss < 0
    assert [fault.partition(" 0.")[0] for fault in verdict.faults()] == ["rank correlation"]


GOOD = Verdict("x", 0.8, 0.8, 0.0, 0.0, 1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("loss", "loss_bound", "rank_correlation", "fault"),
    [
        (0.0011, 0.004, 0.9995, "macro-AUC falls by 0.0011 > 0.001"),
        (0.0005, 0.0051, 0.9995, "the bootstrap's bound of that is 0.0051 > 0.005"),
        (0.0005, 0.004, 0.9989, "rank correlation 0.99890 < 0.999"),
        (np.nan, 0.004, 0.9995, "macro-AUC falls by nan > 0.001"),
        (0.0005, np.nan, 0.9995, "the bootstrap's bound of that is nan > 0.005"),
        (0.0005, 0.004, np.nan, "rank correlation nan < 0.999"),
    ],
)
def test_each_limit_refuses_by_itself(
    loss: float, loss_bound: float, rank_correlation: float, fault: str
) -> None:
    verdict = replace(GOOD, loss=loss, loss_bound=loss_bound, rank_correlation=rank_correlation)
    assert verdict.faults() == [fault]


def test_the_rank_correlation_is_spearmans_class_by_class() -> None:
    rows = np.random.default_rng(0).random((50, 2), dtype=np.float32)
    assert precision.rank_correlation(rows, np.exp(5 * rows)) == pytest.approx(1.0)
    assert precision.rank_correlation(rows, -rows) == pytest.approx(-1.0)
    half = np.stack([rows[:, 0], -rows[:, 1]], axis=1)
    assert precision.rank_correlation(rows, half) == pytest.approx(0.0)


@pytest.fixture
def folder(model_dir: Path, tmp_path: Path) -> Path:
    shutil.copytree(model_dir, tmp_path / "model")
    return tmp_path / "model"


def try_int8_on_every_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO runs it anywhere; `lacking` only says where it is no faster."""
    for module in (lower_precisions, ladder):
        monkeypatch.setattr(module, "lacking", lambda name: "")


def pretend_int8_is_faster_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny network need not be."""
    try_int8_on_every_cpu(monkeypatch)
    measure = precision.table

    def table(folder: Path, precisions: Sequence[str], layout: Any, labelled: TruthSet) -> Table:
        speed = 50.0 if precisions else 100.0
        return replace(measure(folder, precisions, layout, labelled), ms_per_minute=speed)

    monkeypatch.setattr(precision, "table", table)


@pytest.mark.slow
def test_what_passes_ships_and_is_used_and_what_does_not_leaves_no_file(
    folder: Path,
    competition: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(precision, "MAX_LOSS", 0.5)
    monkeypatch.setattr(precision, "MAX_LOSS_BOUND", 0.5)
    monkeypatch.setattr(precision, "MIN_RANK_CORRELATION", 0.9)
    pretend_int8_is_faster_here(monkeypatch)
    arguments = [str(folder), "--data", str(competition), "--precision", "int8"]
    assert to_openvino.main(arguments) == 0
    spec = Spec.load(folder)
    assert list(spec.precisions) == ["int8"]
    sizes = {name: (folder / f"test_resnet{name}.bin").stat().st_size for name in ("", ".int8")}
    assert sizes[".int8"] < 0.7 * sizes[""]
    first = spec.precisions[0]
    for name, figures in json.loads((folder / precision.NAME).read_text()).items():
        assert figures["refused"] == []
        faster = figures["ms_per_minute"] < figures["ms_per_minute_f32"]
        assert (name in spec.precisions) == faster
    assert submit(competition, folder, tmp_path / "lower.csv") == 0
    out = capsys.readouterr().out
    assert f", {first})" in out
    assert ": REFUSED, " not in out
    assert submit(competition, folder, tmp_path / "f32.csv", "--precision", "f32") == 0
    assert ".xml, f32)" in capsys.readouterr().out
    lower, f32 = read(tmp_path / "lower.csv"), read(tmp_path / "f32.csv")
    assert 0 < np.abs((lower - f32).to_numpy()).max() < 0.05

    monkeypatch.setattr(precision, "MIN_RANK_CORRELATION", 1.1)
    assert to_openvino.main(arguments) == 0
    assert list(Spec.load(folder).precisions) == []
    assert not list(folder.glob("*.int8.*"))
    refused = json.loads((folder / precision.NAME).read_text())[first]["refused"]
    assert "< 1.1" in refused[0]
    out = capsys.readouterr().out
    assert ": REFUSED, " in out
    assert "in order of use: f32" in out


def test_without_labelled_soundscapes_nothing_below_f32_is_tried_and_it_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    try_int8_on_every_cpu(monkeypatch)
    assert to_openvino.main([str(folder)]) == 0
    assert list(Spec.load(folder).precisions) == []
    assert "bf16: not tried, since --data was not given" in capsys.readouterr().out
    assert "not tried: since --data was not given" in (folder / "card.md").read_text()


def test_a_precision_that_this_cpu_lacks_is_not_tried(
    folder: Path, competition: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lower_precisions, "lacking", lambda name: "no such instructions")
    assert to_openvino.main([str(folder), "--data", str(competition), "--precision", "bf16"]) == 0
    assert "bf16: not tried, no such instructions" in capsys.readouterr().out
    assert precision.read(folder)["bf16"] == {"refused": ["no such instructions"]}


def test_an_unknown_precision_is_named(folder: Path) -> None:
    with pytest.raises(UserError, match="--precision int4 is unknown; choose from f32, bf16, int8"):
        to_openvino.main([str(folder), "--precision", "int4"])


def test_fp16_is_refused_with_when_and_why_it_was_removed(folder: Path) -> None:
    with pytest.raises(UserError, match=r"^--precision fp16: removed in November 2026, .*\.md$"):
        to_openvino.main([str(folder), "--precision", "bf16,fp16"])


def test_the_default_run_tries_bf16_alone() -> None:
    assert lower_precisions.wanted(to_openvino.parse([]).precision) == ["bf16"]
    assert lower_precisions.wanted("bf16,int8") == ["bf16", "int8"]


def test_the_accepted_and_faster_precisions_are_used_the_fastest_first() -> None:
    def verdict(name: str, ms: Any, loss: float = 0.0) -> Verdict:
        return Verdict(name, 0.8 - loss, 0.8, loss, loss, 0.9999, ms, 100.0)

    verdicts = [verdict("bf16", 60.0), verdict("int8", 40.0), verdict("x", 100.0), verdict("y", 1, 0.1)]
    assert precision.order_of_use(verdicts) == ("int8", "bf16")


@pytest.fixture
def graph(model_dir: Path) -> Any:
    return wheels.obtain("openvino").Core().read_model(model_dir / "test_resnet.xml")


def test_a_graph_that_is_split_and_joined_is_the_same(
    graph: Any, model_dir: Path, tmp_path: Path
) -> None:
    front_end, networks = split(graph)
    joined = quantize.join(front_end, networks, graph)
    path = tmp_path / "joined.xml"
    wheels.obtain("openvino").save_model(joined, path, compress_to_fp16=False)
    layout = Layout(1, 1, 12)
    again, before = (OpenVinoEngine(p, layout) for p in (path, model_dir / "test_resnet.xml"))
    inputs = parity.probe_inputs(before.contract)
    assert again.contract == before.contract
    for output, values in before(inputs).items():
        np.testing.assert_allclose(again(inputs)[output], values, atol=1e-6)


def test_int8_leaves_front_end_and_head_alone(graph: Any, model_dir: Path) -> None:
    contract = OpenVinoEngine(model_dir / "test_resnet.xml", Layout(1, 1, 2)).contract
    log_mels = quantize.log_mels(graph, contract, list(parity.probe_inputs(contract)), 1)
    assert log_mels.shape == (8, 1, 32, 157)
    front_end, networks = split(quantize.to_int8(graph, log_mels))
    count = {op.get_type_name() for op in front_end.get_ordered_ops()}
    assert "FakeQuantize" not in count
    quantised = {op.get_friendly_name() for op in networks.get_ordered_ops()}
    assert any("fq" in name.lower() or "FakeQuantize" in name for name in quantised)
    for name in quantize.without_time_and_frequency(split(graph)[1]):
        (op,) = (op for op in networks.get_ordered_ops() if op.get_friendly_name() == name)
        feeding = [op.input_value(i).get_node().get_type_name() for i in range(op.get_input_size())]
        assert "FakeQuantize" not in feeding


def test_all_lower_precisions_are_known_to_the_engine(model_dir: Path) -> None:
    for name in LOWER_PRECISIONS:
        opened = ensemble.load(model_dir, Layout(1, 1, 4), "openvino", [name])
        assert all(name in each or "f32" in each for each in opened.engines)
