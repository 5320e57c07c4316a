"""Layouts, precisions and what an engine does with its calls."""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from birdkit.engines import golden, ladder, openvino_graphs, wheels
from birdkit.engines.engine import Answers, OnnxRuntimeEngine, OpenVinoEngine
from birdkit.engines.ladder import open_model
from birdkit.engines.layout import Layout, usable_cores
from birdkit.engines.precision import lacking
from birdkit.errors import UserError
from birdkit.grid import WINDOWS_A_MINUTE
from birdkit.scoring import calibration, ensemble
from birdkit.scoring.calibration import candidates
from export.benchmark import machine

Loads = OnnxRuntimeEngine | OpenVinoEngine
ENGINES = [(OnnxRuntimeEngine, ".onnx"), (OpenVinoEngine, ".onnx"), (OpenVinoEngine, ".xml")]


@pytest.fixture(scope="module")
def chunks() -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    return (0.1 * rng.standard_normal((7, 160_000))).astype(np.float32)


@pytest.mark.parametrize(("load", "suffix"), ENGINES)
@pytest.mark.parametrize("layout", [Layout(2, 1, 2), Layout(1, 2, 4), Layout(3, 1, 1)])
def test_no_layout_changes_an_answer(
    model_dir: Path, chunks: NDArray[np.float32], load: type[Loads], suffix: str, layout: Layout
) -> None:
    path = model_dir / f"test_resnet{suffix}"
    expected = load(path, Layout(1, 1, 12))(chunks)
    answers = load(path, layout)(chunks)
    for output, values in expected.items():
        np.testing.assert_allclose(answers[output], values, atol=1e-5)


@pytest.mark.parametrize(("load", "suffix"), ENGINES)
def test_calls_from_many_threads_get_their_own_answers(
    model_dir: Path, chunks: NDArray[np.float32], load: type[Loads], suffix: str
) -> None:
    """More callers than streams, each with other audio: a shared buffer would mix them up."""
    model = load(model_dir / f"test_resnet{suffix}", Layout(2, 1, 2))
    inputs = [chunks[i : i + 1] * (1 + i) for i in range(len(chunks))] * 4
    alone = [model(one)["segmentwise"] for one in inputs]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda one: model(one)["segmentwise"], inputs))
    np.testing.assert_array_equal(together, alone)


@given(st.integers(1, 64))
def test_every_layout_keeps_every_core_busy_and_none_twice(cores: int) -> None:
    for layout in candidates(cores):
        assert cores - 1 <= layout.streams * layout.threads <= cores
        assert WINDOWS_A_MINUTE % layout.batch == 0
        assert Layout.parse(str(layout)) == layout


@pytest.mark.parametrize("text", ["", "4", "4x1", "0x1x2", "2x1x2x2", "axbxc"])
def test_a_layout_that_is_none_is_named(text: str) -> None:
    with pytest.raises(UserError, match="is not STREAMSxTHREADSxBATCH"):
        Layout.parse(text)


