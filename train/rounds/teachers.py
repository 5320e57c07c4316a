"""Scores soundscapes with a round's teachers, in the same way as a submission is scored."""

from __future__ import annotations

import json
import math
from collections import ChainMap, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from birdkit.contract import Contract
from birdkit.errors import UserError
from birdkit.files import write_whole
from birdkit.log import LOG
from birdkit.scoring.averaging import average
from birdkit.scoring.ensemble import Ensemble, Spec, common_contract
from birdkit.scoring.parts import SoundFile
from birdkit.scoring.predict import Prediction, Scores, predict
from train.config import provenance
from train.config.settings import Postprocess, Pseudo
from train.data import progress
from train.data.bad_files import look_at_all
from train.models.checkpoint import Final, sha256
from train.outside.teachers import Outside
from train.rounds import pseudo_labels
from train.scoring.evaluate import TorchEngine, engines_for

# Files between two saves: a kill loses minutes of work at most.
BLOCK_FILES = 64


@dataclass(frozen=True)
class Teacher:
    """Models of the previous round with what they need to score soundscapes, and others from outside.

    The models together are one teacher, each from outside is another.
    """

    finals: Mapping[str, Final]
    hashes: Mapping[str, str]  # sha256 of their checkpoints
    postprocess: Postprocess  # smoothing and pooling, which all of them share
    device: torch.device
    outside: tuple[Outside, ...] = ()
    weights: Mapping[str, float] = field(default_factory=dict)  # of these; 1 where none is given

    @classmethod
    def load(
        cls,
        checkpoints: Mapping[str, Path],
        device: torch.device,
        outside: Sequence[Outside] = (),
        weights: Mapping[str, float] | None = None,
    ) -> Teacher:
        """Models by name, all from one recipe and so with one post-processing."""
        finals = {name: Final.load(path) for name, path in checkpoints.items()}
        postprocess = next((final.job.postprocess for final in finals.values()), Postprocess())
        hashes = {name: sha256(path) for name, path in checkpoints.items()}
        return cls(finals, hashes, postprocess, device, tuple(outside), weights or {})

    @property
    def names(self) -> tuple[str, ...]:
        return *self.finals, *(teacher.name for teacher in self.outside)

    @property
    def classes(self) -> tuple[str, ...]:
        """The columns of the teachers' scores."""
        return self.contract.classes if self.finals else self.outside[0].classes

    @property
    def outside_weights(self) -> list[float]:
        return [self.weights.get(teacher.name, 1.0) for teacher in self.outside]

    def made_by(self, files: Sequence[SoundFile], pseudo: Pseudo) -> dict[str, Any]:
        """The inputs that its scores of these files depend on."""
        weights = zip(self.outside, self.outside_weights, strict=True)
        outside = {each.name: {**each.made_by, "weight": weight} for each, weight in weights}
        return pseudo_labels.made_by(self.hashes, self.postprocess.smoothing, files, pseudo, outside)

    @cached_property
    def engines(self) -> dict[str, TorchEngine]:
        predictors = {name: final.predictor() for name, final in self.finals.items()}
        stretches = {name: final.job.postprocess.stretch_s for name, final in self.finals.items()}
        return engines_for(predictors, stretches, self.device)

    @property
    def contract(self) -> Contract:
        return common_contract({name: final.contract for name, final in self.finals.items()})

    def allowed(self, soundscape: Path, out_of_fold: bool) -> tuple[str, ...]:
        """Names of the models that may label a soundscape; teachers from outside always may."""
        names = tuple(self.finals)
        if not out_of_fold:
            return names
        unseen = tuple(n for n in names if soundscape.name not in self.finals[n].trained_on)
        if not unseen and not self.outside:
            raise UserError(
                f"{soundscape}: every teacher was trained on it; pseudo.out_of_fold needs it in the "
                "round before, too, and two models there or more"
            )
        return unseen

    def ensemble(self, names: Sequence[str], output: str) -> Ensemble:
        smoothing, pooling = self.postprocess.smoothing, self.postprocess.pooling
        spec = Spec(dict.fromkeys(names, 1.0), output, smoothing, pooling=pooling)
        return Ensemble({name: self.engines[name] for name in names}, spec)


def soundscape_files(paths: Sequence[Path], window_s: float) -> list[SoundFile]:
    """Soundscapes, each with the windows that lie wholly within it; at least one."""
    # `predict` reports as a failure what has no length.
    lengths_s = (seconds for seconds, _ in look_at_all(paths))
    counts = (max(1, math.floor(seconds / window_s + 1e-6)) for seconds in lengths_s)
    return [SoundFile(path, count) for path, count in zip(paths, counts, strict=True)]


def label(
    teacher: Teacher,
    files: Sequence[SoundFile],
    pseudo: Pseudo,
    folder: Path,
    on_saved: Callable[[], None] = lambda: None,
) -> Path:
    """Have the teacher score the soundscapes; returns the path of the table of pseudo labels.

    A table made from the same inputs is kept. The scores are saved in blocks, so that a run that was
    killed can be resumed, and one may stop in `on_saved`. Memory grows with the scores alone.
    """
    path = folder / pseudo_labels.NAME
    wanted = teacher.made_by(files, pseudo)
    if pseudo_labels.can_be_kept(path, wanted):
        return path
    folder.mkdir(parents=True, exist_ok=True)
    key = provenance.key(wanted)[:12]
    scores, failures = _by_models(
        teacher, files, pseudo, lambda group: Blocks(folder / f"pseudo-{group}-{key}", on_saved)
    )
    others = [each.scores_of(files) for each in teacher.outside]
    every = [scores, *(scores for scores, _ in others)]
    weights = [1.0, *teacher.outside_weights]
    in_order = [averaged(of_file, weights) for of_file in zip(*every, strict=True)]
    failures = dict(ChainMap(failures, *(failed for _, failed in others)))
    metadata = {"made_by": wanted, "failures": failures}
    pseudo_labels.write(path, files, in_order, teacher.classes, metadata)
    for block in folder.glob("pseudo-*.npz"):
        block.unlink()
    return path


