"""Each rule of the preflight is broken once, and named with its remedy."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from birdkit.errors import UserError
from birdkit.kaggle import manifest
from export.kaggle import rules
from tests.export.kaggle.fake_kit import CELL, PINS, WHEELS, make_bundle, make_wheel, notebook

LONG = "a" * 51


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("preflight"))


@pytest.fixture
def bundle(clean: Path, tmp_path: Path) -> Any:
    shutil.copytree(clean, tmp_path / "bundle")
    return tmp_path / "bundle"


def edit(path: Path, **changes: Any) -> None:
    """Change a JSON file's values; None removes one."""
    facts = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in facts.items() if value is not None}))


def violations(bundle: Any, pushing: bool = True) -> list[str]:
    return rules.violations(bundle, PINS, pushing)


def test_a_clean_bundle_has_no_violations(bundle: Any) -> None:
    assert violations(bundle) == []


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"id": "ann-bird/short"}, "slug 'short' must have 6 to 50 characters"),
        ({"id": f"ann-bird/{LONG}"}, "must have 6 to 50 characters"),
        ({"id": "ann-bird/BirdCLEF-kit"}, "lower-case letters and digits"),
        ({"id": "ann-bird/birdclef--kit"}, "single hyphens"),
        ({"id": "birdclef-kit"}, "must be owner/slug"),
        ({"id": "Ann Bird/birdclef-kit"}, "must be owner/slug"),
        ({"id": None}, "must be owner/slug"),
        ({"title": "short"}, "title 'short' must have 6 to 50 characters"),
        ({"title": LONG}, "must have 6 to 50 characters"),
        ({"title": None}, "title None must have 6 to 50 characters"),
        ({"subtitle": "too short"}, "subtitle 'too short' must have 20 to 80 characters"),
        ({"licenses": []}, "licenses must name exactly one"),
        ({"licenses": [{"name": "other"}, {"name": "CC0-1.0"}]}, "licenses must name exactly one"),
        ({"licenses": [{}]}, "licenses must name exactly one"),
        ({"licenses": "other"}, "licenses must name exactly one"),
        ({"licenses": ["other"]}, "licenses must name exactly one"),
        ({"licenses": None}, "licenses must name exactly one"),
        ({"resources": [{"path": "gone.csv"}]}, "gone.csv is not in the bundle"),
        ({"resources": [{"path": "run.py"}] * 2}, "run.py is listed 2 times"),
        ({"resources": ["run.py"]}, "None is not in the bundle"),
    ],
)
def test_the_datasets_metadata(bundle: Any, changes: Any, expected: Any) -> None:
    edit(bundle / "dataset" / "dataset-metadata.json", **changes)
    found = [line for line in violations(bundle) if "dataset_sources" not in line]
    assert any(expected in line for line in found), found
    assert all(line.startswith("kaggle_dataset_meta.json: ") for line in found)


@pytest.mark.parametrize(
    "changes, expected",
    [
        (
            {"title": "Another title"},
            "has slug 'another-title', id has 'birdclef-kit-submission'",
        ),
        ({"title": "Vögel, submitted"}, "may have ASCII letters"),
        ({"title": "bird"}, "must have 5 to 50 characters"),
        ({"id": "ann-bird/bird", "title": "bird."}, "must have 5 to 50 characters"),
        ({"id": "birdclef-kit-submission"}, "must be owner/slug"),
        ({"enable_internet": None}, "enable_internet is None; it must be False"),
        ({"enable_internet": True}, "enable_internet is True; it must be False"),
        ({"enable_internet": 0}, "enable_internet is 0; it must be False"),
        ({"enable_gpu": True}, "enable_gpu is True"),
        ({"enable_tpu": True}, "enable_tpu is True"),
        ({"is_private": False}, "is_private is False; it must be True"),
        ({"language": "r"}, "language is 'r'"),
        ({"kernel_type": "script"}, "kernel_type is 'script'"),
        ({"dataset_sources": ["bob/other-kit"]}, "it must be ['ann-bird/birdclef-kit']"),
        ({"kernel_sources": ["a/b"]}, "kernel_sources is ['a/b']"),
        ({"model_sources": ["a/b"]}, "model_sources is ['a/b']"),
        ({"competition_sources": ["https://www.kaggle.com/competitions/x"]}, "is no slug"),
        ({"code_file": "gone.ipynb"}, "code_file gone.ipynb is not in kernel/"),
    ],
)
def test_the_kernels_metadata(bundle: Any, changes: Any, expected: Any) -> None:
    edit(bundle / "kernel" / "kernel-metadata.json", **changes)
    found = violations(bundle)
    assert any(expected in line for line in found), found
    assert all(line.startswith("kernel-metadata.json: ") for line in found)


def test_owner_and_competition_may_be_missing_until_it_is_pushed(bundle: Any) -> None:
    edit(bundle / "dataset" / "dataset-metadata.json", id="OWNER/birdclef-kit")
    changes = {"dataset_sources": ["OWNER/birdclef-kit"], "competition_sources": []}
    edit(bundle / "kernel" / "kernel-metadata.json", id="OWNER/birdclef-kit-submission", **changes)
    assert violations(bundle, pushing=False) == []
    found = violations(bundle, pushing=True)
    assert ["give --owner NAME" in line for line in found] == [True, False]
    assert ["give --competition SLUG" in line for line in found] == [False, True]


