"""Pseudo labels: what a round's teacher says of the soundscapes, and what made it.

A round's labels are one parquet file: a row a window of the kit's own grid, the teacher's plain
probabilities, and in the file's metadata the teachers' hashes, the output, the transform, each class's
mass and the share of windows kept. The transform is applied on reading, so that another one needs no
scoring.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from birdkit.contract import Contract
from birdkit.errors import UserError
from birdkit.files import write_whole
from birdkit.scoring.ensemble import Ensemble, Spec, combine, common_contract
from birdkit.scoring.predict import Prediction, Scores, SoundFile, predict
from train.config.settings import Pseudo
from train.data.batches import LabelledWindows
from train.models.checkpoint import Final, sha256
from train.models.sed import Predictor
from train.scoring.evaluate import TorchEngine

NAME = "pseudo.parquet"
METADATA_KEY = b"birdkit.pseudo"
VERSION = 1
TRANSFORM = ("scale", "power", "zero_below", "one_from", "unsure", "keep_above", "weighting")
# Files between two saves: minutes of work at most are lost to a kill.
BLOCK_FILES = 64


@dataclass(frozen=True)
class Teacher:
    """Models of the round before."""

    finals: Mapping[str, Final]
    hashes: Mapping[str, str]  # of their checkpoints
    smoothing: tuple[float, ...]
    device: torch.device

    @classmethod
    def load(cls, checkpoints: Mapping[str, Path], device: torch.device) -> Teacher:
        """By name; all of one recipe, so of one smoothing."""
        finals = {name: Final.load(path) for name, path in checkpoints.items()}
        smoothing = next(iter(finals.values())).recipe.postprocess.smoothing
        return cls(finals, {n: sha256(path) for n, path in checkpoints.items()}, smoothing, device)

    @cached_property
    def predictors(self) -> dict[str, Predictor]:
        return {name: final.predictor().to(self.device) for name, final in self.finals.items()}

    @cached_property
    def engines(self) -> dict[str, TorchEngine]:
        return {name: TorchEngine(each, self.device) for name, each in self.predictors.items()}

    @property
    def contract(self) -> Contract:
        return common_contract({name: final.contract for name, final in self.finals.items()})

    def allowed(self, soundscape: Path, out_of_fold: bool) -> tuple[str, ...]:
        """Those that may label it."""
        names = tuple(self.finals)
        if not out_of_fold:
            return names
        kept = tuple(n for n in names if soundscape.name not in self.finals[n].trained_on)
        if not kept:
            raise UserError(
                f"{soundscape}: every teacher was trained on it; pseudo.out_of_fold needs it in the "
                "round before, too, and two models there or more"
            )
        return kept


@dataclass(frozen=True)
class Labels:
    """A round's table: plain probabilities of its teacher."""

    names: tuple[str, ...]  # of the soundscapes
    file: NDArray[np.int64]  # (windows,) index into `names`
    window: NDArray[np.int64]  # (windows,)
    scores: NDArray[np.float32]  # (windows, classes)
    facts: dict[str, Any]


def soundscape_files(paths: Sequence[Path], contract: Contract) -> list[SoundFile]:
    """Each with the windows that lie wholly within it, by its header; at least one."""
    found = []
    for path in paths:
        try:
            seconds = soundfile.info(str(path)).duration
        except (soundfile.LibsndfileError, OSError):
            seconds = 0.0  # it is named when its turn comes
        found.append(SoundFile(path, max(1, math.floor(seconds / contract.window_s + 1e-6))))
    return found


def made_by(teacher: Teacher, files: Sequence[SoundFile], pseudo: Pseudo) -> dict[str, Any]:
    """What the probabilities depend on."""
    listed = [f"{f.path.name} {f.n_windows} {f.path.stat().st_size}" for f in files]
    return {
        "version": VERSION,
        "teachers": dict(teacher.hashes),
        "output": pseudo.output,
        "shifts": list(pseudo.shifts),
        "out_of_fold": pseudo.out_of_fold,
        "smoothing": list(teacher.smoothing),
        "soundscapes": hashlib.sha256("\n".join(listed).encode()).hexdigest(),
    }


def label(teacher: Teacher, files: Sequence[SoundFile], pseudo: Pseudo, folder: Path) -> Path:
    """Have the teacher score the soundscapes; returns the parquet's path.

    At once where the same was done before. Scored in blocks that are kept, so that a run that was
    killed goes on; time grows with the number of files, and the memory with their scores alone.
    """
    path = folder / NAME
    wanted = made_by(teacher, files, pseudo)
    if is_of(path, wanted):
        return path
    folder.mkdir(parents=True, exist_ok=True)
    groups: defaultdict[tuple[str, ...], list[SoundFile]] = defaultdict(list)
    for file in files:
        groups[teacher.allowed(file.path, pseudo.out_of_fold)].append(file)
    found: dict[Path, Scores] = {}
    failures: dict[str, str] = {}
    with tqdm(total=len(files), desc="pseudo labels", leave=False, disable=None) as bar:
        for number, (names, group) in enumerate(groups.items()):
            blocks = Blocks.of(folder, f"pseudo-{number}", wanted)
            scores, failed = _score(teacher, names, group, pseudo, blocks, bar)
            found |= dict(zip((file.path for file in group), scores, strict=True))
            failures |= failed
    facts = {"made_by": wanted, "failures": failures}
    _write(path, files, [found[file.path] for file in files], teacher.contract, facts)
    for kept in folder.glob("pseudo-*.npz"):
        kept.unlink()
    return path


