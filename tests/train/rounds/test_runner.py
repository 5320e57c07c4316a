"""A run of several rounds: what it does, what a rerun does again, and that a kill changes nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from birdkit.contract import Contract
from birdkit.errors import UserError
from export import to_onnx
from export.models import members
from tests.conftest import ROOT, TINY, submit, tiny_job, tiny_recipe
from train import compare, label
from train import run as train_run
from train.config.settings import Round
from train.data.competition import Recording
from train.data.dataset import Dataset
from train.experiments import comparison
from train.models import checkpoint, pretrained
from train.models.sed import Predictor
from train.rounds import pseudo_labels, runner, teachers, training
from train.rounds.plan import Member, Stage
from train.scoring import summary
from train.scoring.truth import Truth, read_truth

# The write-up's recipe with its three backbones swapped for one that is small enough for a test.
SWAPPED = [
    *(each for each in TINY if not each.startswith("frontend")),
    "frontend.n_fft=1024",
    "frontend.hop=1024",
    "frontend.n_mels=32",
    "fit.batch=4",
    "fit.epochs=1",
    "fit.steps_per_epoch=3",
    "data.fold=-1",
]
TWO_ROUNDS = """
[[models]]
[[rounds]]
[[rounds]]
warm = true
fit.lr = 2e-4
pseudo.output = "clipwise"
fit.framewise = 0.5
"""


def arguments(competition: Path, out: Path, recipe: str | Path, *more: str) -> list[str]:
    found = ["--recipe", str(recipe), "--data", str(competition), "--out", str(out), "--device", "cpu"]
    for override in SWAPPED:
        found += ["--set", override]
    return [*found, *more]


@pytest.fixture(scope="module")
def write_up(competition: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "birdclef2025"
    validation = ["--validation", str(competition / "validation")]
    assert train_run.main(arguments(competition, out, "birdclef2025", *validation)) == 0
    return out


def test_held_out_recordings_are_in_the_summary_and_can_be_compared_on(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.read_csv(run_dir / "summary.csv").set_index(["set", "model", "output"])["macro_auc"]
    for name in ("test_resnet", "test_resnet-2"):
        final = checkpoint.Final.load(run_dir / "round0" / name / "final.pt")
        for output, auc in final.metrics["held_out"].items():
            # A few recordings: one pair that rounds otherwise in training's memory layout is 0.01.
            assert table["held_out", name, output] == pytest.approx(auc, abs=0.02)
    assert ("held_out", "ensemble", "clipwise") in table
    per_class = pd.read_csv(run_dir / "per_class.csv")
    assert set(per_class["set"]) == {"soundscapes", "held_out"}
    pair = [str(run_dir), "--against", str(run_dir)]
    assert compare.main([*pair, "--set", "held_out"]) == 0
    assert "| test_resnet | clipwise |" in capsys.readouterr().out
    with pytest.raises(UserError, match="has scores on --set held_out, --set soundscapes"):
        compare.main(pair)


def test_models_that_hold_out_other_recordings_have_a_set_a_fold(contract: Contract) -> None:
    def held_out(data: Any) -> Any:
        recordings = [Recording(Path(f"{data.fold}.ogg"), "a", (), "x", 5.0)] if data.fold >= 0 else []
        return [], recordings, ""

    dataset: Any = SimpleNamespace(validating=(), contract=lambda job: contract, recordings_of=held_out)
    members = tuple(
        Member(name, tiny_job(f"data.fold={fold}"), Path())
        for name, fold in (("a", 0), ("b", 1), ("c", 0), ("d", -1))
    )

    def sets(*of: Member) -> dict[str, list[str]]:
        each = runner.Runner(tiny_recipe(), dataset, torch.device("cpu"), None)
        stage = Stage(0, Round(), Path(), of)
        return {truth_set.name: names for truth_set, names in each._sets(stage)}

    assert sets(*members) == {"held_out_0_of_3": ["a", "c"], "held_out_1_of_3": ["b"]}
    assert sets(members[0], members[2]) == {"held_out": ["a", "c"]}
    assert sets(members[3]) == {}


@pytest.mark.slow
def test_the_write_ups_recipe_runs_whole(write_up: Path) -> None:
    trained = sorted(str(path.parent.relative_to(write_up)) for path in write_up.rglob("final.pt"))
    assert trained == [
        "round0/b3", "round1/b3", "round1/b5", "round1/v2_b3", "round2/b3", "round2/b5",
        "round2/v2_b3", "round3/b3", "round3/v2_b3",
    ]  # fmt: skip
    for index, (output, names) in enumerate(
        [("clipwise", ["b3"])] + 2 * [("segmentwise", ["b3", "b5", "v2_b3"])], start=1
    ):
        folder = write_up / f"round{index}"
        made_by = pseudo_labels.read(folder / "pseudo.parquet").made_by
        assert made_by["output"] == output
        before = write_up / f"round{index - 1}"
        hashes = {name: checkpoint.sha256(before / name / "final.pt") for name in names}
        assert made_by["teachers"] == hashes
        labels = checkpoint.sha256(folder / "pseudo.parquet")
        for path in folder.glob("*/final.pt"):
            final = checkpoint.Final.load(path)
            assert final.made_by["parents"] == {"pseudo labels": labels}
            summary_of_labels = json.loads((folder / "pseudo.json").read_text())
            assert len(final.trained_on) == summary_of_labels["n_soundscapes"]


@pytest.mark.slow
def test_every_model_of_every_round_is_in_the_summary_and_the_gains_add_up(write_up: Path) -> None:
    table = pd.read_csv(write_up / "summary.csv")
    assert set(table["set"]) == {"soundscapes", "validation"}  # it holds no recording out
    n_models = table.groupby("round")["model"].nunique().to_dict()
    assert n_models == {0: 2, 1: 4, 2: 4, 3: 3}  # and the ensemble
    b3 = table[(table.model == "b3") & (table.set == "validation") & (table.output == "clipwise")]
    np.testing.assert_allclose(b3["gain"].to_numpy()[1:], np.diff(b3["macro_auc"]), atol=2e-5)
    assert (b3["gain_low"] <= b3["gain_high"])[1:].all()
    per_class = pd.read_csv(write_up / "per_class.csv")
    keys = ["round", "model", "set", "output"]
    mean, macro = per_class.groupby(keys)["auc"].mean(), table.set_index(keys)["macro_auc"]
    np.testing.assert_allclose(macro, mean.loc[macro.index], atol=2e-5)


@pytest.mark.slow
def test_the_plan_tells_rounds_teachers_and_what_is_done(
    write_up: Path, competition: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_run.main(arguments(competition, write_up, "birdclef2025", "--dry-run")) == 0
    out = capsys.readouterr().out
    assert (
        "round 1: labelled data and 36 pseudo-labelled windows (0.5 of samples), clipwise of b3" in out
    )
    assert "segmentwise of b3 + b5 + v2_b3" in out
    assert out.count("done already") == 9 + 3
    assert "left to do: about 0 s" in out
    fresh = tmp_path / "fresh"
    assert train_run.main(arguments(competition, fresh, "birdclef2025", "--dry-run")) == 0
    out = capsys.readouterr().out
    assert out.count("test_resnet, 3 steps of 4 (0.") == 9
    assert "done already" not in out
    assert not fresh.exists()


def made_at(out: Path) -> dict[str, int]:
    return {
        str(path.relative_to(out)): path.stat().st_mtime_ns
        for name in ("final.pt", "pseudo.parquet")
        for path in out.rglob(name)
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "redone"),
    [
        ("models.b5.drop_rate=0.3", {"round1/b5", "round2", "round3"}),
        ("rounds.3.pseudo.share=0.25", {"round3/b3", "round3/v2_b3"}),
        ("rounds.2.pseudo.power=2.0", {"round2/b3", "round2/b5", "round2/v2_b3", "round3"}),
        ("rounds.pseudo.alarms.action=stop", set()),
    ],
)
def test_a_changed_setting_redoes_only_what_depends_on_it(
    write_up: Path, competition: Path, tmp_path: Path, override: str, redone: set[str]
) -> None:
    out = tmp_path / "run"
    shutil.copytree(write_up, out)
    before = made_at(out)
    override = override.replace("models.b5", "models.1")
    assert (
        train_run.main(arguments(competition, out, "birdclef2025", "--set", override, "--restart")) == 0
    )
    after = made_at(out)
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {name for name in before if any(name.startswith(each) for each in redone)}


def assert_submits_what_torch_says(competition: Path, run: Path, model: Path) -> None:
    """The exported second round, run offline on the hidden soundscapes, says what torch says there."""
    hidden, out = competition / "validation", model.with_name("submission.csv")
    where = ["--soundscapes", str(hidden / "soundscapes"), "--max-passes", "1"]
    assert submit(competition, model, out, *where) == 0
    output = json.loads((model / "ensemble.json").read_text())["output"]
    scored = summary.Scored.load(run / "round1" / "scores-validation.npz")
    submitted = pd.read_csv(out, index_col="row_id").loc[read_truth(hidden).row_ids]
    in_torch = scored.table(output, summary.ENSEMBLE)
    np.testing.assert_allclose(submitted[list(scored.header.classes)], in_torch, atol=1e-4)


@pytest.mark.slow
def test_an_earlier_round_is_exported_by_its_folder(write_up: Path) -> None:
    assert members.load([write_up / "round0"]).finals.keys() == {"b3"}
    with pytest.raises(UserError, match="the run's recipe has 4 rounds"):
        members.load([write_up / "round9"])


def two_rounds(folder: Path) -> Path:
    path = folder / "two.toml"
    path.write_text(TWO_ROUNDS)
    return path


@pytest.fixture(scope="module")
def uninterrupted(competition: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    assert train_run.main(arguments(competition, folder / "run", two_rounds(folder))) == 0
    return folder / "run"


def assert_same_end(found: Path, expected: Path) -> None:
    """The same weights, labels and figures."""
    assert made_at(found).keys() == made_at(expected).keys()
    for path in expected.rglob("final.pt"):
        own = checkpoint.Final.load(found / path.relative_to(expected)).state
        state = checkpoint.Final.load(path).state
        assert all(torch.equal(own[key], state[key]) for key in state)
    for name in ("round1/pseudo.parquet", "summary.csv"):
        assert (found / name).read_bytes() == (expected / name).read_bytes()


class Killed(BaseException):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("place", ["label", "run_fit", "summarise", "score_round"])
def test_a_run_killed_between_its_steps_ends_as_the_one_that_was_not(
    uninterrupted: Path, competition: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """At the last call of each kind: in round 1."""
    module = {
        "run_fit": training, "score_round": summary, "label": teachers,
    }.get(place, pseudo_labels)  # fmt: skip
    real = getattr(module, place)
    calls = []

    def dies(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == (1 if module in (teachers, pseudo_labels) else 2):
            raise Killed
        return real(*args, **kwargs)

    recipe = two_rounds(tmp_path)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(module, place, dies)
        train_run.main(arguments(competition, tmp_path / "run", recipe))
    assert not (tmp_path / "run" / "recipe.json").exists()
    assert train_run.main(arguments(competition, tmp_path / "run", recipe)) == 0
    assert_same_end(tmp_path / "run", uninterrupted)


@pytest.mark.slow
def test_killed_by_sigkill_again_and_again_it_still_ends_the_same(
    uninterrupted: Path, competition: Path, tmp_path: Path
) -> None:
    """At moments that no test chose: after each of these, the run is begun again."""
    recipe, run = two_rounds(tmp_path), tmp_path / "run"
    command = [sys.executable, str(ROOT / "train" / "run.py"), *arguments(competition, run, recipe)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    for appears in ("round0/*/state.pt", "round1/pseudo*"):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        limit = time.monotonic() + 120
        while not list(run.glob(appears)) and process.poll() is None and time.monotonic() < limit:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    assert_same_end(run, uninterrupted)


@pytest.mark.slow
def test_an_alarm_warns_or_stops_as_the_recipe_says(
    competition: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = two_rounds(tmp_path)
    more = ["--set", "rounds.1.pseudo.alarms.clipwise.constant=1.0"]
    stop = ["--set", "rounds.1.pseudo.alarms.action=stop"]
    with pytest.raises(
        UserError, match=r"pseudo\.parquet: 8 alarms, the first: .*clipwise labels differ"
    ):
        train_run.main(arguments(competition, tmp_path / "run", recipe, *more, *stop))
    assert train_run.main(arguments(competition, tmp_path / "run", recipe, *more)) == 0
    assert capsys.readouterr().err.count("alarm: ") == 16


def test_a_warm_round_goes_on_from_the_last_rounds_model_and_falls_with_it(
    uninterrupted: Path, competition: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start, end = (next(uninterrupted.glob(f"round{index}/*/final.pt")) for index in range(2))
    parents = checkpoint.Final.load(end).made_by["parents"]
    assert parents["the round before's model"] == checkpoint.sha256(start)
    out = tmp_path / "run"
    shutil.copytree(uninterrupted, out)
    # At a rate of nothing it stays what it was.
    still = ["--restart", "--set", "rounds.1.fit.lr=0.0", "--set", "rounds.1.fit.weight_decay=0.0"]
    assert train_run.main(arguments(competition, out, two_rounds(tmp_path), *still)) == 0
    assert "final.pt: warm start, 8 of 8 classes" in capsys.readouterr().out
    weights = {path: checkpoint.Final.load(path).state for path in (start, *out.rglob("final.pt"))}
    trained = [key for key in weights[start] if "running" not in key and "num_batches" not in key]
    for state in weights.values():
        assert all(torch.equal(state[key], weights[start][key]) for key in trained)


def test_what_trained_the_first_weights_has_trained_the_model(
    uninterrupted: Path, competition: Path, tmp_path: Path
) -> None:
    """Else export would judge on it."""
    first = checkpoint.Final.load(next(uninterrupted.glob("round0/*/final.pt")))
    replace(first, trained_on=("elsewhere.ogg",)).save(tmp_path / "final.pt")
    more = [f"models.weights={tmp_path / 'final.pt'}", "rounds=[{}]", "fit.steps_per_epoch=1"]
    words = [word for setting in more for word in ("--set", setting)]
    assert train_run.main(arguments(competition, tmp_path / "run", "demo", *words)) == 0
    (path,) = tmp_path.glob("run/round0/*/final.pt")
    assert checkpoint.Final.load(path).trained_on == ("elsewhere.ogg",)


def test_a_round_that_draws_no_windows_labels_none_and_still_falls_with_its_teacher(
    uninterrupted: Path, competition: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    shutil.copytree(uninterrupted, out)
    (out / "round1" / "pseudo.parquet").unlink()
    start = next(out.glob("round0/*/final.pt"))
    replace(checkpoint.Final.load(start), trained_on=("heard.ogg",)).save(start)
    labels_none = ["--restart", "--set", "rounds.1.pseudo.share=0.0"]
    again = arguments(competition, out, two_rounds(tmp_path), *labels_none)
    assert train_run.main(again) == 0
    assert not (out / "round1" / "pseudo.parquet").exists()
    final = checkpoint.Final.load(next(out.glob("round1/*/final.pt")))
    assert set(final.made_by["parents"]) == {"the round before's model"}
    assert final.trained_on == ("heard.ogg",)  # by its first weights
    capsys.readouterr()
    assert train_run.main([*again, "--dry-run"]) == 0
    assert "left to do: about 0 s" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("setting", "changed"),
    [
        ("rounds.1.pseudo.power=2.0", r"round1/\w+/final\.pt: .* job\.pseudo\.power; .*--restart"),
        ("fit.seed=1", r"round0/\w+/final\.pt: .* another job\.fit\.seed; name another --out"),
    ],
)
def test_no_finished_model_of_any_round_is_overwritten_unasked(
    uninterrupted: Path, competition: Path, tmp_path: Path, setting: str, changed: str
) -> None:
    before = made_at(uninterrupted)
    with pytest.raises(UserError, match=changed):
        train_run.main(arguments(competition, uninterrupted, two_rounds(tmp_path), "--set", setting))
    assert made_at(uninterrupted) == before


def test_a_finished_model_of_other_parents_is_named_before_they_are_trained(
    uninterrupted: Path, competition: Path, tmp_path: Path
) -> None:
    out, recipe = tmp_path / "run", two_rounds(tmp_path)
    shutil.copytree(uninterrupted, out)
    recipe.write_text(TWO_ROUNDS.replace("[[models]]\n", "[[models]]\n[[models]]\n"))
    with pytest.raises(UserError, match=r"round1/test_resnet/final\.pt: .* another round before"):
        train_run.main(arguments(competition, out, recipe))
    assert made_at(out).keys() == made_at(uninterrupted).keys()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("models.1.weights=nowhere.pt", "nowhere.pt': no such file"),
        ("models.1.encoder=nonsense", "'nonsense' is no timm model"),
    ],
)
def test_the_last_rounds_models_are_built_before_any_data_is_read(
    tmp_path: Path, setting: str, message: str
) -> None:
    recipe, out = tmp_path / "late.toml", tmp_path / "run"
    models = "[[models]]\nname = 'a'\n[[models]]\nname = 'b'\n"
    recipe.write_text(models + "[[rounds]]\nmodels = ['a']\n[[rounds]]\nmodels = ['b']\n")
    with pytest.raises(UserError, match=message):
        train_run.main(arguments(tmp_path / "absent", out, recipe, "--set", setting))
    assert not out.exists()


def test_a_later_round_without_soundscapes_is_named_before_the_first_trains(
    competition: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Dataset, "soundscapes", lambda *_, **__: [])
    with pytest.raises(UserError, match="holds no unlabelled soundscapes"):
        train_run.main(arguments(competition, tmp_path / "run", two_rounds(tmp_path)))
    assert not (tmp_path / "run").exists()


def test_a_run_is_named_by_its_recipe_and_its_data(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "c" / ".." / "b"
    names = [train_run.default_out("mini", folders).name for folders in ([], [a], [a, b])]
    assert names == ["mini", "mini-a", "mini-a-b"]


def test_members_of_equal_settings_train_to_different_weights(run_dir: Path) -> None:
    one, two = (
        checkpoint.Final.load(run_dir / "round0" / name / "final.pt").state
        for name in ("test_resnet", "test_resnet-2")
    )
    assert not torch.equal(one["network.hidden.weight"], two["network.hidden.weight"])


def test_a_run_warm_starts_from_another_of_wider_classes(
    uninterrupted: Path, competition: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = next(uninterrupted.glob("round0/*/final.pt"))
    final = checkpoint.Final.load(path)
    classes = ("newbird", *reversed(final.contract.classes[2:]))
    contract = replace(final.contract, classes=classes)
    model = replace(final.job.model, weights=str(path))
    torch.manual_seed(5)
    predictor = Predictor(final.job.frontend, model, contract)
    fresh = predictor.network.att_block.cla.weight[0].clone()
    line = pretrained.start(predictor, model)
    assert "6 of 7 classes by name" in line
    theirs = {name: row for row, name in enumerate(final.contract.classes)}
    for row, name in enumerate(classes[1:], start=1):
        for head in ("att_block.cla.weight", "att_block.att.bias"):
            own = predictor.network.state_dict()[head][row]
            assert torch.equal(own, final.state[f"network.{head}"][theirs[name]])
    assert torch.equal(predictor.network.att_block.cla.weight[0], fresh)
    encoder = "encoder.conv1.0.weight"
    assert torch.equal(predictor.network.state_dict()[encoder], final.state[f"network.{encoder}"])
    assert pretrained.parents(model) == {str(path): checkpoint.sha256(path)}


def scored(
    truth: NDArray[np.bool_],
    before: float,
    after: float,
    seed: int,
    models: tuple[str, ...] = ("a", "b", "ensemble"),
) -> comparison.Pair:
    """A pair of rounds whose tables are noise around the truth, of these sizes."""
    rng = np.random.default_rng(seed)
    header = summary.Header("validation", ("clipwise",), models, ("x", "y"), {})
    groups = np.repeat(np.arange(len(truth) // 4), 4)

    def table(noise: float) -> NDArray[np.float32]:
        noisy = [truth + noise * rng.standard_normal(truth.shape) for _ in models]
        return np.array([noisy], dtype=np.float32)

    pairs = [summary.Scored(header, table(n), Truth.of(truth, groups=groups)) for n in (before, after)]
    return comparison.Pair(*pairs)


def test_gains_are_means_over_seeds_of_one_resampling(tmp_path: Path) -> None:
    truth = np.random.default_rng(9).random((80, 2)) < 0.3
    pairs = [scored(truth, 3.0, 0.7, seed) for seed in range(3)]
    found = comparison.gains(pairs)
    assert [gain.model for gain in found] == ["a", "b", comparison.MEAN, "ensemble"]
    a, b, mean, _ = found
    assert mean.before == pytest.approx(np.mean([a.before, b.before], axis=0))
    assert mean.mean.estimate == pytest.approx((a.mean.estimate + b.mean.estimate) / 2)
    of_one = comparison.gains([scored(truth, 3.0, 0.7, 0, ("a", "ensemble"))])
    assert [gain.model for gain in of_one] == ["a"]  # an ensemble of one is that one
    for gain in found:
        assert gain.mean.estimate == pytest.approx(np.mean(gain.after) - np.mean(gain.before))
        assert 0 < gain.mean.bound(0.05) < gain.mean.estimate < gain.mean.bound(0.95)
    no_gain = comparison.gains([scored(truth, 1.0, 1.0, seed) for seed in range(3)])[0].mean
    assert no_gain.bound(0.05) < 0 < no_gain.bound(0.95)
    assert "| a | clipwise |" in comparison.markdown(found)


@pytest.mark.parametrize("gains", [(0.01, 0.05), (0.01, 0.02, 0.06), (0.0, 0.01, 0.02, 0.09)])
def test_the_spread_of_few_seeds_is_that_of_their_mean(gains: tuple[float, ...]) -> None:
    """Files all alike: what is left is how seeds differ, s / √n, as Student's t widens it."""
    found = comparison.over_runs(np.repeat(np.array(gains)[:, None], 20_000, axis=1))
    assert found.mean() == pytest.approx(np.mean(gains), abs=1e-3)
    student = stats.t.ppf(0.95, len(gains) - 1) / stats.norm.ppf(0.95)
    assert found.std() == pytest.approx(np.sqrt(np.var(gains, ddof=1) / len(gains)) * student, rel=0.05)


