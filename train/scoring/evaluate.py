"""Scores a model the way a submission is scored: birdkit's grid, decoding and post-processing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from birdkit.contract import Contract
from birdkit.engines.engine import Engine
from birdkit.errors import UserError
from birdkit.grid import n_windows, row_ids, split_row_id
from birdkit.kaggle.mounts import soundscapes
from birdkit.scoring.ensemble import Ensemble, Spec, combine
from birdkit.scoring.parts import SoundFile
from birdkit.scoring.predict import Scores, predict
from train.data.batches import target_matrix
from train.data.competition import Recording
from train.data.progress import bar
from train.data.soundscapes import LabelledSoundscape, window_truth
from train.models.sed import Predictor
from train.scoring.auc import MacroAuc, macro_auc
from train.scoring.truth import Truth, read_truth

# Seconds of a held-out recording that are scored: enough for its species, and validation stays short.
HELD_OUT_S = 20.0
HELD_OUT = "held_out"


class TorchEngine:
    """A `Predictor` behind the call that inference engines have."""

    def __init__(self, predictor: Predictor, device: torch.device) -> None:
        self.predictor = predictor
        self.device = device
        self.contract: Contract = predictor.contract

    def __call__(self, inputs: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        with torch.inference_mode():
            outputs = self.predictor(torch.from_numpy(inputs).to(self.device))
        arrays = (output.float().cpu().numpy() for output in outputs)
        return dict(zip(self.contract.outputs, arrays, strict=True))


@dataclass(frozen=True)
class TruthSet:
    """Files with known truth: a row is a window or, with `per_file`, a whole file (its best window)."""

    name: str
    files: tuple[SoundFile, ...]
    truth: Truth
    per_file: bool = False

    @classmethod
    def of(
        cls,
        name: str,
        files: tuple[SoundFile, ...],
        labels: NDArray[np.bool_],
        decided: NDArray[np.bool_],
        *,
        per_file: bool = False,
    ) -> TruthSet:
        """Labels and decided cells (rows, classes) of files in order; a file's rows are a group."""
        counts = [1 if per_file else file.n_windows for file in files]
        groups = np.repeat(np.arange(len(files)), counts)
        return cls(name, files, Truth(labels, decided, groups), per_file)

    def rows(self, scores: Sequence[Scores]) -> NDArray[np.float32]:
        """Scores of the files, each (windows, classes) → (rows, classes), in the order of the truth."""
        tables = [table for table in scores if table is not None]
        if self.per_file:
            return np.stack([table.max(axis=0) for table in tables])
        return np.concatenate(tables)

    def auc(self, scores: Sequence[Scores]) -> MacroAuc:
        """Macro-AUC of the files' scores, each (windows, classes)."""
        return macro_auc(self.truth, self.rows(scores))


def held_out_set(
    recordings: Sequence[Recording], contract: Contract, name: str = HELD_OUT
) -> TruthSet | None:
    """Held-out recordings by their primary label; secondary ones are undecided."""
    if not recordings:
        return None
    targets = target_matrix(recordings, contract.classes, 0.5)
    primary, not_secondary = targets == 1.0, targets != 0.5
    files = tuple(SoundFile(r.path, _n_windows(r.duration_s, contract)) for r in recordings)
    return TruthSet.of(name, files, primary, not_secondary, per_file=True)


def _n_windows(duration_s: float, contract: Contract) -> int:
    # The header may give too long a duration; the rest of the last window is then silence.
    return n_windows(math.ceil(min(duration_s, HELD_OUT_S) * contract.sample_rate), contract)


def soundscape_set(labelled: Sequence[LabelledSoundscape], contract: Contract) -> TruthSet | None:
    """The competition's labelled soundscapes, window by window."""
    if not labelled:
        return None
    truths = [window_truth(s, contract.classes, contract.window_s) for s in labelled]
    files = tuple(SoundFile(s.path, len(truth)) for s, (truth, _) in zip(labelled, truths, strict=True))
    truth = np.concatenate([truth for truth, _ in truths])
    known = np.concatenate([known for _, known in truths])
    decided = np.repeat(known[:, None], truth.shape[1], axis=1)
    return TruthSet.of("soundscapes", files, truth, decided)


