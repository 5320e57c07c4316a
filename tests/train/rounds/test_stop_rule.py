"""A round that must gain and does not ends the run with the round before it, which export takes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from birdkit.errors import UserError
from export.models import members
from tests.conftest import TINY, tiny_recipe
from train import run as train_run
from train.models.checkpoint import Final
from train.rounds import plan, stop_rule
from train.scoring.auc import macro_auc
from train.scoring.summary import Header, Scored
from train.scoring.truth import Truth

RNG = np.random.default_rng(0)
TRUTH = Truth.of(RNG.random((40, 3)) < 0.3, groups=np.repeat(np.arange(10), 4))
# At a rate of nothing a warm student is its teacher, so it gains exactly nothing.
STILL = """
[[models]]
[[rounds]]
[[rounds]]
warm = true
must_gain = true
fit.lr = 0.0
fit.weight_decay = 0.0
pseudo.share = 0.0
[[rounds]]
must_gain = true
"""


def scored(name: str, *errors: float) -> Scored:
    """A round's scores on a set: an output for each error, the larger it is the worse."""
    rng = np.random.default_rng(1)
    tables = [TRUTH.labels + error * rng.standard_normal(TRUTH.labels.shape) for error in errors]
    outputs = ("clipwise", "segmentwise")[: len(errors)]
    header = Header(name, outputs, ("m", "ensemble"), ("a", "b", "c"), {})
    return Scored(header, np.stack([[table, table] for table in tables]).astype(np.float32), TRUTH)


def test_the_better_output_of_each_round_is_compared() -> None:
    before, now = scored("soundscapes", 1.0, 0.4), scored("soundscapes", 0.3, 2.0)
    gain = stop_rule.gain([before], [now])
    aucs = [
        macro_auc(TRUTH, of.table(output, "ensemble")).macro
        for of, output in ((before, "segmentwise"), (now, "clipwise"))
    ]
    assert gain.estimate == pytest.approx(aucs[1] - aucs[0])
    assert gain.interval[0] < gain.estimate < gain.interval[1]


def test_labelled_soundscapes_judge_and_never_the_validation_folder(
    capsys: pytest.CaptureFixture[str],
) -> None:
    worse_there = [scored("validation", 0.1), scored("soundscapes", 0.5), scored("held_out", 0.5)]
    better = [scored("validation", 3.0), scored("soundscapes", 0.4), scored("held_out", 3.0)]
    assert stop_rule.goes_on(1, worse_there, better)
    assert not stop_rule.goes_on(2, better, worse_there)
    out = capsys.readouterr().out
    assert "round 1 must gain on soundscapes: +" in out
    assert "the run ends with round 1, which is what export takes" in out


def test_without_them_the_mean_over_held_out_folds_judges() -> None:
    first = [scored("held_out_0_of_5", 0.6), scored("held_out_1_of_5", 0.6)]
    second = [scored("held_out_0_of_5", 0.3), scored("held_out_1_of_5", 0.7)]
    parts = [stop_rule.gain([a], [b]).estimate for a, b in zip(first, second, strict=True)]
    assert stop_rule.gain(first, second).estimate == pytest.approx(np.mean(parts))
    assert parts[0] > 0 > parts[1]


def test_no_gain_at_all_is_none() -> None:
    same = [scored("soundscapes", 0.5)]
    assert not stop_rule.goes_on(1, same, same)


@pytest.mark.parametrize("fold", [-1, 0])
def test_a_round_that_nothing_can_judge_is_refused_before_it_trains(fold: int, tmp_path: Path) -> None:
    recipe = tiny_recipe(f"data.fold={fold}", "rounds=[{}, {must_gain=true}]")
    stages = plan.stages(recipe, tmp_path)
    dataset: Any = SimpleNamespace(
        validating=(), recordings_of=lambda data: ([], ["one"] if data.fold >= 0 else [], "")
    )
    if fold >= 0:
        stop_rule.refuse_unjudged(stages, dataset)
        return
    with pytest.raises(UserError, match=r"rounds\.1\.must_gain: no labelled soundscapes validate"):
        stop_rule.refuse_unjudged(stages, dataset)
    dataset.validating = ("one",)
    stop_rule.refuse_unjudged(stages, dataset)


@pytest.mark.parametrize(
    ("rounds", "why"),
    [
        ("[{must_gain=true}]", r"rounds\.0\.must_gain: there is no round before"),
        ("[{}, {must_gain=true, pseudo={validating=true}}]", "set one of the two alone"),
    ],
)
def test_rounds_that_can_not_be_judged_fairly_are_refused(rounds: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        tiny_recipe(f"rounds={rounds}")


def test_a_run_that_stops_exports_its_best_round_and_stops_again(
    competition: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "still.toml").write_text(STILL)
    out = tmp_path / "run"
    arguments = ["--recipe", str(tmp_path / "still.toml"), "--data", str(competition)]
    arguments += ["--out", str(out), "--device", "cpu"]
    for override in (*TINY, "fit.batch=4", "fit.epochs=1", "fit.steps_per_epoch=2"):
        arguments += ["--set", override]
    assert train_run.main(arguments) == 0
    assert "does not, so the run ends with round 0" in capsys.readouterr().out
    assert plan.finished(out).index == 0
    (path,) = members.load([out]).paths.values()
    assert path == out / "round0" / "test_resnet" / "final.pt"
    assert not (out / "round2").exists()
    assert set(pd.read_csv(out / "summary.csv")["round"]) == {0, 1}
    trained = {path: path.stat().st_mtime_ns for path in out.rglob("final.pt")}
    assert len(trained) == 2
    (out / "recipe.json").unlink()  # as if killed before it was written
    assert train_run.main(arguments) == 0
    assert "does not, so the run ends with round 0" in capsys.readouterr().out
    assert plan.finished(out).index == 0
    assert trained == {path: path.stat().st_mtime_ns for path in out.rglob("final.pt")}


@pytest.mark.slow
def test_the_noisy_students_recipe_runs_until_a_round_gains_nothing(
    competition: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    arguments = ["--recipe", "noisy_student", "--data", str(competition), "--out", str(out)]
    for override in (*TINY, "fit.batch=4", "fit.epochs=1", "fit.steps_per_epoch=3"):
        arguments += ["--set", override]
    assert train_run.main([*arguments, "--device", "cpu"]) == 0
    table = pd.read_csv(out / "summary.csv")
    rows = table[(table["set"] == "soundscapes") & (table["model"] == "ensemble")]
    best = rows.groupby("round")["macro_auc"].max().to_numpy()  # of the better output
    last = plan.finished(out).index
    assert (np.diff(best[: last + 1]) > 0).all()
    assert len(best) == min(5, last + 2)
    assert len(best) == 5 or best[-1] <= best[last]
    for index in range(1, len(best)):
        (path,) = out.glob(f"round{index}/*/final.pt")
        job = Final.load(path).job
        assert (job.pseudo.mixing, job.pseudo.share, job.pseudo.weighting) == ("mixed", 1.0, "sum")
        assert job.pseudo.power == (1.0, 1.54, 1.82, 1.67)[index - 1]
