"""The real kaggle command line against a Kaggle that is a folder, without network or account.

    python tests/export/kaggle/offline_kaggle.py FOLDER ARGUMENTS_OF_KAGGLE …

FOLDER/kaggle.json says what this Kaggle does; FOLDER/upload receives each uploaded file as sent, and
FOLDER/output is what the notebook left.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

FOLDER = Path(sys.argv.pop(1))
# An account that does not exist: importing kaggle logs in, and with these it calls nobody.
os.environ |= {"KAGGLE_USERNAME": "ann-bird", "KAGGLE_KEY": "0", "KAGGLE_CONFIG_DIR": str(FOLDER)}
os.environ |= {"HOME": str(FOLDER), "TMPDIR": str(FOLDER)}
os.environ.pop("KAGGLE_API_TOKEN", None)

# ruff: noqa: E402
import requests
from kaggle import cli
from kaggle.api.kaggle_api_extended import KaggleApi
from kaggle.models.kaggle_models_extended import ResumableUploadResult
from kagglesdk.blobs.types.blob_api_service import ApiStartBlobUploadResponse
from kagglesdk.datasets.types.dataset_api_service import ApiCreateDatasetResponse
from kagglesdk.kernels.types.kernels_api_service import ApiSaveKernelResponse
from kagglesdk.kernels.types.kernels_enums import KernelWorkerStatus

STATE = FOLDER / "kaggle.json"


def load() -> dict[str, Any]:
    return dict(json.loads(STATE.read_text()))


def save(**changes: object) -> None:
    STATE.write_text(json.dumps(load() | changes))


def answer(kind: type, values: dict[str, Any]) -> object:
    response = kind()
    for key, value in values.items():
        setattr(response, key, value)
    return response


def status(_request: object) -> object:
    """Each question after an upload brings it a step nearer to "ready"."""
    state = load()
    if not state["version"]:
        raise refusal(state.get("absent", 404))
    word, *later = state["words"]
    if later:
        save(words=later)
    return SimpleNamespace(status=SimpleNamespace(name=word))


def refusal(code: int) -> requests.HTTPError:
    response = requests.Response()
    response.status_code = code
    return requests.HTTPError(f"{code} Client Error: for url: x", response=response)


def ended(_request: object) -> object:
    """How the notebook's last version ended; Kaggle denies a notebook that is not there."""
    word = load().get("ended")
    if not word:
        raise refusal(403)
    return SimpleNamespace(status=KernelWorkerStatus[word], failure_message="")


def left(request: Any) -> object:
    """The files that the notebook left, two on a page."""
    files = sorted(path for path in (FOLDER / "output").rglob("*") if path.is_file())
    first = int(request.page_token or 0)
    listed = [
        SimpleNamespace(file_name=path.relative_to(FOLDER / "output").as_posix(), url=str(path))
        for path in files[first : first + 2]
    ]
    token = str(first + 2) if first + 2 < len(files) else ""
    return SimpleNamespace(files=listed, next_page_token=token, log="[]")


def get(url: str, stream: bool) -> object:
    return SimpleNamespace(content=Path(url).read_bytes(), headers={})


def receive(request: Any) -> object:
    state = load()
    values = {"status": "ok", "url": "https://kaggle/dataset"} | state.get("dataset", {})
    if values["status"] == "ok":
        words = ["BLOBS_RECEIVED", *state.get("then", ["READY"])]
        save(version=state["version"] + 1, words=words, request=request.to_dict())
    return answer(ApiCreateDatasetResponse, values)


def save_kernel(request: Any) -> object:
    save(kernel=request.to_dict())
    values = {"version_number": 1, "url": "https://kaggle/kernel"} | load().get("save_kernel", {})
    return answer(ApiSaveKernelResponse, values)


def store(_api: object, path: str, _url: str, _quiet: bool, resume: bool = False) -> object:
    if load().get("upload") == "fails":
        return ResumableUploadResult.FAILED
    shutil.copy(path, FOLDER / "upload" / Path(path).name)
    return ResumableUploadResult.COMPLETE


class Client:
    """What the command line calls of Kaggle."""

    datasets = SimpleNamespace(
        dataset_api_client=SimpleNamespace(
            get_dataset_status=status,
            get_dataset=lambda _: SimpleNamespace(current_version_number=load()["version"]),
            create_dataset=receive,
            create_dataset_version=receive,
        )
    )
    kernels = SimpleNamespace(
        kernels_api_client=SimpleNamespace(
            save_kernel=save_kernel,
            get_kernel_session_status=ended,
            list_kernel_session_output=left,
        )
    )
    blobs = SimpleNamespace(
        blob_api_client=SimpleNamespace(
            start_blob_upload=lambda _: answer(
                ApiStartBlobUploadResponse, {"token": "t", "create_url": "u"}
            )
        )
    )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None: ...


if __name__ == "__main__":
    KaggleApi.build_kaggle_client = lambda _: Client()
    KaggleApi.upload_complete = store
    requests.get = get  # type: ignore[assignment]
    cli.main()
