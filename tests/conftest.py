"""Paths, and the small things that several tests share: a competition, a trained run, its export."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import settings

from birdkit import log
from birdkit.contract import Contract
from birdkit.engines.layout import usable_cores
from export import to_onnx, to_openvino
from train import run as train_run
from train.config import recipe
from train.config.job import Job, job_of
from train.config.settings import Recipe
from train.models.sed import Predictor
from train.synthetic.competition import make_competition

# Processes that test side by side (`pytest -n`) share the cores, with the commands that they start.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    n_threads = max(1, usable_cores() // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    os.environ.setdefault("OMP_NUM_THREADS", str(n_threads))
    torch.set_num_threads(n_threads)

# How long an example takes says something of the machine only.
settings.register_profile("kit", deadline=None)
settings.load_profile("kit")

ROOT = Path(__file__).resolve().parents[1]
REAL = ROOT.parent / "shared" / "birdclef-mini"
# Of the demo competition's size: its fewest recordings and soundscapes, for the tests' sake.
SMALL = 0.08
# A timm network of 0.5 M parameters, made for tests.
TINY = [
    "models.encoder=test_resnet",
    "models.weights=none",
    "models.drop_path_rate=0.0",
    "models.drop_rate=0.1",
    "frontend.n_fft=1024",
    "frontend.hop=1024",
    "frontend.n_mels=32",
    "fit.batch=16",
    "fit.steps_per_epoch=10",
    "fit.epochs=2",
    "fit.lr=0.003",
    "fit.amp=f32",
    "data.n_folds=3",
    "data.cache=false",
]

# Files of tests that take a minute of CPU or more, the longest first. A process that begins with one
# of them when all others are done leaves the other cores idle.
LONGEST = (
    "train/rounds/test_runner.py",
    "test_privacy.py",
    "export/gates/test_parity.py",
    "export/models/test_fuse.py",
    "export/benchmark/test_benchmark.py",
    "train/fit/test_trainer.py",
    "submission/test_run.py",
    "export/models/test_members.py",
    "export/gates/test_precision.py",
    "export/models/test_encoders.py",
    "export/kaggle/test_cli.py",
    "train/synthetic/test_competition.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files (`--no-loadscope-reorder` keeps this order)."""
    places = {ROOT / "tests" / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(autouse=True)
def said_as_always() -> None:
    """A test begins with the lines that a command shows by itself, whatever the last one asked for."""
    log.show(log.DEFAULT)


def made_once(name: str, factory: pytest.TempPathFactory, make: Callable[[Path], object]) -> Path:
    """A folder that `make` fills. Processes that test side by side share it: nobody may write there."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        folder = factory.mktemp(name)
        make(folder)
        return folder
    folder = factory.getbasetemp().parent / name
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed
        ready = folder / ".ready"
        if not ready.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            ready.touch()
    return folder


@pytest.fixture(scope="session")
def competition(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo competition, small. To be read only."""
    folder = made_once("data", tmp_path_factory, lambda of: make_competition(of / "demo", scale=SMALL))
    return folder / "demo"


@pytest.fixture(scope="session")
def run_dir(competition: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two members, trained for seconds. To be read only."""

    def train(folder: Path) -> None:
        arguments = ["--recipe", str(two_members(folder)), "--data", str(competition)]
        for override in TINY:
            arguments += ["--set", override]
        assert train_run.main([*arguments, "--out", str(folder / "tiny"), "--device", "cpu"]) == 0

    return made_once("runs", tmp_path_factory, train) / "tiny"


def two_members(folder: Path) -> Path:
    path = folder / "tiny.toml"
    path.write_text("[[models]]\n[[models]]\n")
    return path


@pytest.fixture(scope="session")
def model_dir(run_dir: Path, competition: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's export: ONNX and OpenVINO IR. To be read only."""

    def export(folder: Path) -> None:
        out = str(folder / "model")
        assert to_onnx.main([str(run_dir), "--data", str(competition), "--out", out]) == 0
        assert to_openvino.main([out, "--data", str(competition), "--precision", "f32"]) == 0

    return made_once("export", tmp_path_factory, export) / "model"


def _load(path: Path) -> ModuleType:
    """A script that is no module of a package."""
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


submission_run = _load(ROOT / "submission" / "run.py")
submission_detect = _load(ROOT / "submission" / "detect.py")


def submit(data: Path, model_dir: Path, out: Path, *arguments: str) -> int:
    """Run the submission on a competition folder, one file after the other; its exit status."""
    paths = ["--data", str(data), "--model", str(model_dir), "--out", str(out)]
    return submission_run.main([*paths, "--layout", "1x2x12", *arguments])


def submit_validation(data: Path, model_dir: Path, out: Path) -> None:
    """Submit the soundscapes of a competition's validation folder, in a plain pass."""
    soundscapes = data / "validation" / "soundscapes"
    arguments = ["--soundscapes", str(soundscapes), "--max-passes", "1"]
    assert submit(data, model_dir, out, *arguments) == 0


def block_imports(folder: Path, names: Sequence[str]) -> Path:
    """A folder for PYTHONPATH that makes packages of these names fail to import."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {tuple(names)}:\n"
        "            raise ImportError(f'{name} is not to be imported here')\n"
        "sys.meta_path.insert(0, Block())\n"
    )
    return folder


@pytest.fixture
def contract() -> Contract:
    return Contract(32000, 5.0, 5.0, ("a", "b", "1234"))


def tiny_recipe(*overrides: str) -> Recipe:
    return recipe.load("demo", [*TINY, *overrides])


def tiny_job(*overrides: str) -> Job:
    """The job of the one model in round 0."""
    return job_of(tiny_recipe(*overrides), 0, "test_resnet")


def tiny_predictor(contract: Contract, *overrides: str) -> Predictor:
    torch.manual_seed(0)
    job = tiny_job(*overrides)
    return Predictor(job.frontend, job.model, contract)


def write_sound(path: Path, seconds: float, rate: int = 32000, channels: int = 1) -> Path:
    """A noisy tone, in the format that the suffix says."""
    rng = np.random.default_rng(len(path.name))
    t = np.arange(round(seconds * rate)) / rate
    tone = 0.3 * np.sin(2 * np.pi * 3000 * t) + 0.05 * rng.standard_normal(t.size)
    path.parent.mkdir(parents=True, exist_ok=True)
    with soundfile.SoundFile(path, "w", rate, channels) as file:
        # By seconds: libsndfile's Vorbis encoder overruns its stack on long buffers.
        for start in range(0, tone.size, rate):
            file.write(np.repeat(tone[start : start + rate, None], channels, axis=1))
    return path
