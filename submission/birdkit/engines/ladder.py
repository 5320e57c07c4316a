"""Tries engines from the fastest to the last that works, each tested on a golden input."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from birdkit.engines import golden, wheels
from birdkit.engines.engine import Engine, OnnxRuntimeEngine, OpenVinoEngine
from birdkit.engines.layout import Layout
from birdkit.engines.precision import STORED_PRECISIONS, lacking
from birdkit.errors import UserError
from birdkit.log import timed

Load = Callable[[Path, Layout, str, Sequence[str] | None], Engine]

# The fastest comes first. IR comes before ONNX: it loads faster, but an OpenVINO of another version may
# refuse to read it.
LADDER: tuple[tuple[str, str, Load], ...] = (
    ("openvino", ".xml", OpenVinoEngine),
    ("openvino", ".onnx", OpenVinoEngine),
    ("onnxruntime", ".onnx", OnnxRuntimeEngine),
)


@dataclass(frozen=True)
class Opened:
    """An engine that loaded and answered right, a description of it, and what failed before it."""

    engine: Engine
    description: str
    fallbacks: list[str] = field(default_factory=list)
    origin: str = ""  # where the engine's package lies


@dataclass(frozen=True)
class Rung:
    """One way to open a model file."""

    engine: str
    path: Path
    load: Load
    precision: str


def open_model(
    stem: Path,
    layout: Layout,
    engine: str = "auto",
    precisions: Sequence[str] = (),
    members: Sequence[str] | None = None,
    avoid: Sequence[str] = (),
) -> Opened:
    """Load a model file in the first engine and precision that can, and answers its golden input.

    Parameters
    ----------
    stem : a model file's path without its suffix
    engine : "auto", or the one engine to use ("openvino", "onnxruntime")
    precisions : lower ones that passed their gate, the best first; f32 comes after them
    members : those of a fused file to compute; None for all
    avoid : descriptions of engines that failed at work

    Raises
    ------
    UserError
        Where no engine loads it: naming each attempt and its reason.
    """
    missed = "".join(f"; {reason}" for reason in map(lacking, precisions) if reason)
    failed: list[str] = []
    for rung in _rungs(stem, precisions):
        description = f"{rung.engine} ({rung.path.name}, {rung.precision}{missed})"
        if engine not in ("auto", rung.engine) or not rung.path.is_file() or description in avoid:
            continue
        try:
            package = wheels.obtain(rung.engine, failed=failed)
            with timed(f"{description} opened as {layout}"):
                loaded = _tested(rung, stem, layout, members)
            return Opened(loaded, description, failed, str(package.__file__))
        except Exception as error:  # the ladder: whatever an engine throws, the next one is tried
            first = next(iter(str(error).splitlines()), "")
            failed.append(f"{rung.engine} on {rung.path.name}: {type(error).__name__}: {first}")
    tried = "; ".join(failed) or f"no {stem.name}.xml or .onnx there"
    raise UserError(f"{stem.parent}: no engine loads {stem.name} ({tried})")


def refuse_unknown(engine: str) -> None:
    """Raise `UserError` for a name that is neither "auto" nor that of an engine."""
    known = {name for name, _, _ in LADDER}
    if engine not in ("auto", *known):
        names = ", ".join(sorted(known))
        raise UserError(f"engine '{engine}' is unknown; choose auto or one of {names}")


def check_files(folder: Path, stems: Iterable[str]) -> None:
    """Raise `UserError` where a model has a file in no format that an engine loads."""
    suffixes = sorted({suffix for _, suffix, _ in LADDER})
    for stem in stems:
        if not any((folder / f"{stem}{suffix}").is_file() for suffix in suffixes):
            names = " or ".join(stem + suffix for suffix in suffixes)
            raise UserError(f"{folder}: no {names} there; export the models again")


def _tested(rung: Rung, stem: Path, layout: Layout, members: Sequence[str] | None) -> Engine:
    """Load an engine. Raises `RuntimeError` where its answers are not the recorded ones."""
    loaded = rung.load(rung.path, layout, rung.precision, members)
    answers = loaded(golden.question(loaded.contract))
    if fault := golden.fault(stem.parent, stem.name, rung.precision, loaded.contract, answers):
        raise RuntimeError(fault)
    return loaded


def _rungs(stem: Path, precisions: Sequence[str]) -> Iterator[Rung]:
    """Every way to open a model, the best first."""
    for precision in precisions:
        if not lacking(precision):
            suffix = f".{precision}.xml" if precision in STORED_PRECISIONS else ".xml"
            path = stem.with_name(stem.name + suffix)
            yield Rung("openvino", path, OpenVinoEngine, precision)
    for name, suffix, load in LADDER:
        yield Rung(name, stem.with_name(stem.name + suffix), load, "f32")
