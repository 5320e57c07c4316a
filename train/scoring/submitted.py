"""Scores a submitted table against known truth, without a model."""

from __future__ import annotations

from pathlib import Path

from birdkit.errors import UserError
from train.scoring.auc import MacroAuc, macro_auc
from train.scoring.truth import read_cells, read_truth


def score_submission(submission: Path, validation: Path) -> MacroAuc:
    """Masked macro-AUC of a submission. Rows and columns are matched by name.

    Raises
    ------
    UserError
        Where the submission lacks rows or columns of the truth.
    """
    table, scores = read_truth(validation), read_cells(submission)
    for name, missing in (
        ("rows", table.row_ids.difference(scores.index)),
        ("columns", table.classes.difference(scores.columns)),
    ):
        if len(missing):
            raise UserError(
                f"{submission}: lacks {len(missing)} {name} of {validation / 'truth.csv'} "
                f"({', '.join(map(str, missing[:3]))}); score the soundscapes of {validation}"
            )
    return macro_auc(table.truth, scores.loc[table.row_ids, table.classes].to_numpy())
