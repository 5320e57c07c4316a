"""Training on Kaggle: what is uploaded, what a session hands on, and what comes back of it."""

from __future__ import annotations

import argparse
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from birdkit.errors import UserError
from birdkit.kaggle import manifest
from export import bundle as command
from export import kaggle_sim
from export.kaggle import cli
from export.kaggle.cli import Said
from export.kaggle.sim import session as sandbox
from export.kaggle.training import bundle, fetch, image, output, session
from export.kaggle.training.bundle import Request, Sources
from export.kaggle.training.settings import NAME, RUN, Training
from tests.conftest import ROOT, TINY
from train.rounds import sessions

NOTEBOOK = "ann/birdclef-kit-demo-training"


def sources(*overrides: str, competition: str | None = "birdclef-2026", **changes: Any) -> Sources:
    asked = Request(ROOT, "demo", [*TINY, *overrides], None, "cuda", "11.5h", "ann", competition)
    return Sources.of(replace(asked, **changes))


def build(folder: Path, of: Sources) -> tuple[Path, dict[str, Any]]:
    """The dataset, and the notebook's metadata."""
    bundle.build(folder, of)
    metadata = json.loads((folder / "kernel" / "kernel-metadata.json").read_text())
    return folder / "dataset", metadata


def test_the_dataset_holds_kit_recipe_and_manifest_and_the_notebook_asks_for_two_t4s(
    tmp_path: Path,
) -> None:
    of = sources()
    dataset, kernel = build(tmp_path, of)
    carried = set(manifest.paths(dataset))
    wanted = {"train/run.py", "export/to_onnx.py", "submission/run.py", "demo.toml", NAME, "commit.txt"}
    assert wanted | {"submission/birdkit/contract.py", "train/recipes/mini.toml"} <= carried
    assert {name.partition("/")[0] for name in carried} == {
        *("train", "export", "submission", "demo.toml", NAME, "commit.txt", "requirements.txt")
    }
    assert bundle.violations(tmp_path, of, pushing=True) == []
    assert (kernel["id"], kernel["title"]) == (NOTEBOOK, "BirdCLEF kit demo training")
    assert kernel["dataset_sources"] == ["ann/birdclef-kit-demo-code"]
    assert kernel["competition_sources"] == ["birdclef-2026"]
    assert (kernel["enable_gpu"], kernel["machine_shape"]) == (True, "NvidiaTeslaT4")
    assert (kernel["enable_internet"], kernel["kernel_sources"]) == (False, [])
    training = Training.read(dataset)
    assert training.overrides == tuple(TINY)
    assert training.resolved["fit"]["lr"] == 0.003
    assert {"timm", "librosa"} <= {pin.partition("==")[0] for pin in training.packages}


@pytest.mark.parametrize(
    "override, package",
    [
        ("models.weights=timm", None),
        ("data.speech=cut", "silero-vad"),
        ("data.speech=cut", "onnxruntime"),
    ],
)
def test_the_internet_is_on_where_something_is_downloaded(override: str, package: str | None) -> None:
    of = sources(override)
    assert of.kernel["enable_internet"] is True
    assert package is None or any(pin.startswith(f"{package}==") for pin in of.training.packages)


def test_weights_that_are_files_travel_and_are_found_from_the_datasets_folder(tmp_path: Path) -> None:
    file = tmp_path / "mine.pt"
    torch.save({}, file)
    of = sources(f"models.weights={file}")
    dataset, kernel = build(tmp_path / "out", of)
    assert kernel["enable_internet"] is False
    (carried,) = [model["weights"] for model in of.training.resolved["models"]]
    assert (dataset / carried).read_bytes() == file.read_bytes()
    with pytest.raises(UserError, match=r"models\.0\.weights = 'gone\.pt': no such file to carry"):
        sources("models.weights=gone.pt")


def test_another_name_has_a_dataset_and_a_notebook_of_its_own(tmp_path: Path) -> None:
    of = sources(name="demo seed 1")
    assert of.kernel["id"] == "ann/birdclef-kit-demo-seed-1-training"
    assert of.dataset["id"] == "ann/birdclef-kit-demo-seed-1-code"
    build(tmp_path, of)
    assert bundle.violations(tmp_path, of, pushing=True) == []


def test_what_a_push_lacks_is_named(tmp_path: Path) -> None:
    of = sources(competition=None, owner=None)
    build(tmp_path, of)
    assert bundle.violations(tmp_path, of, pushing=False) == []
    assert len(bundle.violations(tmp_path, of, pushing=True)) == 2


