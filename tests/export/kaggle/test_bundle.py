"""What is uploaded: the same bytes from the same sources, and nothing that the preflight refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from birdkit.contract import Contract
from birdkit.engines import golden
from birdkit.errors import UserError
from birdkit.kaggle import manifest
from birdkit.outside.card import card_of
from birdkit.outside.labels import ClassMap
from birdkit.outside.member import Membership
from birdkit.outside.presets import perch_v2
from birdkit.scoring.ensemble import Spec
from export import bundle
from export.kaggle import wheels
from tests.conftest import ROOT
from tests.export.kaggle.fake_kit import (
    PINS,
    WHEELS,
    make_bundle,
    make_checkout,
    make_model,
    make_wheel,
)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = make_checkout(tmp_path / "checkout")
    monkeypatch.setattr(bundle, "ROOT", root)
    return root


@pytest.fixture
def run_bundle(checkout: Path) -> Any:
    """Run the command on the fake checkout, offline; the folder that it wrote."""

    def command(*arguments: str, out: str = "out") -> Any:
        paths = [
            "--model",
            str(checkout / "submission" / "model"),
            "--wheels",
            str(checkout / "wheels"),
        ]
        assert bundle.main([*paths, "--out", str(checkout / out), *arguments]) == 0
        return checkout / out

    return command


def snapshot(folder: Path) -> dict[str, Any]:
    """Path → bytes, mode and date of everything below a folder."""
    stats = {path: path.stat() for path in sorted(folder.rglob("*"))}
    return {
        str(path.relative_to(folder)): (
            path.read_bytes() if path.is_file() else None,
            stat.st_mode,
            stat.st_mtime_ns,
        )
        for path, stat in stats.items()
    }


def test_the_dataset_holds_kit_models_wheels_and_manifest_and_the_kernel_its_notebook(
    run_bundle: Any,
) -> None:
    out = run_bundle()
    listed = manifest.paths(out / "dataset")
    kit = {"run.py", "requirements.txt", "birdkit/__init__.py", "birdkit/contract.py"}
    model = {f"fused{x}" for x in (".onnx", ".xml", ".bin", ".int8.xml", ".int8.bin")}
    model |= {"ensemble.json", "golden.json"}
    assert set(listed) == kit | {f"model/{x}" for x in model} | {f"wheels/{x}" for x in WHEELS}
    assert manifest.problems(out / "dataset") == []
    assert sorted(p.name for p in (out / "kernel").iterdir()) == [
        "kernel-metadata.json",
        "notebook.ipynb",
    ]


def test_the_model_is_looked_for_before_wheels_are_fetched(
    checkout: Path, run_bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (checkout / "submission" / "model" / "ensemble.json").unlink()
    monkeypatch.setattr(wheels, "gather", lambda *_, **__: pytest.fail("fetched wheels"))
    with pytest.raises(UserError, match=r"ensemble\.json: not found; run export/to_onnx\.py"):
        run_bundle()


def test_two_builds_are_the_same_to_the_byte_mode_and_date(run_bundle: Any, checkout: Path) -> None:
    one = snapshot(run_bundle(out="one"))
    for path in checkout.joinpath("submission").rglob("*"):
        os.utime(path, (time.time(), time.time()))
        path.chmod(0o777)
    assert snapshot(run_bundle(out="two")) == one


def test_another_build_replaces_the_last_one_as_a_whole(checkout: Path, run_bundle: Any) -> None:
    out = run_bundle()
    (checkout / "submission" / "birdkit" / "contract.py").unlink()
    assert run_bundle() == out
    assert not (out / "dataset" / "birdkit" / "contract.py").exists()
    assert [path.name for path in out.parent.glob(".bundle-*")] == []


@pytest.mark.parametrize("place", ["", "dataset", "dataset/model", "kernel"])
def test_a_persons_own_file_in_a_bundle_is_not_deleted(place: str, run_bundle: Any) -> None:
    out = run_bundle()
    own = out / place / "notes.txt"
    own.write_text("mine")
    with pytest.raises(UserError, match=r"notes\.txt is no part of a bundle; move it"):
        run_bundle()
    assert own.read_text() == "mine"


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_link_out_of_the_model_folder_is_not_followed(
    kind: str, checkout: Path, run_bundle: Any, tmp_path: Path
) -> None:
    private = tmp_path / "private"
    private.mkdir()
    (private / "key.json").write_text("secret")
    target = private if kind == "folder" else private / "key.json"
    (checkout / "submission" / "model" / "key.json").symlink_to(target)
    with pytest.raises(UserError, match=r"key\.json: is a link out of .*; put the file itself there"):
        run_bundle()
    assert not (checkout / "out").exists()


def test_a_model_folder_that_is_a_link_is_bundled(checkout: Path, run_bundle: Any) -> None:
    model = checkout / "submission" / "model"
    model.rename(checkout / "elsewhere")
    model.symlink_to(checkout / "elsewhere")
    assert (run_bundle() / "dataset" / "model" / "fused.onnx").is_file()


def test_owner_and_competition_are_put_in(run_bundle: Any) -> None:
    out = run_bundle("--owner", "bob", "--competition", "birdclef-2026")
    dataset = json.loads((out / "dataset" / "dataset-metadata.json").read_text())
    kernel = json.loads((out / "kernel" / "kernel-metadata.json").read_text())
    assert dataset["id"] == "bob/birdclef-kit"
    assert kernel["id"] == "bob/birdclef-kit-submission"
    assert kernel["title"] == "BirdCLEF kit submission"
    assert kernel["dataset_sources"] == ["bob/birdclef-kit"]
    assert kernel["competition_sources"] == ["birdclef-2026"]
    assert kernel["enable_internet"] is False


def test_without_owner_and_competition_it_builds_and_says_what_a_push_needs(
    checkout: Path, run_bundle: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    template = checkout / "kaggle_dataset_meta.json"
    template.write_text(template.read_text().replace("ann-bird", "OWNER"))
    run_bundle()
    printed = capsys.readouterr().out
    assert "to push it, give --owner NAME and --competition SLUG" in printed
    assert "15 files, 0 of at most 2000 MB; OWNER/birdclef-kit" in printed
    with pytest.raises(UserError, match="2 violations"):
        run_bundle("--push", out="never")
    errors = capsys.readouterr().err
    assert "give --owner NAME" in errors
    assert "give --competition SLUG" in errors
    assert not (checkout / "never").exists()


def test_every_violation_is_printed_and_the_last_bundle_stays(
    checkout: Path, run_bundle: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    out = run_bundle()
    before = snapshot(out)
    (checkout / "submission" / "model" / "fused.bin").unlink()
    (checkout / "wheels" / WHEELS[3]).unlink()
    with pytest.raises(
        UserError, match="2 violations of Kaggle's rules, see above; nothing was written"
    ):
        run_bundle()
    errors = capsys.readouterr().err
    assert "model/fused.bin: missing" in errors
    assert "none of openvino 2026.4.1 for Python 3.13" in errors
    assert snapshot(out) == before


def test_a_folder_that_is_no_bundle_is_not_replaced(checkout: Path, run_bundle: Any) -> None:
    (checkout / "out").mkdir()
    (checkout / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"not a bundle, so it is not replaced; give another --out"):
        run_bundle()
    assert (checkout / "out" / "thesis.tex").read_text() == "years of work"


def test_an_engine_that_is_not_pinned_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"
    path.write_text("numpy==2.4.6\nonnxruntime==1.32.0  # one\nopenvino>=2026\n")
    with pytest.raises(UserError, match="pin openvino there"):
        wheels.pinned(path)
    path.write_text("onnxruntime==1.32.0\nOpenVINO==2026.4.1\n-r other.txt\n")
    assert wheels.pinned(path) == PINS


@pytest.mark.parametrize(
    "name",
    [
        "openvino-2026.4.1-21234-cp311-cp311-manylinux_2_28_x86_64.whl",
        "openvino-2026.4.0-21234-cp312-cp312-manylinux_2_28_x86_64.whl",
        "openvino-2026.4.1-21234-cp312-cp312-manylinux_2_28_aarch64.whl",
        "openvino-2026.4.1-21234-cp312-cp312-manylinux_2_34_x86_64.whl",
        "openvino-2026.4.1-21234-cp312-cp312-win_amd64.whl",
        "openvino-2026.4.1-21234-cp313-cp313t-manylinux_2_28_x86_64.whl",
        "openvino_telemetry-2026.4.1-py3-none-any.whl",
        "openvino-2026.4.1.whl",
    ],
)
def test_a_wheel_of_another_python_version_platform_or_project_is_not_taken(
    name: str, tmp_path: Path
) -> None:
    make_wheel(tmp_path / name)
    found = [wheels.find(tmp_path, "openvino", PINS["openvino"], python) for python in wheels.PYTHONS]
    assert found == [None, None]


def test_of_several_builds_the_latest_is_taken(tmp_path: Path) -> None:
    for build in (9, 21234, 300):
        make_wheel(tmp_path / f"openvino-2026.4.1-{build}-cp312-cp312-manylinux_2_28_x86_64.whl")
    wheel = wheels.find(tmp_path, "openvino", PINS["openvino"], (3, 12))
    assert wheel is not None
    assert "-21234-" in wheel.name


def test_only_missing_wheels_are_downloaded(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def pip(command: Any, check: Any) -> None:
        assert check
        asked.append(command)
        make_wheel(checkout / "wheels" / WHEELS[0])

    (checkout / "wheels" / WHEELS[0]).unlink()
    monkeypatch.setattr(subprocess, "run", pip)
    found = wheels.gather(checkout / "wheels", PINS, download_missing=True)
    assert [path.name for path in found] == list(WHEELS)
    (command,) = asked
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:", "3.12", "manylinux_2_28_x86_64"} <= set(command)
    assert command[-1] == "onnxruntime==1.32.0"


def test_a_download_that_fails_names_package_python_and_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        wheels, "pip_download", lambda *_: [sys.executable, "-c", "raise SystemExit(1)"]
    )
    with pytest.raises(UserError, match=r"onnxruntime 1.32.0 for Python 3.12: .* with --wheels DIR"):
        wheels.gather(tmp_path / "none", PINS, download_missing=True)


def test_the_repositorys_own_kit_passes_the_preflight(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pins = wheels.pinned(ROOT / "submission" / "requirements.txt")
    for engine, version, (major, minor) in wheels.needed(pins):
        tag = f"cp{major}{minor}"
        name = f"{engine}-{version}-{tag}-{tag}-manylinux_2_28_x86_64.whl"
        make_wheel(tmp_path / "wheels" / name)
    make_model(tmp_path / "model")
    places = ["--model", str(tmp_path / "model"), "--wheels", str(tmp_path / "wheels")]
    assert bundle.main(["--out", str(tmp_path / "out"), *places]) == 0
    assert "OWNER/birdclef-kit" in capsys.readouterr().out


def test_a_bundle_made_from_parts_equals_the_commands(tmp_path: Path, run_bundle: Any) -> None:
    assert snapshot(make_bundle(tmp_path / "parts")) == snapshot(
        run_bundle("--competition", "birdclef-2026")
    )


@pytest.mark.parametrize("status", [0, 3])
def test_the_notebook_raises_nothing_where_a_complete_table_was_written(
    status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 3 is a first pass cut short; an exception of the notebook would lose its table."""
    kit = tmp_path / "input" / "kit"
    kit.mkdir(parents=True)
    (kit / manifest.NAME).touch()
    (tmp_path / "working").mkdir()
    (kit / "run.py").write_text(
        "from pathlib import Path\n"
        f"def main(argv):\n    Path(argv[1]).write_text('row_id,a\\ns_5,0.5\\n')\n    return {status}\n"
    )
    monkeypatch.setenv("BIRDKIT_KAGGLE_ROOT", str(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "run", raising=False)
    cells = json.loads((ROOT / "submission" / "notebook.ipynb").read_text())["cells"]
    names: dict[str, Any] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    monkeypatch.delitem(sys.modules, "run")
    assert ("exit status 3" in capsys.readouterr().out) == (status == 3)


def add_outside(checkout: Path, licence: str) -> None:
    """Give the fake model a TFLite member from outside."""
    folder = checkout / "submission" / "model"
    spec = Spec.load(folder)
    replace(spec, members=spec.members | {"bird": 1.0}, soft=("bird",)).save(folder)
    card = replace(perch_v2(("Parus major",)), kind="tflite", licence=licence)
    classes = ClassMap(("a",), ((0,),), {})
    member = Membership(card, classes, Contract(32_000, 5.0, 5.0, ("a",)))
    member.save(card_of(folder, "bird"))
    (folder / "bird.tflite").write_bytes(b"weights")
    answers = json.loads((folder / golden.NAME).read_text())
    (folder / golden.NAME).write_text(json.dumps(answers | {"bird": {"f32": {}}}))
    for abi in ("cp312", "cp313"):
        make_wheel(checkout / "wheels" / f"ai_edge_litert-2.3.0-{abi}-{abi}-manylinux_2_27_x86_64.whl")
    (checkout / "requirements-outside.txt").write_text("ai-edge-litert==2.3.0\n")


def test_a_licence_that_limits_use_is_refused_unless_accepted(checkout: Path, run_bundle: Any) -> None:
    add_outside(checkout, "CC BY-NC-SA 4.0")
    with pytest.raises(UserError, match=r"licence CC BY-NC-SA 4\.0; .*--accept-licence"):
        run_bundle()
    out = run_bundle("--accept-licence")
    listed = manifest.paths(out / "dataset")
    assert {"model/bird.tflite", "model/bird.outside.json"} <= set(listed)
    assert sum(name.startswith("wheels/ai_edge_litert") for name in listed) == 2


def test_a_free_member_from_outside_is_bundled_and_one_without_its_file_is_refused(
    checkout: Path, run_bundle: Any
) -> None:
    add_outside(checkout, "Apache-2.0")
    run_bundle()
    (checkout / "submission" / "model" / "bird.tflite").unlink()
    with pytest.raises(UserError, match=r"model/bird\.tflite: missing"):
        run_bundle()