def test_metadata_that_is_no_json_is_a_mistake(bundle: Any) -> None:
    (bundle / "kernel" / "kernel-metadata.json").write_text("{")
    with pytest.raises(UserError, match=r"kernel-metadata.json: can't be read as JSON"):
        violations(bundle)


@pytest.mark.parametrize(
    "name, expected",
    [
        ("model/b3@2.onnx", "'@' in a file name breaks Kaggle's upload; rename it"),
        ("model/b3 (copy).onnx", "a name may have ASCII letters"),
        ("model/größe.json", "a name may have ASCII letters"),
        ("model/old.zip", "Kaggle unpacks archives"),
        ("model/old.tar.GZ", "Kaggle unpacks archives"),
        ("datapackage.json", "drops it without a word"),
        ("kernel-metadata.json", "drops it without a word"),
        ("model/.cache/x.json", "model/.cache: Kaggle's command line drops it"),
        ("wheels/numpy-2.4.6-cp312-cp312-manylinux_2_28_x86_64.whl", "never numpy: remove it"),
        (
            "wheels/openvino_telemetry-2026.0.0-py3-none-any.whl",
            "only wheels of onnxruntime and openvino",
        ),
        ("wheels/notes.txt", "only wheels of onnxruntime and openvino"),
    ],
)
def test_a_file_that_must_not_be_there(bundle: Any, name: str, expected: Any) -> None:
    path = bundle / "dataset" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("")
    manifest.write(bundle / "dataset")
    (found,) = violations(bundle)
    assert expected in found


@pytest.mark.parametrize(
    "name, expected",
    [
        ("model/ensemble.json", "model/ensemble.json: not found; run export/to_onnx.py"),
        (
            "model/fused.onnx",
            "model/fused.onnx: missing, though ensemble.json needs it; run export/to_onnx",
        ),
        ("model/fused.xml", "run export/to_openvino.py again"),
        ("model/fused.bin", "run export/to_openvino.py again"),
        ("model/fused.int8.xml", "model/fused.int8.xml: missing"),
        ("model/fused.int8.bin", "model/fused.int8.bin: missing"),
        (
            "model/golden.json",
            "model/golden.json: no answers of fused in bf16, f32, int8, so no engine",
        ),
        ("run.py", "run.py: missing in submission/"),
        ("requirements.txt", "requirements.txt: missing in submission/"),
        ("birdkit/__init__.py", "birdkit/__init__.py: missing in submission/"),
        *((f"wheels/{name}", "none of") for name in WHEELS),
    ],
)
def test_a_file_that_is_missing(bundle: Any, name: str, expected: Any) -> None:
    (bundle / "dataset" / name).unlink()
    manifest.write(bundle / "dataset")
    (found,) = violations(bundle)
    assert expected in found


def test_a_missing_wheel_is_named_with_package_python_and_remedy(bundle: Any) -> None:
    (bundle / "dataset" / "wheels" / WHEELS[1]).unlink()
    manifest.write(bundle / "dataset")
    (found,) = violations(bundle)
    assert found.startswith(
        "wheels: none of onnxruntime 1.32.0 for Python 3.13 on manylinux_2_28_x86_64;"
    )
    assert "leave --wheels away to download it" in found


def test_a_wheel_that_was_cut_short(bundle: Any) -> None:
    path = make_wheel(bundle / "dataset" / "wheels" / WHEELS[0])
    path.write_bytes(path.read_bytes()[:-1])
    manifest.write(bundle / "dataset")
    (found,) = violations(bundle)
    assert found.startswith(f"wheels/{WHEELS[0]}: cut short or damaged")


def test_a_file_dated_before_1980(bundle: Any) -> None:
    """West of Greenwich the second of January in UTC is still the first, which zip can hold."""
    second_of_january = 315_619_200
    os.utime(bundle / "dataset" / "run.py", (0, second_of_january))
    assert violations(bundle) == []
    os.utime(bundle / "dataset" / "run.py", (0, second_of_january - 1))
    (found,) = violations(bundle)
    assert found.startswith("run.py: dated before 1980")


def test_a_file_that_differs_from_the_manifest_and_no_manifest(bundle: Any) -> None:
    (bundle / "dataset" / "run.py").write_text("print('other')")
    (found,) = violations(bundle)
    assert found.startswith("run.py: was altered")
    (bundle / "dataset" / manifest.NAME).unlink()
    (found,) = violations(bundle)
    assert found.startswith(f"{manifest.NAME}: missing")


def test_the_size_limit(bundle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "LIMIT_BYTES", rules.total_bytes(bundle / "dataset"))
    assert violations(bundle) == []
    monkeypatch.setattr(rules, "LIMIT_BYTES", rules.LIMIT_BYTES - 1)
    (found,) = violations(bundle)
    assert "take what is no model out of the model folder" in found


@pytest.mark.parametrize(
    "sources, expected",
    [
        (["import run"], f"looks for no {manifest.NAME}"),
        ([CELL, "!python run.py"], "code cell 2: a shell line's failure is not the notebook's"),
        ([CELL, "%%bash\npython run.py"], "code cell 2: a shell line's failure"),
        ([CELL + '\ninputs.rglob("*")'], "code cell 1: walking through all inputs has taken 90 s"),
        ([CELL, "for _ in os.walk(inputs): ..."], "code cell 2: walking through all inputs"),
    ],
)
def test_the_notebook(bundle: Any, sources: list[str], expected: Any) -> None:
    (bundle / "kernel" / "notebook.ipynb").write_text(json.dumps(notebook(*sources)))
    (found,) = violations(bundle)
    assert expected in found
