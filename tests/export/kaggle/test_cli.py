"""Kaggle's command line exits 0 on failures that it only prints: its lines decide."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from birdkit.errors import UserError
from birdkit.kaggle import manifest
from export.kaggle import cli, rules
from export.kaggle.cli import Said, complaints, demand
from export.kaggle.training import bundle as training_bundle
from export.kaggle.training import fetch, output
from export.kaggle.training.settings import RUN
from tests.conftest import ROOT
from tests.export.kaggle.fake_kit import make_bundle
from tests.export.kaggle.test_training import NOTEBOOK, make_run, sources

pytestmark = pytest.mark.slow

SPEC = importlib.util.find_spec("kaggle")
PACKAGES = list(SPEC.submodule_search_locations or []) if SPEC else []
needs_kaggle = pytest.mark.skipif(
    not PACKAGES,
    reason="the official kaggle package is not installed: pip install -r requirements.txt",
)
# Lines that report no failure, or whose command exits 1.
HARMLESS = {
    "Your private Dataset is being created. Please check progress at ",
    "Your public Dataset is being created. Please check progress at ",
    "Dataset version is being created. Please check progress at ",
    "Kernel version %s successfully %s.  %s %s",
    "Kernel version successfully %s.  %s %s",
    "Kernel version %s successfully pushed.  Please check progress at %s",
    "Kernel version successfully pushed.  Please check progress at %s",
    "Starting upload for file ",
    "Upload successful: ",
    " (",
    ")",
}
PRINTERS = (
    *("dataset_create_new_cli", "dataset_create_version_cli", "kernels_push_cli", "kernels_push"),
    *("upload_files", "_upload_file_or_folder", "_upload_file"),
)


@pytest.fixture
def source() -> ast.Module:
    """The installed command line's syntax tree."""
    (folder,) = PACKAGES
    return ast.parse((Path(folder) / "api" / "kaggle_api_extended.py").read_text())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("built"))


@pytest.fixture
def offline(tmp_path: Path) -> Offline:
    """The real command line, against a Kaggle that is a folder."""
    folder = tmp_path / "kaggle"
    (folder / "upload").mkdir(parents=True)
    (folder / "kaggle.json").write_text(json.dumps({"version": 0, "words": []}))
    return Offline(folder)


class Offline:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls: list[str] = []

    def __call__(self, *arguments: str) -> Said:
        self.calls.append(" ".join(arguments[:2]))
        command = [
            sys.executable,
            str(ROOT / "tests" / "export" / "kaggle" / "offline_kaggle.py"),
            str(self.folder),
            *arguments,
        ]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return Said(done.returncode, done.stdout)

    @property
    def state(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "kaggle.json").read_text()))

    def let(self, **changes: Any) -> None:
        (self.folder / "kaggle.json").write_text(json.dumps(self.state | changes))

    def mount(self, to: Path) -> Path:
        """Unpack what was uploaded as Kaggle does: an archive becomes a folder of its name."""
        to.mkdir()
        for path in (self.folder / "upload").iterdir():
            if path.suffix == ".zip":
                zipfile.ZipFile(path).extractall(to / path.stem)
            else:
                shutil.copy(path, to)
        return to


def push(bundle: Any, run: cli.Run) -> str:
    return cli.push(bundle, run, sleep=lambda _: None)


def test_every_complaint_is_found_in_an_output_with_its_remedy() -> None:
    for text, remedy in cli.COMPLAINTS.items():
        (line,) = complaints(
            f"Starting upload for file x\r100%|##| 5/5\n{text}['a/b']\nKernel version 1"
        )
        assert line == f"{text}['a/b'] ({remedy})"


def test_an_output_without_failure_has_no_complaints() -> None:
    assert (
        complaints("Starting upload for file birdkit.zip\nUpload successful: birdkit.zip (3KB)\n") == []
    )
    assert complaints("Warning: Looks like you're using an outdated `kaggle` version") == []


def test_success_must_be_said_whatever_the_exit_status() -> None:
    good = Said(0, "Kernel version 3 successfully pushed.  Please check progress at https://x\n")
    assert demand(good, "kernels push", cli.PUSHED).startswith("Kernel version 3")
    with pytest.raises(UserError, match="no word of success; its last line: it printed nothing"):
        demand(Said(0, ""), "kernels push", cli.PUSHED)
    with pytest.raises(UserError, match="exit status 1: 403 Client Error"):
        demand(Said(1, "403 Client Error\n"), "kernels push", cli.PUSHED)
    with pytest.raises(UserError, match=r"not valid dataset sources .*\['a/b'\] \(check owner"):
        bad = "The following are not valid dataset sources and could not be added: ['a/b']\n"
        demand(Said(0, bad + good.output), "kernels push", cli.PUSHED)