@dataclass(frozen=True)
class Blocks:
    """What is scored already, block by block, in files beside the table to be."""

    stem: Path

    @classmethod
    def of(cls, folder: Path, name: str, made_by: Mapping[str, Any]) -> Blocks:
        key = hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()[:12]
        return cls(folder / f"{name}-{key}")

    def _path(self, start: int) -> Path:
        return self.stem.with_name(f"{self.stem.name}-{start:06d}.npz")

    def save(self, start: int, scores: Sequence[Scores], failures: Mapping[str, str]) -> None:
        """Of files from `start` on, each (windows, classes)."""
        n_classes = next((each.shape[1] for each in scores if each is not None), 0)
        empty = np.zeros((0, n_classes), dtype=np.float32)
        every = [empty if each is None else each for each in scores]
        content = BytesIO()
        np.savez(
            content,
            scores=np.concatenate(every),
            counts=[len(each) for each in every],
            failures=json.dumps(failures),
        )
        write_whole(self._path(start), content.getvalue())

    def load(self) -> tuple[list[Scores], dict[str, str]]:
        scores: list[Scores] = []
        failures: dict[str, str] = {}
        while (path := self._path(len(scores))).is_file():
            with np.load(path) as block:
                each = np.split(block["scores"], np.cumsum(block["counts"])[:-1])
                scores += [part if len(part) else None for part in each]
                failures |= json.loads(str(block["failures"]))
        return scores, failures


def _score(
    teacher: Teacher,
    names: Sequence[str],
    files: Sequence[SoundFile],
    pseudo: Pseudo,
    blocks: Blocks,
    bar: tqdm[None],
) -> tuple[list[Scores], dict[str, str]]:
    """Scores of each file, and why some have none, as a submission is scored.

    In one go and not block by block: each call has threads of its own, and what torch keeps for a
    thread outlives it, so that memory would grow with the blocks.
    """
    spec = Spec(dict.fromkeys(names, 1.0), pseudo.output, teacher.smoothing)
    ensemble = Ensemble({name: teacher.engines[name] for name in names}, spec)
    scores, failures = blocks.load()
    kept = len(scores)
    bar.update(kept)
    prediction = Prediction([])

    def score(waveform: NDArray[np.float32], n_windows: int) -> NDArray[np.float32]:
        passes = [ensemble.score(waveform, n_windows, shift) for shift in (0.0, *pseudo.shifts)]
        mean = np.asarray(np.mean(passes, axis=0, dtype=np.float64), dtype=np.float32)
        combined = combine([mean], spec)[0]
        assert combined is not None
        return combined

    def report(n_done: int, n_files: int, _: float) -> None:
        bar.update(1)
        if n_done % BLOCK_FILES == 0 or n_done == n_files:
            start = (n_done - 1) // BLOCK_FILES * BLOCK_FILES
            block = {file.path.name for file in files[kept + start : kept + n_done]}
            failed = {name: why for name, why in prediction.failures.items() if name in block}
            blocks.save(kept + start, prediction.scores[start:n_done], failed)

    predict(files[kept:], score, ensemble.contract, into=prediction, report=report)
    return [*scores, *prediction.scores], failures | prediction.failures


def _write(
    path: Path,
    files: Sequence[SoundFile],
    scores: Sequence[Scores],
    contract: Contract,
    facts: Mapping[str, Any],
) -> None:
    known = [(file, each) for file, each in zip(files, scores, strict=True) if each is not None]
    if not known:
        raise UserError(
            f"no soundscape could be scored ({'; '.join(facts['failures'].values()) or 'none there'}); "
            "pseudo labels need train_soundscapes/"
        )
    counts = [len(each) for _, each in known]
    columns = {
        "soundscape": pa.array(
            np.repeat([file.path.name for file, _ in known], counts)
        ).dictionary_encode(),
        "window": pa.array(np.concatenate([np.arange(count) for count in counts]), pa.int32()),
    }
    cells = np.concatenate([each for _, each in known])
    columns |= {name: pa.array(cells[:, i]) for i, name in enumerate(contract.classes)}
    save(path, pa.table(columns), facts)


def save(path: Path, table: pa.Table, facts: Mapping[str, Any]) -> None:
    """Whole or not at all, its facts as `provenance` reads them."""
    content = BytesIO()
    described = table.replace_schema_metadata({METADATA_KEY: json.dumps(facts)})
    pq.write_table(described, content, compression="zstd")
    write_whole(path, content.getvalue())


