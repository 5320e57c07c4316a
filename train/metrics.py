"""The competition's metric, and scoring a submission against known truth.

    python train/metrics.py SUBMISSION.csv --validation DIR

DIR holds `truth.csv` (row_id, one 0/1 column a class) and, where there is one, `mask.csv` of the same
shape: 1 marks an undecided cell, which is left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "submission")]

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from birdkit.errors import UserError, run_command
from birdkit.table import ROW_ID


@dataclass(frozen=True)
class MacroAuc:
    """Macro ROC-AUC over the classes that can be scored."""

    macro: float  # NaN where no class could be scored
    n_scored: int
    per_class: dict[int, float]

    def __str__(self) -> str:
        return f"{self.macro:.4f} over {self.n_scored} classes"


def macro_auc(
    truth: NDArray[np.bool_],
    scores: NDArray[np.floating],
    undecided: NDArray[np.bool_] | None = None,
) -> MacroAuc:
    """Kaggle's BirdCLEF metric: the mean ROC-AUC of the classes with a positive.

    A class with positives only has no ROC either (scikit-learn gives NaN, which would be the macro's
    end), so it is left out too, and `n_scored` tells.

    Parameters
    ----------
    truth, scores, undecided : (rows, classes); undecided cells are left out
    """
    if not np.isfinite(scores).all():
        raise UserError("the scores hold NaN or infinite values; Kaggle would refuse them")
    per_class = {}
    for index in range(truth.shape[1]):
        decided = slice(None) if undecided is None else ~undecided[:, index]
        wanted = truth[decided, index]
        if wanted.any() and not wanted.all():
            per_class[index] = float(roc_auc_score(wanted, scores[decided, index]))
    macro = float(np.mean(list(per_class.values()))) if per_class else float("nan")
    return MacroAuc(macro, len(per_class), per_class)


def score_submission(submission: Path, validation: Path) -> MacroAuc:
    """Masked macro-AUC of a submission. Rows and columns are matched by name."""
    truth, undecided = read_truth(validation)
    scores = read_cells(submission)
    for name, missing in (
        ("rows", truth.index.difference(scores.index)),
        ("columns", truth.columns.difference(scores.columns)),
    ):
        if len(missing):
            raise UserError(
                f"{submission}: lacks {len(missing)} {name} of {validation / 'truth.csv'} "
                f"({', '.join(map(str, missing[:3]))}); score the soundscapes of {validation}"
            )
    aligned = scores.loc[truth.index, truth.columns]
    return macro_auc(truth.to_numpy(), aligned.to_numpy(), undecided.to_numpy())


def read_truth(validation: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Truth and undecided cells, both boolean, in the order of `truth.csv`."""
    truth = read_cells(validation / "truth.csv") > 0.5
    mask_path = validation / "mask.csv"
    if not mask_path.is_file():
        return truth, pd.DataFrame(False, index=truth.index, columns=truth.columns)
    mask = read_cells(mask_path).reindex(index=truth.index, columns=truth.columns)
    if mask.isna().to_numpy().any():
        raise UserError(f"{mask_path}: lacks rows or columns of truth.csv beside it")
    return truth, mask > 0.5


def read_cells(path: Path) -> pd.DataFrame:
    """A table of numbers by row id."""
    try:
        return pd.read_csv(path, dtype={ROW_ID: str}).set_index(ROW_ID).astype(np.float64)
    except FileNotFoundError:
        raise UserError(
            f"{path}: not found; give the CSV of a submission, or a folder with truth.csv"
        ) from None
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: needs a {ROW_ID} column and numbers ({error})") from error


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Score a submission against known truth.")
    parser.add_argument("submission", type=Path)
    parser.add_argument("--validation", type=Path, required=True)
    parser.add_argument("--at-least", type=float, default=0.0, help="exit status 1 below this")
    args = parser.parse_args(argv)
    result = score_submission(args.submission, args.validation)
    print(f"masked macro-AUC of {args.submission} on {args.validation}: {result}")
    return 0 if result.macro >= args.at_least else 1


if __name__ == "__main__":
    run_command(main)