def test_of_one_seed_and_of_seeds_alike_only_the_files_spread() -> None:
    of_files = np.random.default_rng(5).standard_normal(500)
    assert np.array_equal(comparison.over_runs(of_files[None]), of_files)
    alike = comparison.over_runs(np.stack([of_files, of_files, of_files]))
    assert alike == pytest.approx(of_files)


def test_runs_that_cant_be_compared_are_named(uninterrupted: Path, run_dir: Path) -> None:
    with pytest.raises(UserError, match="has one round only"):
        comparison.pair(run_dir, "validation")
    with pytest.raises(UserError, match=r"scores-validation\.npz: not found; the round has scores on"):
        comparison.pair(uninterrupted, "validation")
    run, on = str(uninterrupted), ["--set", "soundscapes"]
    with pytest.raises(UserError, match="2 runs for 1; give one for each"):
        compare.main([run, *on, "--against", run, run])
    assert compare.main([run, *on]) == 0


def test_the_last_round_is_compared_with_another_recipes(
    uninterrupted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = comparison.pair(uninterrupted, "soundscapes", against=uninterrupted)
    assert [gain.mean.estimate for gain in comparison.gains([pair])] == [0.0, 0.0]
    run = str(uninterrupted)
    assert compare.main([run, "--set", "soundscapes", "--against", run]) == 0
    assert "| other recipe | last round |" in capsys.readouterr().out


def test_a_runs_models_label_any_folder_of_soundscapes(
    uninterrupted: Path, competition: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hidden = competition / "validation" / "soundscapes"
    arguments = [str(uninterrupted), "--soundscapes", str(hidden), "--out", str(tmp_path)]
    assert label.main([*arguments, "--set", "output=clipwise", "--device", "cpu"]) == 0
    found = pseudo_labels.read(tmp_path / "pseudo.parquet")
    assert list(found.names) == [path.name for path in sorted(hidden.glob("*.ogg"))]
    assert found.made_by["output"] == "clipwise"
    assert "s each" in capsys.readouterr().out
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="holds no sound files"):
        label.main(
            [str(uninterrupted), "--soundscapes", str(tmp_path / "none"), "--out", str(tmp_path)]
        )


MEMBERS_THAT_DIFFER = """
[[models]]
name = "coarse"
[[models]]
name = "fine"
frontend.hop = 512
frontend.n_mels = 48
data.chunk_s = 10.0
data.fold = 1
augment.mixup = 0.0
fit.framewise = 0.5
"""


@pytest.mark.slow
def test_members_of_other_mels_chunks_folds_and_losses_stand_in_one_ensemble(
    competition: Path, tmp_path: Path
) -> None:
    recipe, run, model = tmp_path / "differ.toml", tmp_path / "run", tmp_path / "model"
    recipe.write_text(MEMBERS_THAT_DIFFER + "[[rounds]]\n[[rounds]]\n")
    hidden = competition / "validation"
    apart = [name for name in SWAPPED if not name.startswith("data.fold")]
    more = [word for setting in apart for word in ("--set", setting)]
    where = ["--recipe", str(recipe), "--data", str(competition), "--out", str(run)]
    assert train_run.main([*where, "--validation", str(hidden), "--device", "cpu", *more]) == 0
    finals = [checkpoint.Final.load(run / "round1" / name / "final.pt") for name in ("coarse", "fine")]
    assert [final.contract.chunk_s for final in finals] == [5.0, 10.0]
    assert [final.job.frontend.n_mels for final in finals] == [32, 48]
    assert to_onnx.main([str(run), "--data", str(competition), "--out", str(model), "--fuse"]) == 0
    assert_submits_what_torch_says(competition, run, model)
