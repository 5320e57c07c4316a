"""Checks a bundle before its upload for all that Kaggle or its command line would refuse or drop.

Each violation is a line that says what, where and what to do. The rules are those of Kaggle's own
command line (kaggle 2.2.4 and 2.2.5, `kaggle_api_extended.py`: dataset_create_new, kernels_push,
upload_files) and what competitors met beyond it.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from packaging.version import Version

from birdkit.engines import golden
from birdkit.engines.precision import STORED_PRECISIONS
from birdkit.errors import UserError
from birdkit.kaggle import manifest
from birdkit.outside.card import card_of, model_file
from birdkit.outside.member import Membership
from birdkit.scoring.ensemble import SPEC_NAME, Spec
from birdkit.tables import read_json
from export.kaggle import wheels

DATASET, KERNEL = "dataset", "kernel"  # the two folders of a bundle
DATASET_METADATA, KERNEL_METADATA = "dataset-metadata.json", "kernel-metadata.json"
TEMPLATE = "kaggle_dataset_meta.json"  # where a person mends what the dataset's metadata says
OWNER = "OWNER"
DATASET_LENGTHS = range(6, 51)  # of slug and of title
KERNEL_LENGTHS = range(5, 51)
SUBTITLE_LENGTHS = range(20, 81)
SLUG = re.compile("[a-z0-9]+(?:-[a-z0-9]+)*")
ACCOUNT = re.compile("[a-z0-9]+(?:[_-][a-z0-9]+)*")
# Beyond these, what a title's slug is depends on transliteration tables.
TITLE = re.compile("[A-Za-z0-9 .+_()'-]+")
FILE_NAME = re.compile(r"[A-Za-z0-9._+=-]+")
# Kaggle unpacks archives, so that the mounted files would not be the bundled ones. Wheels it leaves.
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
# Names that `kaggle datasets create` leaves out silently.
DROPPED_FILES = (
    *("datapackage.json", "kernel-metadata.json", "model-metadata.json"),
    *(
        "model-instance-metadata.json",
        *(f"dataset-cover-image.{x}" for x in ("png", "jpg", "jpeg", "webp")),
    ),
)
DROPPED_FOLDERS = (".git", ".cache", ".huggingface")
EARLIEST_S = calendar.timegm((1980, 1, 2, 0, 0, 0))  # zip knows no earlier day, in any time zone
# Engines' wheels are 175 MB and a b3 with its IR 90. Above this, checkpoints or audio slipped in; and
# a run reads it all once, to compare it with its manifest, through a mount of some 100 MB/s.
LIMIT_BYTES = 2_000_000_000
# Values of a submission's kernel, beside its dataset.
REQUIRED: dict[str, Any] = {
    "language": "python",
    "kernel_type": "notebook",
    "is_private": True,
    "enable_gpu": False,
    "enable_tpu": False,
    "enable_internet": False,
    "kernel_sources": [],
    "model_sources": [],
}
# In a notebook's cells: what hides a failure or costs minutes.
NOTEBOOK_TRAPS = {
    r"^\s*(!|%%(bash|sh|script)\b)": "a shell line's failure is not the notebook's: call main() or use "
    "subprocess.run(check=True)",
    r"os\.walk|rglob|\*\*/": "walking through all inputs has taken 90 s: look at fixed depths",
}


def violations(bundle: Path, pins: Mapping[str, Version], pushing: bool) -> list[str]:
    """Everything wrong with a built bundle. Owner and competition may be missing until it is pushed.

    `pins`: the engines' versions, as in `wheels.pinned`.
    """
    dataset, kernel = bundle / DATASET, bundle / KERNEL
    of_dataset = read_json(dataset / DATASET_METADATA)
    of_kernel = read_json(kernel / KERNEL_METADATA)
    return [
        *dataset_metadata(of_dataset, dataset, pushing),
        *kit(dataset),
        *file_names(dataset),
        *models(dataset / "model"),
        *wheels.violations(dataset / "wheels", pins),
        *contents(dataset),
        *kernel_metadata(
            of_kernel, kernel, REQUIRED | {"dataset_sources": [of_dataset.get("id")]}, pushing
        ),
        *notebook(kernel / str(of_kernel.get("code_file")), manifest.NAME),
    ]


def dataset_metadata(metadata: Mapping[str, Any], folder: Path, pushing: bool) -> Iterator[str]:
    yield from identity(metadata.get("id"), DATASET_LENGTHS, f"{TEMPLATE}: id", pushing)
    yield from length(metadata.get("title"), DATASET_LENGTHS, f"{TEMPLATE}: title")
    if metadata.get("subtitle"):
        yield from length(metadata["subtitle"], SUBTITLE_LENGTHS, f"{TEMPLATE}: subtitle")
    licences = entries(metadata, "licenses")
    if len(licences) != 1 or not licences[0].get("name"):
        yield f'{TEMPLATE}: licenses must name exactly one, such as [{{"name": "other"}}]'
    paths = [str(entry.get("path")) for entry in entries(metadata, "resources")]
    for path in sorted(set(paths)):
        if not (folder / path).is_file():
            yield f"{TEMPLATE}: resources: {path} is not in the bundle; remove it from there"
        if paths.count(path) > 1:
            yield f"{TEMPLATE}: resources: {path} is listed {paths.count(path)} times; list it once"


def entries(metadata: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """A list of objects; what is none counts as an empty one."""
    values = metadata.get(key)
    return [x if isinstance(x, dict) else {} for x in values] if isinstance(values, list) else []


def identity(value: object, lengths: range, where: str, pushing: bool) -> Iterator[str]:
    """An id is "owner/slug"."""
    owner, slash, slug = str(value).partition("/")
    if not slash or not (owner == OWNER or ACCOUNT.fullmatch(owner)):
        yield f"{where} '{value}' must be owner/slug, the owner as in your profile's address"
    elif owner == OWNER and pushing:
        yield f"{where} '{value}' has a placeholder for its owner; give --owner NAME"
    if not SLUG.fullmatch(slug):
        yield f"{where}: slug '{slug}' may have lower-case letters and digits, joined by single hyphens"
    yield from length(slug, lengths, f"{where}: slug")


def length(value: object, lengths: range, where: str) -> Iterator[str]:
    if not isinstance(value, str) or len(value) not in lengths:
        bounds = f"{lengths.start} to {lengths.stop - 1} characters"
        yield f"{where} {value!r} must have {bounds}; change it there"


def kit(folder: Path) -> Iterator[str]:
    for name in ("run.py", "requirements.txt", "birdkit/__init__.py"):
        if not (folder / name).is_file():
            yield f"{name}: missing in submission/; restore it"


def file_names(folder: Path) -> Iterator[str]:
    """Paths and dates that Kaggle or its command line can't take, or drops."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if "@" in path.name:
            yield f"{name}: '@' in a file name breaks Kaggle's upload; rename it"
        elif not FILE_NAME.fullmatch(path.name):
            yield f"{name}: a name may have ASCII letters, digits and . _ + = - only; rename it"
        if path.suffix.lower() in ARCHIVES:
            yield f"{name}: Kaggle unpacks archives, so it would not be there; leave it out"
        if name in DROPPED_FILES or (path.is_dir() and path.name in DROPPED_FOLDERS):
            yield f"{name}: Kaggle's command line drops it without a word; rename it or leave it out"
        if path.stat().st_mtime < EARLIEST_S:
            yield f"{name}: dated before 1980, which breaks the upload; `touch` it"


