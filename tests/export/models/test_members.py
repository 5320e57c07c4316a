"""Members of several runs in one ensemble: what they are called, and what they must agree on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from birdkit.contract import Contract
from birdkit.errors import UserError
from birdkit.scoring.ensemble import Spec
from export import to_onnx, to_openvino
from export.folder import model_folder
from export.models import members
from tests.conftest import TINY, submit
from train import run as train_run
from train.models.checkpoint import Final

LATEST = ("test_resnet", "test_resnet-2")


def with_setting(final: Final, section: str, name: str, value: object) -> Final:
    """A checkpoint that says it was trained with another setting."""
    job = final.job.table()
    job[section][name] = value
    return replace(final, made_by=final.made_by | {"job": job})


@pytest.fixture
def copy_run(run_dir: Path, tmp_path: Path) -> Callable[[str], Path]:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(run_dir, tmp_path / name))

    return copy


def test_a_name_that_two_runs_use_is_prefixed_with_the_runs(copy_run: Callable[[str], Path]) -> None:
    one, other = copy_run("one"), copy_run("mel 40.v2")
    assert tuple(members.load([one]).finals) == LATEST
    together = members.load([one, other])
    expected = [f"{run}-{name}" for run in ("one", "mel-40-v2") for name in LATEST]
    assert list(together.finals) == expected
    assert together.paths["one-test_resnet"] == one / "round0" / "test_resnet" / "final.pt"
    rounds = members.load([one / "round0", other])
    assert next(iter(rounds.finals)) == "one-round0-test_resnet"


def test_a_run_that_is_given_twice_is_refused(copy_run: Callable[[str], Path]) -> None:
    run = copy_run("one")
    with pytest.raises(UserError, match="a second member is named one-test_resnet; give each run once"):
        members.load([run, run])


@pytest.mark.parametrize(
    "changes, fact",
    [
        ({"classes": ("b", "a")}, "classes"),
        ({"window_s": 2.5}, "window_s"),
        ({"sample_rate": 16000}, "sample_rate"),
    ],
)
def test_runs_whose_models_answer_for_something_else_are_refused(
    copy_run: Callable[[str], Path], changes: dict[str, object], fact: str
) -> None:
    one, other = copy_run("one"), copy_run("other")
    for path in other.rglob("final.pt"):
        final = Final.load(path)
        contract = Contract(**{**vars(final.contract), **changes})
        replace(final, contract=contract).save(path)
    with pytest.raises(
        UserError, match=f"members one-test_resnet and other-test_resnet differ in {fact};"
    ):
        members.load([one, other])


def test_members_that_were_smoothed_differently_are_refused(run_dir: Path) -> None:
    final = Final.load(run_dir / "round0" / "test_resnet" / "final.pt")
    smoothed = with_setting(final, "postprocess", "smoothing", [0.25, 0.5, 0.25])
    members.refuse_other_smoothing({"a": final, "b": final})
    with pytest.raises(
        UserError,
        match=r"members a and b differ in postprocess\.smoothing \(1 and 0\.25, 0\.5, 0\.25\), and an",
    ):
        members.refuse_other_smoothing({"a": final, "b": smoothed})


def test_classes_that_a_competition_does_not_ask_for_are_dropped_and_the_others_answer_alike(
    run_dir: Path, tmp_path: Path
) -> None:
    """As models of the union of several years are exported for one."""
    union = members.load([run_dir])
    classes = union.contract.classes
    asked = (classes[5], classes[2], classes[0])
    (tmp_path / "sample_submission.csv").write_text(f"row_id,{','.join(asked)}\n")
    cut, line = members.for_competition(union, tmp_path)
    assert cut.contract.classes == (classes[0], classes[2], classes[5])
    assert line.startswith(f"{len(classes) - 3} classes that {tmp_path} does not ask for are dropped")
    assert cut.paths == union.paths
    waveform = torch.rand(2, cut.contract.chunk_samples) - 0.5
    for name, final in union.finals.items():
        with torch.inference_mode():
            every, some = final.predictor()(waveform), cut.finals[name].predictor()(waveform)
        for whole, part in zip(every, some, strict=True):
            torch.testing.assert_close(part, whole[:, [0, 2, 5]], rtol=1e-5, atol=1e-6)
    (tmp_path / "sample_submission.csv").write_text(f"row_id,{','.join(classes)}\n")
    assert members.for_competition(union, tmp_path) == (union, "")


def test_a_model_file_says_which_soundscapes_trained_it(run_dir: Path) -> None:
    path = run_dir / "round0" / "test_resnet" / "final.pt"
    final = replace(Final.load(path), trained_on=("one.ogg", "two.ogg"))
    assert members.made_by(final, path)["trained_on"] == ["one.ogg", "two.ogg"]


@pytest.fixture(scope="module")
def finer_run(competition: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one member whose log-mel has more bands and a shorter hop."""
    out = tmp_path_factory.mktemp("runs") / "finer"
    recipe = out.with_name("one.toml")
    recipe.write_text("[[models]]\n")
    arguments = ["--recipe", str(recipe), "--data", str(competition), "--out", str(out)]
    for override in (*TINY, "frontend.n_mels=40", "frontend.hop=640"):
        arguments += ["--set", override]
    assert train_run.main([*arguments, "--device", "cpu"]) == 0
    return out


@pytest.mark.slow
def test_two_runs_of_different_mels_are_one_ensemble_that_the_submission_scores(
    run_dir: Path, finer_run: Path, competition: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    runs = [str(run_dir), str(finer_run)]
    assert to_onnx.main([*runs, "--data", str(competition), "--out", str(model), "--fuse"]) == 0
    assert to_openvino.main([str(model), "--precision", "f32"]) == 0
    names = ["tiny-test_resnet", "test_resnet-2", "finer-test_resnet"]
    spec = Spec.load(model)
    assert sorted(spec.members) == sorted(names)
    assert spec.files == {"fused": names[:2], names[2]: names[2:]}
    assert sorted(model_folder.read_parity(model)) == sorted(names)
    assert "finer-test_resnet: log-mel inside the graph" in (model / "card.md").read_text()

    def score(weights: dict[str, float], name: str) -> pd.DataFrame:
        replace(spec, members=weights, averaging="probability").save(model)
        out = tmp_path / name
        assert submit(competition, model, out, "--strict", "--max-passes", "1") == 0
        return pd.read_csv(out, index_col=0)

    alone = [score({n: float(n == name) for n in names}, f"{name}.csv") for name in names]
    together = score(dict.fromkeys(names, 1.0), "together.csv")
    assert np.abs(alone[0].to_numpy() - alone[2].to_numpy()).max() > 0.01
    mean = np.mean([table.to_numpy() for table in alone], axis=0)
    np.testing.assert_allclose(together.to_numpy(), mean, atol=1e-5)