def test_without_the_package_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install -r requirements.txt"):
        cli.run("--version")


@needs_kaggle
def test_the_installed_command_line_still_prints_the_texts_that_are_read(source: ast.Module) -> None:
    strings = [node.value for node in ast.walk(source) if isinstance(node, ast.Constant)]
    texts = [text for text in strings if isinstance(text, str)]
    installed = " ".join(Path(PACKAGES[0], "cli.py").read_text().split())
    for wanted in (
        *cli.COMPLAINTS,
        cli.CREATED,
        cli.VERSIONED,
        cli.NO_LOGIN,
        cli.DOWNLOADED,
    ):
        assert any(wanted in text for text in texts) or wanted in installed, wanted


@needs_kaggle
def test_the_installed_command_line_prints_nothing_else_that_could_be_a_failure(
    source: ast.Module,
) -> None:
    functions = {n.name: n for n in ast.walk(source) if isinstance(n, ast.FunctionDef)}
    for name in PRINTERS:
        for call in ast.walk(functions[name]):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "print":
                texts = [n.value for n in ast.walk(call) if isinstance(n, ast.Constant)]
                said = [text for text in texts if isinstance(text, str)]
                assert complaints("".join([*said, "x"])) or set(said) <= HARMLESS, (
                    f"{name} prints {said}"
                )


@needs_kaggle
def test_the_preflight_knows_what_the_installed_command_line_drops(source: ast.Module) -> None:
    names = {}
    for node in ast.walk(source):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            names[node.targets[0].id] = node.value
    wanted = ("OLD_DATASET", "KERNEL", "MODEL", "MODEL_INSTANCE")
    dropped = {ast.literal_eval(names[f"{name}_METADATA_FILE"]) for name in wanted}
    extensions = ast.literal_eval(names["DATASET_COVER_IMAGE_SUPPORTED_EXTENSIONS"])
    dropped |= {f"dataset-cover-image{extension}" for extension in extensions}
    assert dropped == set(rules.DROPPED_FILES)
    patterns = ast.literal_eval(names["DEFAULT_IGNORE_PATTERNS"])
    assert {pattern.strip("*/") for pattern in patterns} == set(rules.DROPPED_FOLDERS)


@needs_kaggle
@pytest.mark.parametrize(
    "title", ["BirdCLEF kit submission", "BirdCLEF+ 2026 (b3 + v2_b3)", "it's 1.5 - 2", "A--B  c."]
)
def test_a_titles_slug_is_kaggles(title: str) -> None:
    from slugify import slugify  # comes with kaggle

    assert rules.TITLE.fullmatch(title)
    assert rules.slugify(title) == slugify(title)


@needs_kaggle
def test_the_command_line_creates_our_dataset_and_what_is_mounted_equals_it(
    built: Path, offline: Offline, tmp_path: Path
) -> None:
    assert push(built, offline).startswith("Kernel version 1 successfully pushed.")
    assert offline.calls[:2] == ["datasets status", "datasets create"]
    assert offline.calls[-1] == "kernels push"
    mounted = offline.mount(tmp_path / "mounted")
    assert manifest.problems(mounted) == []
    assert manifest.paths(mounted) == manifest.paths(built / "dataset")
    assert not (mounted / "dataset-metadata.json").exists()
    request, kernel = offline.state["request"], offline.state["kernel"]
    assert request["isPrivate"] is True
    assert (request["ownerSlug"], request["slug"]) == ("ann-bird", "birdclef-kit")
    assert kernel["enableInternet"] is False
    assert kernel["datasetDataSources"] == ["ann-bird/birdclef-kit"]
    assert kernel["competitionDataSources"] == ["birdclef-2026"]


@needs_kaggle
def test_a_dataset_that_exists_gets_a_version_once_the_last_one_is_processed(
    built: Path, offline: Offline
) -> None:
    offline.let(version=4, words=["READY", "BLOBS_RECEIVED", "READY"])
    push(built, offline)
    asked = [call for call in offline.calls if call != "datasets status"]
    assert asked == ["datasets version", "kernels push"]
    assert offline.calls.index("datasets version") == 3
    assert offline.state["version"] == 5