def models(folder: Path) -> Iterator[str]:
    """A model folder holds what its `ensemble.json` names, for both engines."""
    try:
        spec = Spec.load(folder)
    except UserError as error:
        yield str(error).replace(str(folder.parent), "").lstrip("/")
        return
    stored = [f".{name}" for name in STORED_PRECISIONS if name in spec.precisions]
    suffixes = {".onnx": "export/to_onnx.py"}
    suffixes |= {
        f"{kind}{x}": "export/to_openvino.py" for kind in ("", *stored) for x in (".xml", ".bin")
    }
    for stem in spec.stems:
        for suffix, remedy in suffixes.items():
            if not (folder / f"{stem}{suffix}").is_file():
                yield f"model/{stem}{suffix}: missing, though {SPEC_NAME} needs it; run {remedy} again"
    for name in spec.soft:
        yield from member_from_outside(folder, name)
    answers = read_json(folder / golden.NAME) if (folder / golden.NAME).is_file() else {}
    for stem in (*spec.stems, *spec.soft):
        lacking = {"f32", *(spec.precisions if stem in spec.stems else ())}.difference(
            answers.get(stem, {})
        )
        if lacking:
            absent = f"no answers of {stem} in {', '.join(sorted(lacking))}"
            yield f"model/{golden.NAME}: {absent}, so no engine is checked; run export/to_onnx.py again"


