"""The bench measures real runs, and its report says what was measured."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from birdkit.contract import Contract
from birdkit.engines.layout import Layout
from birdkit.errors import UserError
from birdkit.scoring import ensemble
from birdkit.scoring.ensemble import Ensemble, Loaded, Spec
from export import bench
from export.benchmark import comparison, frontier, report
from export.benchmark.baselines import ConvMel, EagerEngine
from export.gates.selection import labelled_set
from export.models.members import load
from tests.conftest import ROOT, tiny_predictor, write_sound
from tests.test_privacy import watched
from train.config.settings import FrontEnd
from train.models.frontend import LogMel
from train.pages.marks import put_between_marks
from train.scoring.evaluate import engines_for, evaluate


def test_the_published_front_ends_give_the_same_log_mel(contract: Contract) -> None:
    """Else their speeds could not be compared."""
    predictor = tiny_predictor(contract, "frontend.n_fft=2048", "frontend.hop=512").eval()
    waveforms = np.random.default_rng(0).normal(0, 0.1, (3, 160_000)).astype(np.float32)
    with torch.inference_mode():
        ours = predictor(torch.from_numpy(waveforms))
        log_mel = predictor.front_end(torch.from_numpy(waveforms))
        conv = ConvMel(predictor.front_end.config)(torch.from_numpy(waveforms))
    torch.testing.assert_close(conv, log_mel, atol=1e-5, rtol=0)
    eager = EagerEngine({"m": predictor}, 1)(waveforms)
    np.testing.assert_allclose(eager["m.segmentwise"], ours[1].numpy(), atol=1e-4)


@pytest.mark.parametrize("config", [FrontEnd(), FrontEnd(n_fft=4096, hop=1252, n_mels=224)])
def test_conv1d_and_factorised_log_mels_are_equal_to_a_hundred_thousandth(config: FrontEnd) -> None:
    rng = np.random.default_rng(0)
    t = np.arange(160_000) / 32000
    waveforms = np.stack(
        [0.1 * rng.standard_normal(t.size), np.sin(2 * np.pi * (500 * t + 1500 * t**2))]
    )
    given = torch.tensor(waveforms, dtype=torch.float32)
    difference = (ConvMel(config)(given) - LogMel(config)(given)).abs()
    # Noise holds every bin; a pure sweep's empty bins are rounding of either, 80 dB down.
    assert difference[0].max() < 1e-5
    assert difference[1].mean() < 1e-5


@pytest.mark.slow
def test_the_bench_of_a_model_folder(
    model_dir: Path, run_dir: Path, competition: Path, tmp_path: Path
) -> None:
    fused = tmp_path / "model"
    shutil.copytree(model_dir, fused)
    out, chart, readme = tmp_path / "b.json", tmp_path / "b.png", tmp_path / "README.md"
    readme.write_text("before\n<!-- bench -->\nstale\n<!-- /bench -->\nafter\n")
    arguments = [str(fused), "--data", str(competition), "--runs", str(run_dir.parent)]
    outputs = ["--json", str(out), "--chart", str(chart), "--readme", str(readme)]
    sizes = ["--files", "2", "--rounds", "1", "--scaling", "1", "2", "3"]
    done = watched([str(ROOT / "export" / "bench.py"), *arguments, *outputs, *sizes], tmp_path)
    assert done.returncode == 0, done.stderr
    measured = json.loads(out.read_text())
    assert [row["precision"] for row in measured["rows"]] == ["f32"] * 8
    for row in measured["rows"]:
        parts = sum(row[f"{part}_ms"] for part in report.PARTS)
        assert parts == pytest.approx(row["ms"])
        assert row["gated"]
        assert row["max_dp"] < 1e-4  # the same members, in every engine and behind every front end
        assert row["rank_correlation"] > 0.999
        assert 50 < row["peak_mib"] < (2000 if row["name"].startswith("(a)") else 450)  # no torch
    assert [run["files"] for run in measured["scaling"]] == [1, 2, 3]
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "stale" not in text
    assert report.markdown(measured) in text
    assert chart.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_frontier_of_a_run(
    run_dir: Path, competition: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frontier, "candidates", lambda cores: [Layout(cores, 1, 4)])
    out, chart = tmp_path / "f.json", tmp_path / "f.png"
    arguments = ["--data", str(competition), "--json", str(out), "--chart", str(chart), "--rounds", "1"]
    assert bench.main(["--frontier", str(run_dir), *arguments]) == 0
    measured = json.loads(out.read_text())
    points = measured["points"]
    # Each member and both; windows in up to three passes, minutes in one, and half minutes in two
    # poolings and up to two passes. Both together in turn, too.
    assert len(points) == 3 * (3 + 1 + 2 * 2) + 1
    assert frontier.markdown(measured).count("| yes |") == sum(not p["dominated"] for p in points) > 0
    assert chart.read_bytes().startswith(b"\x89PNG")
    cost = {(tuple(p["members"]), p["hears"], p["passes"]): p["ms"] for p in points}
    both = ("test_resnet", "test_resnet-2")
    assert cost[both, "a window", 3] == pytest.approx(cost[both, "a window", 1] * 38 / 12)
    assert cost[both, "30 s, soft", 2] == pytest.approx(cost[both, "30 s, soft", 1] * 5 / 2)

    finals = load([run_dir]).finals
    labelled = labelled_set(competition, next(iter(finals.values())).contract, []).truth_set
    assert labelled is not None
    cpu, found = torch.device("cpu"), {}
    for stretch_s in (0.0, 60.0):
        predictors = {name: final.predictor() for name, final in finals.items()}
        engines = engines_for(predictors, dict.fromkeys(predictors, stretch_s), cpu)
        spec = Spec(dict.fromkeys(finals, 1.0), pooling="soft")
        found[stretch_s] = max(auc.macro for auc in evaluate(engines, spec, labelled).values())
    for hears, stretch_s in (("a window", 0.0), ("60 s, soft", 60.0)):
        (point,) = (
            p for p in points
            if (tuple(p["members"]), p["hears"], p["passes"]) == (both, hears, 1)
        )  # fmt: skip
        assert point["auc"] == pytest.approx(found[stretch_s], abs=1e-3)
        assert point["interval"][0] <= point["auc"] <= point["interval"][1]


@pytest.mark.slow
def test_a_frontier_of_two_ensembles_names_them_and_is_judged_where_it_is_asked_to(
    run_dir: Path, competition: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frontier, "candidates", lambda cores: [Layout(cores, 1, 4)])
    monkeypatch.setattr(frontier, "WAYS", [frontier.Way((0.0,), "plain", (0.0,))])
    opened: list[weakref.ref[Ensemble]] = []

    def load_alone(*args: Any, **more: Any) -> Loaded:
        gc.collect()
        assert not any(before() for before in opened)  # all at once would fill the memory
        loaded = load_ensemble(*args, **more)
        opened.append(weakref.ref(loaded.ensemble))
        return loaded

    load_ensemble = ensemble.load
    monkeypatch.setattr(ensemble, "load", load_alone)
    shutil.copytree(run_dir, tmp_path / "other")
    out, chart = tmp_path / "f.json", tmp_path / "f.png"
    both = ["--frontier", str(run_dir), "--frontier", str(tmp_path / "other")]
    judged = ["--validation", str(competition / "validation"), "--rounds", "1"]
    assert bench.main([*both, *judged, "--json", str(out), "--chart", str(chart)]) == 0
    measured = json.loads(out.read_text())
    assert (measured["judging"], measured["soundscapes"]) == ("validation", 3)
    assert len(opened) == 2 * (1 + 3 + 3)  # each scores all, and has three sets to calibrate and time
    aucs = {(p["ensemble"], *p["members"]): p["auc"] for p in measured["points"]}
    assert len(aucs) == 2 * 3
    for name in ("test_resnet", "test_resnet-2"):
        assert aucs["tiny", name] == aucs["other", name]
    assert "| other: test_resnet + test_resnet-2 | a window |" in frontier.markdown(measured)
    assert "3 validation soundscapes" in frontier.markdown(measured)
    assert chart.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match="two of the ensembles have one name"):
        bench.main(["--frontier", str(run_dir), "--frontier", str(run_dir), *judged])


def test_what_is_worse_in_no_less_time_is_dominated() -> None:
    def point(ms: float, auc: float) -> frontier.Point:
        return frontier.Point("", ("m",), "a window", 1, "clipwise", ms, [ms], auc, (0.0, 1.0))

    given = [point(30, 0.9), point(10, 0.8), point(10, 0.7), point(20, 0.8), point(40, 0.89)]
    found = [(p.ms, p.auc, p.dominated) for p in frontier.marked(given)]
    best = [(ms, auc) for ms, auc, dominated in found if not dominated]
    assert best == [(10, 0.8), (30, 0.9)]
    assert [ms for ms, _, _ in found] == [10, 10, 20, 30, 40]


def test_of_many_points_the_table_has_the_frontier_and_the_best_in_one_pass_of_each_set() -> None:
    points = [
        frontier.Point("", ("m", str(k % 2)), f"way {k}", 1 + k // 30, "o", k, [k], auc, (0.0, 1.0))
        for k, auc in enumerate([*(k % 7 for k in range(59)), 8])  # the last one takes two passes
    ]
    every = [asdict(point) for point in frontier.marked(points)]
    report = {"machine": "m", "judging": "labelled", "soundscapes": 2, "rounds": 1}
    few = frontier.markdown(report | {"points": every[: frontier.MOST_SHOWN]})
    assert few.count("| way ") == frontier.MOST_SHOWN
    assert "it shows" not in few
    table = frontier.markdown(report | {"points": every})
    on_it = [k for k, point in enumerate(every) if not point["dominated"]]
    best = [max((k for k in range(30) if k % 2 == n), key=lambda k: (k % 7, -k)) for n in (0, 1)]
    shown = {
        int(line.split("| way ")[1].split(" ")[0]) for line in table.splitlines() if "| way " in line
    }
    assert shown == {*on_it, *best}
    assert 59 in shown
    assert "Of 60 ways it shows those on the frontier" in table


def test_a_frontier_without_labelled_soundscapes_is_one_line(run_dir: Path) -> None:
    with pytest.raises(UserError, match="--frontier has nothing to judge on, since --data was not"):
        bench.main(["--frontier", str(run_dir)])


def test_a_model_folder_whose_checkpoints_are_gone_is_named(model_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no checkpoint that .* was exported from"):
        comparison.find_finals(model_dir, tmp_path)


def test_ratios_are_of_the_same_round() -> None:
    slow = {"ms_rounds": [100.0, 400.0, 100.0]}
    fast = {"ms_rounds": [50.0, 200.0, 60.0]}
    assert report.ratio(slow, fast) == 2.0


def test_slopes_leave_out_what_every_run_pays_once() -> None:
    runs = [{"files": n, "cpu_seconds": 7.0 + 0.5 * n} for n in (50, 200, 700)]
    assert report.slopes(runs) == pytest.approx((0.5, 0.5))


def test_a_file_without_the_markers_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.md").write_text("nothing")
    with pytest.raises(UserError, match="needs a line <!-- bench -->"):
        put_between_marks(tmp_path / "x.md", "bench", "")


def test_data_without_soundscapes_is_one_line_before_anything_is_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sound(tmp_path / "wren" / "a.wav", 1.0)
    monkeypatch.setattr(comparison, "of_write_up", None)
    with pytest.raises(UserError, match="no soundscapes, and minutes of them are measured"):
        bench.main(["--data", str(tmp_path)])