def averaged(scores: Sequence[Scores], weights: Sequence[float]) -> Scores:
    """The mean of the teachers that scored a file, of each class by those that know it.

    By logits, since others are calibrated otherwise: of probabilities the mean hardly hears a teacher
    whose answers are faint. A cell that none knows is NaN; None where no teacher scored the file.
    """
    there = [(rows, weight) for rows, weight in zip(scores, weights, strict=True) if rows is not None]
    if len(there) < 2:
        return there[0][0] if there else None
    tables, of_tables = zip(*there, strict=True)
    return average(np.stack(tables), of_tables, "logit")


def _by_models(
    teacher: Teacher, files: Sequence[SoundFile], pseudo: Pseudo, blocks: Callable[[int], Blocks]
) -> tuple[list[Scores], dict[str, str]]:
    """Scores of each file by the models of the round before, and file name → why it has none."""
    if not teacher.finals:
        return [None] * len(files), {}
    groups: defaultdict[tuple[str, ...], list[SoundFile]] = defaultdict(list)
    for file in files:
        groups[teacher.allowed(file.path, pseudo.out_of_fold)].append(file)
    scores_of: dict[Path, Scores] = {}
    failures: dict[str, str] = {}
    with tqdm(total=len(files), **progress.bar("pseudo labels")) as bar:
        for number, (names, group) in enumerate(groups.items()):
            if not names:
                continue
            ensemble = teacher.ensemble(names, pseudo.output)
            scores, failed = _score(ensemble, group, pseudo.shifts, blocks(number), bar)
            scores_of |= dict(zip((file.path for file in group), scores, strict=True))
            failures |= failed
    return [scores_of.get(file.path) for file in files], failures


@dataclass(frozen=True)
class Blocks:
    """Scores so far, block by block, in files beside the future table."""

    stem: Path
    on_saved: Callable[[], None] = lambda: None  # called after each block

    def _path(self, start: int) -> Path:
        return self.stem.with_name(f"{self.stem.name}-{start:06d}.npz")

    def save(self, start: int, scores: Sequence[Scores], failures: Mapping[str, str]) -> None:
        """Keep the scores of files from `start` on, each (windows, classes) or None."""
        n_classes = next((rows.shape[1] for rows in scores if rows is not None), 0)
        empty = np.zeros((0, n_classes), dtype=np.float32)
        tables = [empty if rows is None else rows for rows in scores]
        content = BytesIO()
        np.savez(
            content,
            scores=np.concatenate(tables),
            counts=[len(rows) for rows in tables],
            failures=json.dumps(failures),
        )
        write_whole(self._path(start), content.getvalue())
        self.on_saved()

    def load(self) -> tuple[list[Scores], dict[str, str]]:
        """The saved scores of the first files, and why some of these files have none."""
        scores: list[Scores] = []
        failures: dict[str, str] = {}
        while (path := self._path(len(scores))).is_file():
            try:
                with np.load(path) as block:
                    tables = np.split(block["scores"], np.cumsum(block["counts"])[:-1])
                    failed = json.loads(str(block["failures"]))
            except Exception as error:  # zip, zlib and numpy each fail in their own way
                LOG.warning(f"{path}: damaged ({type(error).__name__}); it is made again")
                break
            scores += [rows if len(rows) else None for rows in tables]
            failures |= failed
        return scores, failures


def _score(
    ensemble: Ensemble,
    files: Sequence[SoundFile],
    shifts: Sequence[float],
    blocks: Blocks,
    bar: tqdm[None],
) -> tuple[list[Scores], dict[str, str]]:
    """Scores of each file, (windows, classes), and why some have none.

    One call of `predict` scores all files. Each call starts threads, and torch keeps memory for a
    thread after its end, so a call for each block would use ever more memory.
    """
    scores, failures = blocks.load()
    n_kept = len(scores)
    bar.update(n_kept)
    prediction = Prediction([])

    def score(waveform: NDArray[np.float32], n_windows: int) -> NDArray[np.float32]:
        passes = [ensemble.score(waveform, n_windows, shift) for shift in (0.0, *shifts)]
        mean = np.asarray(np.mean(passes, axis=0, dtype=np.float64), dtype=np.float32)
        return average(mean, list(ensemble.spec.members.values()), ensemble.spec.averaging)

    def report(n_done: int, n_files: int, _: float) -> None:
        bar.update(1)
        if (rows := prediction.scores[n_done - 1]) is not None:
            # Not earlier, since `score` sees a part of a long recording only.
            prediction.scores[n_done - 1] = ensemble.spec.smooth(rows)
        if n_done % BLOCK_FILES == 0 or n_done == n_files:
            start = (n_done - 1) // BLOCK_FILES * BLOCK_FILES
            failed = dict(_failures(prediction, files[n_kept + start : n_kept + n_done]))
            blocks.save(n_kept + start, prediction.scores[start:n_done], failed)

    predict(files[n_kept:], score, ensemble.contract, into=prediction, report=report)
    return [*scores, *prediction.scores], failures | prediction.failures


def _failures(prediction: Prediction, block: Sequence[SoundFile]) -> Iterator[tuple[str, str]]:
    names = {file.name for file in block}
    return ((name, why) for name, why in prediction.failures.items() if name in names)