def member_from_outside(folder: Path, name: str) -> Iterator[str]:
    """A member from outside has a card and the file that the card is for."""
    path = card_of(folder, name)
    try:
        card = Membership.read(path).card
    except UserError as error:
        yield str(error).replace(str(folder.parent), "").lstrip("/")
        return
    file = model_file(path, card.kind)
    if not file.is_file():
        yield f"model/{file.name}: missing, though {SPEC_NAME} needs it; run export/add_member.py again"


def contents(folder: Path) -> Iterator[str]:
    """Manifest and size."""
    problems = manifest.problems(folder)
    if problems is None:
        yield f"{manifest.NAME}: missing; build the bundle again"
    yield from (f"{line}; build the bundle again" for line in problems or [])
    if total_bytes(folder) > LIMIT_BYTES:
        yield (
            f"{DATASET}: {total_bytes(folder) / 1e6:,.0f} MB are more than {LIMIT_BYTES / 1e6:,.0f}; "
            "take what is no model out of the model folder, or submit fewer models"
        )


def total_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def kernel_metadata(
    metadata: Mapping[str, Any], folder: Path, required: Mapping[str, Any], pushing: bool
) -> Iterator[str]:
    """`required`: values that it must have."""
    where, title = KERNEL_METADATA, str(metadata.get("title"))
    # Its owner is the dataset's, whose placeholder is reported there.
    yield from identity(metadata.get("id"), KERNEL_LENGTHS, f"{where}: id", pushing=False)
    yield from length(title, KERNEL_LENGTHS, f"{where}: title")
    slug = str(metadata.get("id")).partition("/")[2]
    if not TITLE.fullmatch(title):
        yield f"{where}: title '{title}' may have ASCII letters, digits, spaces and . + - _ ( ) ' only"
    elif slugify(title) != slug:
        yield f"{where}: title '{title}' has slug '{slugify(title)}', id has '{slug}'; make them equal"
    yield from kernel_values(metadata, required)
    if not (folder / str(metadata.get("code_file"))).is_file():
        yield f"{where}: code_file {metadata.get('code_file')} is not in {KERNEL}/; put it there"
    competitions = metadata.get("competition_sources") or []
    if pushing and not competitions:
        yield f"{where}: no competition; give --competition SLUG, as in kaggle.com/competitions/SLUG"
    for competition in competitions:
        if not SLUG.fullmatch(str(competition)):
            remedy = "give SLUG of kaggle.com/competitions/SLUG"
            yield f"{where}: competition '{competition}' is no slug; {remedy}"


def kernel_values(metadata: Mapping[str, Any], required: Mapping[str, Any]) -> Iterator[str]:
    """The metadata values that a notebook needs; none is left to Kaggle's defaults."""
    for key, value in required.items():
        given = metadata.get(key)
        if type(given) is not type(value) or given != value:
            yield f"{KERNEL_METADATA}: {key} is {given!r}; it must be {value!r}"


def slugify(title: str) -> str:
    """A title's slug as Kaggle makes it (python-slugify), for the characters of `TITLE`."""
    return re.sub("[^a-z0-9]+", "-", title.lower()).strip("-")


def notebook(path: Path, mark: str) -> Iterator[str]:
    """`mark`: the file by whose name the notebook finds the mounted dataset."""
    if not path.is_file():
        return  # reported with the metadata
    cells = read_json(path).get("cells") or []
    code = ["".join(cell.get("source", "")) for cell in cells if cell.get("cell_type") == "code"]
    if not any(mark in source for source in code):
        yield f"{path.name}: looks for no {mark}, by which the mounted kit is found; do that"
    for pattern, why in NOTEBOOK_TRAPS.items():
        for number, source in enumerate(code, 1):
            if re.search(pattern, source, re.MULTILINE):
                yield f"{path.name}: code cell {number}: {why}"