@needs_kaggle
@pytest.mark.parametrize(
    "kaggle, expected",
    [
        ({"save_kernel": {"invalid_dataset_sources": ["a/b"]}}, "not valid dataset sources"),
        ({"save_kernel": {"invalid_competition_sources": ["x"]}}, "not valid competition sources"),
        ({"save_kernel": {"invalid_kernel_sources": ["x"]}}, "not valid kernel sources"),
        ({"save_kernel": {"invalid_tags": ["x"]}}, "not valid tags"),
        ({"save_kernel": {"error": "too many"}}, "Kernel push error: too many"),
        ({"dataset": {"status": "error", "error": "no space"}}, "Dataset creation error: no space"),
        ({"dataset": {"invalid_tags": ["x"]}}, "not valid tags"),
        (
            {"dataset": {"status": "error", "error": "busy"}, "version": 1},
            "version creation error: busy",
        ),
        ({"dataset": {"invalid_tags": ["x"]}, "version": 1}, "not valid tags"),
        ({"upload": "fails"}, "Upload unsuccessful: "),
        ({"then": ["FAILED"]}, "Kaggle says 'failed'"),
        ({"absent": 500}, "exit status 1"),
    ],
)
def test_each_failure_of_the_real_command_line_stops_a_push(
    built: Path, offline: Offline, kaggle: dict[str, Any], expected: Any
) -> None:
    offline.let(**({"words": ["READY"]} | kaggle))
    with pytest.raises(UserError) as caught:
        push(built, offline)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@needs_kaggle
def test_a_folder_that_is_skipped_for_want_of_dir_mode_is_a_failure(
    built: Path, offline: Offline
) -> None:
    said = offline("datasets", "create", "-p", str(built / "dataset"))
    assert said.status == 0  # why its lines must be read
    with pytest.raises(
        UserError, match=r"Skipping folder: \w+; use '--dir-mode' .*needs --dir-mode zip"
    ):
        demand(said, "datasets create", cli.CREATED)


@needs_kaggle
@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"id": "ann-bird/short"}, "The dataset slug must be between 6 and 50 characters"),
        ({"title": "short"}, "The dataset title must be between 6 and 50 characters"),
        ({"licenses": []}, "Please specify exactly one license"),
        ({"subtitle": "too short"}, "Subtitle length must be between 20 and 80 characters"),
        ({"resources": [{"path": "gone.csv"}]}, "gone.csv does not exist"),
        ({"resources": [{"path": "run.py"}] * 2}, "path was specified more than once"),
    ],
)
def test_what_kaggles_own_validation_refuses_the_preflight_names(
    built: Path, offline: Offline, tmp_path: Path, changes: Any, expected: Any
) -> None:
    folder = shutil.copytree(built / "dataset", tmp_path / "dataset")
    path = folder / "dataset-metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    said = offline("datasets", "create", "-p", str(folder), "--dir-mode", "zip")
    assert said.status == 1
    assert expected in said.output
    assert list(rules.dataset_metadata(json.loads(path.read_text()), folder, True)) != []


@needs_kaggle
def test_a_training_notebook_goes_on_from_itself_with_gpus_and_its_run_comes_back(
    offline: Offline, tmp_path: Path
) -> None:
    of = sources()
    with pytest.raises(UserError, match="no such notebook of yours"):
        fetch.fetch(NOTEBOOK, tmp_path / "back", offline)
    offline.let(ended="COMPLETE")
    assert cli.ended_version(NOTEBOOK, offline) == "COMPLETE"
    training_bundle.build(tmp_path / "bundle", of.going_on())
    assert push(tmp_path / "bundle", offline).startswith("Kernel version 1 successfully pushed.")
    kernel = offline.state["kernel"]
    assert kernel["kernelDataSources"] == [NOTEBOOK]
    assert (kernel["enableGpu"], kernel["machineShape"]) == (True, "NvidiaTeslaT4")
    mounted = offline.mount(tmp_path / "mounted")
    assert manifest.problems(mounted) == []
    run = make_run(offline.folder / "output" / RUN)
    output.leave(run, tmp_path, of.training)
    (offline.folder / "output" / "other.txt").touch()
    fetch.fetch(NOTEBOOK, tmp_path / "back", offline)
    assert manifest.paths(tmp_path / "back") == manifest.paths(run)
    offline.let(ended="RUNNING")
    with pytest.raises(UserError, match="running on Kaggle; wait until that version has ended"):
        fetch.fetch(NOTEBOOK, tmp_path / "back", offline)


@needs_kaggle
def test_without_a_login_it_says_how_to_log_in(
    built: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [name for name in os.environ if name.startswith("KAGGLE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))
    with pytest.raises(UserError, match=r"not logged in; run `.*kaggle auth login` once"):
        push(built, cli.run)