def test_calibration_keeps_the_layout_that_was_fastest(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speeds = {1: 10.0, 2: 30.0, 3: 20.0}
    monkeypatch.setattr(calibration, "windows_per_s", lambda of, streams: speeds[streams])
    layouts = [Layout(streams, 1, 2) for streams in speeds]
    fastest = calibration.calibrate(lambda layout: ensemble.load(model_dir, layout), layouts)
    assert fastest.layout == Layout(2, 1, 2)
    assert fastest.windows_per_s == 30.0
    assert fastest.measured == {"1x1x2": 10.0, "2x1x2": 30.0, "3x1x2": 20.0}


def test_the_speed_is_that_of_all_streams_together(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = ensemble.load(model_dir, Layout(2, 1, 4)).ensemble
    calls: list[int] = []
    run = loaded.run

    def counted(waveform: NDArray[np.float32], n_windows: int) -> list[Answers]:
        calls.append(n_windows)
        return run(waveform, n_windows)

    monkeypatch.setattr(loaded, "run", counted)
    assert calibration.windows_per_s(loaded, 2) > 0
    assert calls == [WINDOWS_A_MINUTE] * 2 * (1 + calibration.ROUNDS)


def test_in_bf16_the_front_end_is_asked_for_in_f32(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether or not this CPU computes in bf16."""
    asked: list[str] = []
    settings = Layout.openvino

    def recording(layout: Layout, precision: str) -> dict[str, Any]:
        asked.append(precision)
        return settings(layout, precision)

    monkeypatch.setattr(Layout, "openvino", recording)
    OpenVinoEngine(model_dir / "test_resnet.xml", Layout(1, 1, 4), "bf16")
    assert asked == ["f32", "bf16"]


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("400000 100000", 4),
        ("150000 100000", 2),
        ("10000 100000", 1),
        ("1600000 100000", 8),
        ("max 100000", 8),
        (None, 8),
    ],
)
def test_a_containers_quota_limits_the_cores(
    quota: str | None, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    if quota:
        (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert usable_cores(tmp_path / "cpu.max") == cores


def test_in_bf16_the_front_end_stays_f32(model_dir: Path, chunks: NDArray[np.float32]) -> None:
    """The networks move by bf16's rounding; a log-mel in bf16 would move by far more."""
    path = model_dir / "test_resnet.xml"
    layout = Layout(1, 1, 4)
    front_end, networks = openvino_graphs.split(wheels.obtain("openvino").Core().read_model(path))
    core = wheels.obtain("openvino").Core()
    settings = layout.openvino("f32")
    log_mel = core.compile_model(front_end, "CPU", settings)(chunks[:4])[0]
    whole = OpenVinoEngine(path, layout)(chunks[:4])
    joined = core.compile_model(networks, "CPU", settings)(log_mel)
    for output in ("clipwise", "segmentwise"):
        np.testing.assert_allclose(joined[output], whole[output], atol=1e-6)
    in_bf16 = OpenVinoEngine(path, layout, "bf16")(chunks[:4])
    stages = OpenVinoEngine(path, layout, "bf16").stages
    # Where the CPU lacks bf16, OpenVINO takes f32 for the networks too.
    of_networks = "float32" if lacking("bf16") else "bfloat16"
    assert [str(s.get_property("INFERENCE_PRECISION_HINT")) for s in stages] == [
        "<Type: 'float32'>",
        f"<Type: '{of_networks}'>",
    ]
    if not lacking("bf16"):
        assert 0 < np.abs(in_bf16["segmentwise"] - whole["segmentwise"]).max() < 0.2


def test_f32_is_pinned(model_dir: Path) -> None:
    (stage,) = OpenVinoEngine(model_dir / "test_resnet.xml", Layout(1, 1, 4)).stages
    assert str(stage.get_property("INFERENCE_PRECISION_HINT")) == "<Type: 'float32'>"


def test_a_cpu_without_the_instructions_runs_f32_and_says_so(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("flags\t: fpu avx2\n")
    assert lacking("bf16", cpuinfo) == "this CPU has no avx512_bf16 or amx_bf16"
    assert lacking("int8", cpuinfo) == "this CPU has no avx512_vnni or avx_vnni"
    cpuinfo.write_text("flags\t: fpu avx512_vnni amx_bf16\n")
    assert [lacking(name, cpuinfo) for name in ("bf16", "int8")] == ["", ""]
    monkeypatch.setattr(ladder, "lacking", lambda name: f"this CPU has no {name}")
    opened = open_model(model_dir / "test_resnet", Layout(1, 1, 4), precisions=["bf16"])
    assert opened.description == "openvino (test_resnet.xml, f32; this CPU has no bf16)"
    assert opened.fallbacks == []


def test_a_lower_precision_whose_file_is_broken_falls_back_to_f32(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for suffix in (".xml", ".bin"):
        (tmp_path / f"m{suffix}").write_bytes((model_dir / f"test_resnet{suffix}").read_bytes())
    monkeypatch.setattr(ladder, "lacking", lambda name: "")
    (tmp_path / "m.int8.xml").write_text("<net/>")
    opened = open_model(tmp_path / "m", Layout(1, 1, 4), precisions=["int8"])
    assert opened.description == "openvino (m.xml, f32)"
    assert "openvino on m.int8.xml" in opened.fallbacks[0]


@pytest.mark.parametrize("name", ["log_mel", "picture"])
def test_a_graph_is_split_at_its_log_mel_by_its_name_of_now_and_of_earlier_kits(name: str) -> None:
    openvino = wheels.obtain("openvino")
    waveform = openvino.opset13.parameter([2, 3], np.float32, name="waveform")
    log_mel = openvino.opset13.relu(waveform)
    log_mel.output(0).set_names({name})
    answer = openvino.opset13.negative(log_mel)
    front_end, networks = openvino_graphs.split(openvino.Model([answer], [waveform], "whole"))
    core = openvino.Core()
    given = np.array([[-1, 0, 1], [2, -2, 3]], dtype=np.float32)
    heard = core.compile_model(front_end, "CPU")(given)[0]
    np.testing.assert_array_equal(heard, np.maximum(given, 0))
    np.testing.assert_array_equal(core.compile_model(networks, "CPU")(heard)[0], -heard)


@pytest.fixture
def altered(model_dir: Path, tmp_path: Path) -> Path:
    """A model folder whose files say that they score windows of four seconds."""
    folder = shutil.copytree(model_dir, tmp_path / "altered")
    for path in (*folder.glob("*.xml"), *folder.glob("*.onnx")):
        content = path.read_bytes()
        for quote in (b'"', b"&quot;"):
            content = content.replace(
                b"%swindow_s%s: 5.0" % (quote, quote), b"%swindow_s%s: 4.0" % (quote, quote)
            )
        path.write_bytes(content)
    return folder


def test_a_contract_that_was_altered_after_export_is_refused(altered: Path) -> None:
    with pytest.raises(UserError, match=r"contract was altered: window_s is 4.0, not 5.0"):
        open_model(altered / "test_resnet", Layout(1, 1, 4))
    golden_file = altered / golden.NAME
    recorded = json.loads(golden_file.read_text())
    for of_stem in recorded.values():
        del of_stem[golden.CONTRACT]  # as earlier kits recorded
    golden_file.write_text(json.dumps(recorded))
    assert open_model(altered / "test_resnet", Layout(1, 1, 4)).engine.contract.window_s == 4.0


def test_a_precision_without_recorded_answers_is_left_out_and_named(
    model_dir: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(model_dir, tmp_path / "model")
    replace(ensemble.Spec.load(folder), precisions=("bf16",)).save(folder)
    loaded = ensemble.load(folder, Layout(1, 1, 4))
    assert list(loaded.fallbacks) == ["golden.json has no answers in bf16, so it is not used"]
    assert all("f32" in engine for engine in loaded.engines)


def test_a_graph_without_a_named_log_mel_cannot_be_split() -> None:
    openvino = wheels.obtain("openvino")
    x = openvino.opset13.parameter([2, 3], np.float32, name="waveform")
    model = openvino.Model([openvino.opset13.relu(x)], [x], "old")
    with pytest.raises(UserError, match="old: its graph names no 'log_mel'"):
        openvino_graphs.split(model)


def test_the_machine_is_named_even_where_cpuinfo_does_not(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    assert " cores, " in machine.describe(cpuinfo)
    cpuinfo.write_text("processor\t: 0\nmodel name\t: AMD EPYC 9R14\nmodel name\t: AMD EPYC 9R14\n")
    assert machine.describe(cpuinfo).startswith("AMD EPYC 9R14, ")
