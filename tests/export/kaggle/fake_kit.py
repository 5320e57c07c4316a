"""A checkout to bundle in seconds, without a network: a kit, a model folder, wheels by name only."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from packaging.version import Version

from birdkit.engines import golden
from birdkit.kaggle import manifest
from birdkit.scoring.ensemble import Spec
from export.kaggle import bundle, wheels

PINS = {"onnxruntime": Version("1.32.0"), "openvino": Version("2026.4.1")}
WHEELS = (
    "onnxruntime-1.32.0-cp312-cp312-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
    "onnxruntime-1.32.0-cp313-cp313-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
    "openvino-2026.4.1-21234-cp312-cp312-manylinux_2_28_x86_64.whl",
    "openvino-2026.4.1-21234-cp313-cp313-manylinux2014_x86_64.whl",
)
METADATA = {"id": "ann-bird/birdclef-kit", "title": "BirdCLEF kit", "licenses": [{"name": "other"}]}
CELL = f'kit = next(inputs.glob("*/{manifest.NAME}")).parent\nimport run\nrun.main([])'


def make_checkout(root: Path) -> Path:
    """The files of a checkout that a bundle is made from."""
    files = {
        "kaggle_dataset_meta.json": json.dumps(METADATA),
        "submission/run.py": "def main(argv): ...\n",
        "submission/requirements.txt": "".join(f"{name}=={pin}\n" for name, pin in PINS.items()),
        "submission/birdkit/__init__.py": '"""Fake."""\n',
        "submission/birdkit/contract.py": "X = 1\n",
        "submission/birdkit/__pycache__/contract.cpython-312.pyc": "cache",
        "submission/notebook.ipynb": json.dumps(notebook(CELL)),
    }
    for path, text in files.items():
        write(root / path, text)
    make_model(root / "submission" / "model")
    for name in WHEELS:
        make_wheel(root / "wheels" / name)
    return root


def make_model(folder: Path) -> Path:
    """Two members in one fused file, and one lower precision stored as files of its own."""
    folder.mkdir(parents=True)
    Spec({"b3": 0.6, "v2_b3": 0.4}, files={"fused": ["b3", "v2_b3"]}, precisions=("bf16", "int8")).save(
        folder
    )
    for suffix in (".onnx", ".xml", ".bin", ".int8.xml", ".int8.bin"):
        write(folder / f"fused{suffix}", f"fused{suffix}")
    answers: dict[str, dict[str, object]] = {
        "fused": {precision: {} for precision in ("f32", "bf16", "int8")}
    }
    write(folder / golden.NAME, json.dumps(answers))
    return folder


def make_wheel(path: Path) -> Path:
    """An archive without content: its name is what counts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    zipfile.ZipFile(path, "w").close()
    return path


def notebook(*sources: str) -> dict[str, object]:
    cells = [
        {"cell_type": "code", "source": source.splitlines(keepends=True), "metadata": {}, "outputs": []}
        for source in sources
    ]
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def make_bundle(root: Path, competition: str | None = "birdclef-2026") -> Path:
    """A bundle of a fresh checkout, with nothing to complain of."""
    checkout = make_checkout(root / "checkout")
    gathered = wheels.gather(checkout / "wheels", PINS, download_missing=False)
    submission = checkout / "submission"
    sources = bundle.Sources(submission, submission / "model", gathered, dict(METADATA), competition)
    bundle.build(root / "bundle", sources)
    return root / "bundle"