def validation_set(folder: Path, contract: Contract) -> TruthSet:
    """`soundscapes/`, `truth.csv` and `mask.csv`: for reporting, never trained or selected on."""
    table = read_truth(folder)
    lacking = [name for name in contract.classes if name not in table.classes]
    if lacking:
        raise UserError(f"{folder / 'truth.csv'}: lacks the classes {', '.join(lacking[:5])}")
    counts = Counter(split_row_id(row_id)[0] for row_id in table.row_ids)
    # Scores come file by file and window by window, whatever the order of the table.
    ids = [name for stem, n in counts.items() for name in row_ids(stem, n, contract.window_s)]
    off_grid = table.row_ids.difference(ids)
    if len(off_grid):
        raise UserError(
            f"{folder / 'truth.csv'}: row {off_grid[0]} leaves a gap in the grid of "
            f"{contract.window_s:g} s; list every window of a soundscape, from its start"
        )
    by_stem = {path.stem: path for path in soundscapes(folder / "soundscapes")}
    absent = [stem for stem in counts if stem not in by_stem]
    if absent:
        raise UserError(f"{folder / 'soundscapes'}: lacks {absent[0]}, which truth.csv names")
    files = tuple(SoundFile(by_stem[stem], n) for stem, n in counts.items())
    return TruthSet("validation", files, table.select(ids, list(contract.classes)))


def engines_for(
    predictors: Mapping[str, Predictor],
    stretches: Mapping[str, float],
    device: torch.device,
    truth_set: TruthSet | None = None,
) -> dict[str, TorchEngine]:
    """Models behind the call that engines have.

    Parameters
    ----------
    stretches : seconds that each model hears at once; 0: a window
    truth_set : what is to be scored; of recordings, which are short, the longest limits the stretches
    """
    engines = {}
    for name, predictor in predictors.items():
        stretch_s = stretches[name]
        if stretch_s and truth_set is not None and truth_set.per_file:
            longest = max(file.n_windows for file in truth_set.files) * predictor.contract.window_s
            stretch_s = min(stretch_s, longest)
        heard = predictor.over_stretches(stretch_s) if stretch_s else predictor
        engines[name] = TorchEngine(heard.to(device), device)
    return engines


def evaluate(engines: Mapping[str, Engine], spec: Spec, truth_set: TruthSet) -> dict[str, MacroAuc]:
    """Macro-AUC of each output. Raises `UserError` where a file can't be scored."""
    scores = member_scores(Ensemble(engines, spec), truth_set)
    return {output: truth_set.auc(combine(files, spec)) for output, files in scores.items()}


def member_scores(
    ensemble: Ensemble, truth_set: TruthSet, streams: int = 1, shift: float = 0.0
) -> dict[str, list[NDArray[np.float32]]]:
    """Output → for each file (members, windows, classes) probabilities.

    Raises `UserError` where a file can't be scored.
    """
    outputs = ensemble.contract.outputs

    def score(waveform: NDArray[np.float32], n_windows: int) -> NDArray[np.float32]:
        return ensemble.every_score(waveform, n_windows, outputs, shift)

    with tqdm(total=len(truth_set.files), **bar(f"scoring {truth_set.name}")) as files:
        prediction = predict(
            truth_set.files,
            score,
            ensemble.contract,
            streams=streams,
            report=lambda done, total, elapsed_s: files.update(),
        )
    if prediction.failures:
        name, why = next(iter(prediction.failures.items()))
        raise UserError(f"{truth_set.name}: {name} can't be scored ({why})")
    tables = [table for table in prediction.scores if table is not None]
    return {output: [table[index] for table in tables] for index, output in enumerate(outputs)}
