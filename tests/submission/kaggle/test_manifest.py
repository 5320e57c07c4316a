"""A kit that differs from its manifest is named by file; a checkout without one is left alone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from birdkit.kaggle import manifest


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    """A folder of four files, with its manifest."""
    root = tmp_path / "kit"
    for path in ("run.py", "birdkit/audio.py", "model/a.onnx", "model/deep/b.bin"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())
    manifest.write(root)
    return root


def test_it_lists_sha256_and_size_of_each_file_sorted_and_not_itself(kit: Path) -> None:
    files = json.loads((kit / manifest.NAME).read_text())["files"]
    assert list(files) == ["birdkit/audio.py", "model/a.onnx", "model/deep/b.bin", "run.py"]
    assert files["run.py"] == {"sha256": hashlib.sha256(b"run.py").hexdigest(), "size": 6}


def test_the_same_files_give_the_same_manifest_whatever_their_order_and_dates(
    kit: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    for path in reversed(manifest.paths(kit)):
        (other / path).parent.mkdir(parents=True, exist_ok=True)
        (other / path).write_bytes((kit / path).read_bytes())
    manifest.write(other)
    assert (other / manifest.NAME).read_bytes() == (kit / manifest.NAME).read_bytes()


def test_an_untouched_kit_has_no_problems_wherever_it_lies(kit: Path, tmp_path: Path) -> None:
    assert manifest.problems(kit) == []
    link = tmp_path / "mounted"
    link.symlink_to(kit)
    assert manifest.problems(link) == []


def test_caches_and_kaggles_own_metadata_do_not_count(kit: Path) -> None:
    cache = kit / "birdkit" / "__pycache__" / "audio.cpython-312.pyc"
    cache.parent.mkdir()
    for path in (cache, kit / "stray.pyc", kit / "dataset-metadata.json"):
        path.write_bytes(b"x")
    assert manifest.problems(kit) == []


def test_a_folder_without_a_manifest_is_not_judged(kit: Path) -> None:
    (kit / manifest.NAME).unlink()
    assert manifest.problems(kit) is None
    assert manifest.faults(kit) is None


def test_each_altered_missing_and_extra_file_is_named_on_a_line_of_its_own(kit: Path) -> None:
    (kit / "run.py").write_bytes(b"run.PY")  # of the same size
    (kit / "birdkit" / "audio.py").write_bytes(b"shorter")
    (kit / "model" / "a.onnx").unlink()
    (kit / "model" / "extra.bin").write_bytes(b"")
    problems, faults = manifest.problems(kit), manifest.faults(kit)
    assert problems == [
        "birdkit/audio.py: was altered: 7 bytes, not 16",
        "model/a.onnx: is missing",
        "model/extra.bin: is not in the manifest",
        "run.py: was altered: its sha256 differs",
    ]
    assert faults is not None
    assert set(faults) == {line.partition(":")[0] for line in problems}


def test_a_folder_in_the_place_of_a_file_is_a_missing_file(kit: Path) -> None:
    (kit / "run.py").unlink()
    (kit / "run.py").mkdir()
    assert manifest.problems(kit) == ["run.py: is missing"]


@pytest.mark.parametrize(
    "path", ["../secret", "model/../../secret", "/etc/hostname", "./run.py", "", ".."]
)
def test_a_path_that_leaves_the_folder_or_has_a_second_form_is_not_followed(
    kit: Path, path: str
) -> None:
    (kit.parent / "secret").write_bytes(b"secret")
    listed = manifest.build(kit)
    listed["files"][path] = {"sha256": hashlib.sha256(b"secret").hexdigest(), "size": 6}
    (kit / manifest.NAME).write_text(json.dumps(listed))
    assert manifest.problems(kit) == [
        f"{path}: is no plain path below the folder, and was not followed"
    ]


ENTRY = {"sha256": "0" * 64, "size": 1}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"version": 1, "files": []}',
        b'{"version": 2, "files": {}}',
        b'{"version": 1, "files": {"run.py": 3}}',
        json.dumps({"version": 1, "files": {"run.py": ENTRY | {"size": "1"}}}).encode(),
        json.dumps({"version": 1, "files": {"run.py": ENTRY | {"sha256": "?"}}}).encode(),
    ],
)
def test_a_manifest_that_cannot_be_read_is_a_problem_and_no_exception(
    kit: Path, content: bytes
) -> None:
    (kit / manifest.NAME).write_bytes(content)
    (problem,) = manifest.problems(kit) or []
    assert problem.startswith(f"{manifest.NAME}: can't be read (")
    assert "\n" not in problem


def test_a_folder_in_the_place_of_the_manifest_is_a_problem(kit: Path) -> None:
    (kit / manifest.NAME).unlink()
    (kit / manifest.NAME).mkdir()
    (problem,) = manifest.problems(kit) or []
    assert problem.startswith(f"{manifest.NAME}: can't be read (")