def provenance(path: Path) -> dict[str, Any]:
    """A setting that the kit has learnt since counts as its default.

    Raises `UserError` where the file is no such table.
    """
    try:
        facts = dict(json.loads(pq.read_schema(path).metadata[METADATA_KEY]))
        if "transform" in facts:
            facts["transform"] = _transform(Pseudo()) | facts["transform"]
        return facts
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: no pseudo labels of this kit ({error}); remove it") from error


def is_of(path: Path, made_by: Mapping[str, Any]) -> bool:
    """Whether a table is there, of this origin."""
    return path.is_file() and provenance(path)["made_by"] == made_by


def is_made_by(path: Path, wanted: Mapping[str, Any], pseudo: Pseudo) -> bool:
    """Whether a table is there, of this origin and this transform."""
    return is_of(path, wanted) and provenance(path).get("transform") == _transform(pseudo)


def read(path: Path) -> Labels:
    """Raises `UserError` where the file is no such table."""
    facts = provenance(path)
    table = pq.read_table(path)
    codes = table["soundscape"].combine_chunks()
    cells = [table[name].to_numpy() for name in table.column_names[2:]]
    return Labels(
        tuple(codes.dictionary.to_pylist()),
        codes.indices.to_numpy().astype(np.int64),
        table["window"].to_numpy().astype(np.int64),
        np.stack(cells, axis=1),
        facts,
    )


def transformed(
    scores: NDArray[np.float32], pseudo: Pseudo
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Probabilities (windows, classes) → targets of the same shape, and chances to be drawn (windows,).

    Thresholds are on the teacher's probabilities or on their ranks, before the power. A target is NaN
    where the teacher is unsure. Raises `UserError` where no window is kept.
    """
    if pseudo.scale == "rank":
        order = scores.argsort(axis=0, kind="stable").argsort(axis=0, kind="stable")
        scores = (order / len(scores)).astype(np.float32)
    targets = np.where(scores < pseudo.zero_below, 0.0, scores) ** pseudo.power
    targets[scores >= pseudo.one_from] = 1.0
    kept = scores.max(axis=1) >= pseudo.keep_above
    worth = {"none": np.ones(len(targets)), "max": targets.max(axis=1), "sum": targets.sum(axis=1)}
    chance = np.where(kept, worth[pseudo.weighting], 0.0).astype(np.float64)
    if not chance.sum() > 0:
        raise UserError(
            f"pseudo.keep_above {pseudo.keep_above:g}, zero_below {pseudo.zero_below:g}: no window is "
            f"left (the surest has {scores.max():.3g}); lower them"
        )
    low, high = pseudo.unsure or (1.0, 1.0)
    targets = np.where((scores >= low) & (scores < high), np.nan, targets)
    return targets.astype(np.float32), chance / chance.sum()


def to_train_on(
    labels: Labels, pseudo: Pseudo, soundscapes: Sequence[Path], leave_out: Sequence[str] = ()
) -> LabelledWindows:
    """What a student draws from; `leave_out` names soundscapes of another fold."""
    where = {path.name: path for path in soundscapes}
    targets, chance = transformed(labels.scores, pseudo)
    elsewhere = np.array([name in leave_out for name in labels.names])
    chance = np.where(elsewhere[labels.file], 0.0, chance)
    if not chance.sum() > 0:
        raise UserError("pseudo.out_of_fold leaves this model no window; lower pseudo.keep_above")
    paths = tuple(where[name] for name in labels.names)
    return LabelledWindows(paths, labels.file, labels.window, targets, chance / chance.sum())


def _transform(pseudo: Pseudo) -> dict[str, Any]:
    facts = {name: getattr(pseudo, name) for name in TRANSFORM}
    return facts | {"unsure": list(pseudo.unsure)}  # as JSON gives it back


def describe(path: Path, pseudo: Pseudo) -> dict[str, Any]:
    """Write transform, mass and share kept into the table's provenance; returns them.

    The bytes change with the transform, so that students know by the file's hash.
    """
    labels = read(path)
    targets, chance = transformed(labels.scores, pseudo)
    classes = pq.read_schema(path).names[2:]
    mass = np.nan_to_num(targets).sum(axis=0, dtype=np.float64)
    facts = labels.facts | {
        "transform": _transform(pseudo),
        "mass": dict(zip(classes, mass.tolist(), strict=True)),
        "spread": dict(zip(classes, np.ptp(labels.scores, axis=0).tolist(), strict=True)),
        "kept": float(np.mean(chance > 0)),
        "n_windows": len(targets),
        "n_soundscapes": len(labels.names),
    }
    if facts != labels.facts:
        save(path, pq.read_table(path), facts)
    return facts


def line(facts: Mapping[str, Any], path: Path) -> str:
    """What a round's labels are, for people."""
    total = sum(facts["mass"].values())
    return (
        f"{path}: {facts['n_windows']} windows of {facts['n_soundscapes']} soundscapes, "
        f"{facts['kept']:.0%} of them drawn from, {total / facts['n_windows']:.2f} species a window"
    )