@pytest.mark.parametrize(
    "text, right", [("11.5h", True), ("700min", True), ("11.9h", False), ("x", False)]
)
def test_a_session_ends_before_kaggles_limit(text: str, right: bool) -> None:
    if right:
        assert command.session_time(text) == text
    else:
        with pytest.raises(argparse.ArgumentTypeError):
            command.session_time(text)


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--train", "demo", "--wheels", "x"], "--wheels goes with --model, not with --train"),
        (["--fetch", "--push"], "--push goes with --train or --model, not with --fetch"),
        (["--set", "fit.lr=1"], "--set goes with --train, which is not given"),
    ],
)
def test_an_option_of_another_mode_is_refused(arguments: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        command.parse(arguments)


@pytest.mark.parametrize(
    "answer, fresh, attached",
    [
        ("COMPLETE", False, [NOTEBOOK]),
        ("ERROR", False, [NOTEBOOK]),
        (None, False, []),
        ("COMPLETE", True, []),
    ],
)
def test_a_push_goes_on_from_the_notebooks_own_output(
    answer: str | None,
    fresh: bool,
    attached: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pushed: list[Path] = []
    monkeypatch.setattr(cli, "ended_version", lambda kernel: answer)
    monkeypatch.setattr(cli, "push", pushed.append)
    tiny = [word for override in TINY for word in ("--set", override)]
    options = ["--train", "demo", *tiny, "--owner", "ann", "--competition", "birdclef", "--push"]
    assert (
        command.main([*options, "--out", str(tmp_path / "out"), *(["--fresh"] if fresh else [])]) == 0
    )
    kernel = json.loads((pushed[0] / "kernel" / "kernel-metadata.json").read_text())
    assert kernel["kernel_sources"] == attached


def status(text: str, code: int = 0) -> cli.Run:
    return lambda *arguments: Said(code, text)


def test_a_version_that_has_not_ended_has_no_output_yet() -> None:
    said = 'ann/x has status "KernelWorkerStatus.{}"\n'
    assert cli.ended_version("ann/x", status(said.format("COMPLETE"))) == "COMPLETE"
    assert cli.ended_version("ann/x", status("404 Client Error\n", 1)) is None
    with pytest.raises(UserError, match="running on Kaggle; wait until that version has ended"):
        cli.ended_version("ann/x", status(said.format("RUNNING")))
    with pytest.raises(UserError, match="exit status 1: 500 Server Error"):
        cli.ended_version("ann/x", status("500 Server Error\n", 1))


@pytest.fixture
def training() -> Training:
    versions = {"python": image.found("python") or "", "timm": "0.9.1"}
    return Training("demo", "demo.toml", (), {"fit": {"lr": 1.0}}, "cpu", "2h", (), versions, "abc")


def test_the_time_of_a_session_counts_from_its_first_cell() -> None:
    assert session.left("2h", time.time() - 600) == "6600s"
    assert session.left("60steps", 0.0) == "60steps"
    with pytest.raises(UserError, match="2h was over before the training began"):
        session.left("2h", time.time() - 7200)


@pytest.mark.parametrize(
    ("n_models", "n_gpus", "shares"),
    [(2, 2, False), (4, 2, False), (1, 2, True), (3, 2, True), (1, 1, False), (2, 0, False)],
)
def test_models_that_the_gpus_divide_among_them_train_side_by_side(
    n_models: int, n_gpus: int, shares: bool, training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_gpus)
    recipe = {"models": [{"encoder": "test_resnet"}] * n_models, "rounds": [{}, {}]}
    started = session.launcher(replace(training, resolved=recipe))
    assert ("torch.distributed.run" in started) is shares
    assert ("--nproc-per-node" in started) is shares


def test_the_image_is_told_from_the_machine_that_bundled_and_what_is_too_old_is_refused(
    training: Training, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image.check(training)
    printed = capsys.readouterr().out
    assert f"timm: {image.found('timm')} here, 0.9.1 where it was bundled" in printed
    assert "python" not in printed
    monkeypatch.setattr(image, "found", {"python": "3.12.1", "torch": "2.5.1+cu121"}.get)
    with pytest.raises(
        UserError, match=r"torch 2\.5\.1\+cu121 can't train with this kit, which needs 2\.6"
    ):
        image.check(training)


def test_only_what_the_image_lacks_is_installed(training: Training, tmp_path: Path) -> None:
    lacking = replace(training, packages=("numpy==0.1", "no-such-birds==1.0"))
    assert list(image.lacking(lacking)) == ["no-such-birds==1.0"]
    image.install(replace(training, packages=("numpy==0.1",)), tmp_path / "packages")
    assert not (tmp_path / "packages").exists()


def make_run(run: Path) -> Path:
    """A run of one finished model and one in training."""
    for name in ("round0/a/final.pt", "round0/a/state.pt", "round1/a/state.pt", ".lock"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(name)
    with sessions.recorded(run, torch.device("cpu")):
        pass
    return run


def test_a_session_hands_on_what_the_next_one_needs_and_nothing_more(
    training: Training, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "working" / RUN)
    cache = tmp_path / "cache"
    cache.mkdir()
    for name in ("index.json", "speech-60s.json", "waveform.npy"):
        (cache / name).write_text("{}")
    output.leave(run, cache, training)
    left = {*manifest.paths(run)}
    assert left == {
        *("round0/a/final.pt", "round1/a/state.pt", "stores/speech-60s.json", "sessions.json", NAME)
    }
    inputs = tmp_path / "input"
    shutil.copytree(run, inputs / "notebooks" / NOTEBOOK / RUN)
    output.take_over(inputs, tmp_path / "next" / RUN, tmp_path / "next-cache", training)
    assert {*manifest.paths(tmp_path / "next" / RUN)} == left
    assert [path.name for path in (tmp_path / "next-cache").iterdir()] == ["speech-60s.json"]


@pytest.mark.parametrize("fault", ["another recipe", "damaged", "several", "no manifest"])
def test_an_earlier_output_that_cannot_go_on_is_refused(
    fault: str, training: Training, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "input" / "birdclef-kit-demo-training" / RUN)
    output.leave(run, tmp_path / "no-cache", training)
    said = {
        "another recipe": r"trained with another fit\.lr; name this training with --name",
        "damaged": r"round1/a/state\.pt: was altered",
        "several": "several runs are attached",
        "no manifest": "so no session left it whole",
    }
    if fault == "another recipe":
        training = replace(training, resolved={"fit": {"lr": 2.0}})
    elif fault == "damaged":
        (run / "round1" / "a" / "state.pt").write_text("half")
    elif fault == "several":
        shutil.copytree(run, tmp_path / "input" / "notebooks" / "ann" / "b" / RUN)
    else:
        (run / manifest.NAME).unlink()
    with pytest.raises(UserError, match=said[fault]):
        output.take_over(tmp_path / "input", tmp_path / "next", tmp_path / "cache", training)
    assert not (tmp_path / "next").exists()


class Kaggle:
    """Answers as Kaggle's command line, with one notebook's output."""

    def __init__(self, run: Path) -> None:
        self.run = run

    def __call__(self, *arguments: str) -> Said:
        if arguments[:2] == ("kernels", "status"):
            return Said(0, f'{arguments[2]} has status "KernelWorkerStatus.COMPLETE"\n')
        assert arguments[:3] == ("kernels", "output", NOTEBOOK)
        assert arguments[-1] == "^birdkit\\-run/"
        shutil.copytree(self.run, Path(arguments[arguments.index("-p") + 1]) / RUN)
        return Said(0, "Output file downloaded to x\n")


def test_a_run_comes_back_whole_or_not_at_all(training: Training, tmp_path: Path) -> None:
    run = make_run(tmp_path / "there")
    output.leave(run, tmp_path, training)
    out = tmp_path / "runs" / "back"
    assert "finished, not" in fetch.fetch(NOTEBOOK, out, Kaggle(run))
    (run / "recipe.json").write_text("{}")
    output.leave(run, tmp_path, training)
    assert fetch.fetch(NOTEBOOK, out, Kaggle(run)).endswith(f"python export/to_onnx.py {out}")
    assert (out / "recipe.json").is_file()
    assert manifest.paths(out) == manifest.paths(run)
    (run / "round0" / "a" / "final.pt").write_text("cut sho")
    with pytest.raises(UserError, match=r"final\.pt: was altered: 7 bytes, not 17; fetch it again"):
        fetch.fetch(NOTEBOOK, out, Kaggle(run))
    assert (out / "round0" / "a" / "final.pt").read_text() == "round0/a/final.pt"


def test_what_was_not_fetched_or_was_trained_on_since_is_not_replaced(
    training: Training, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "there")
    output.leave(run, tmp_path, training)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "notes.txt").touch()
    with pytest.raises(UserError, match="holds what was not fetched"):
        fetch.fetch(NOTEBOOK, tmp_path / "own", Kaggle(run))
    fetch.fetch(NOTEBOOK, tmp_path / "back", Kaggle(run))
    with sessions.recorded(tmp_path / "back", torch.device("cpu")):
        pass
    with pytest.raises(UserError, match="was trained on since it was fetched"):
        fetch.fetch(NOTEBOOK, tmp_path / "back", Kaggle(run))


def test_the_notebook_to_fetch_is_that_bundled_last_or_the_one_given(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no training was bundled there; give --fetch OWNER/NOTEBOOK"):
        fetch.notebook("", tmp_path)
    build(tmp_path, sources())
    assert fetch.notebook("", tmp_path) == NOTEBOOK
    assert fetch.notebook("bob/other-notebook", tmp_path) == "bob/other-notebook"
    with pytest.raises(UserError, match="must be owner/slug"):
        fetch.notebook("other-notebook", tmp_path)


@pytest.mark.slow
def test_three_sessions_end_as_one(
    competition: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `make kaggle-sim TRAIN=demo` does, with a tiny network and few steps."""
    try:
        (tmp_path / "input").mkdir()
        sandbox.cut(tmp_path / "input")
    except UserError:
        pytest.skip("this machine allows no namespaces")
    tiny = [*TINY, "fit.steps_per_epoch=4", "fit.epochs=1", "fit.batch=4"]
    options = [word for override in tiny for word in ("--set", override)]
    places = ["--data", str(competition), "--work", str(tmp_path / "work")]
    status = kaggle_sim.main(["--train", "demo", *options, *places])
    printed = capsys.readouterr()
    assert status == 0, printed.out + printed.err
    table = [line for line in printed.out.splitlines() if line.endswith("| passes |")]
    assert [line.split(" | ")[3] for line in table] == ["stopped", "stopped", "finished", "finished"]
