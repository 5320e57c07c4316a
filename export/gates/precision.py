"""The second gate: a lower precision ships only where it ranks labelled soundscapes as f32 does.

Parity to rounding can't be reached there, so a precision is judged by the competition's metric: the
loss of macro-AUC of the whole ensemble, with a paired bootstrap over soundscapes, and the rank
correlation of its window scores. Figures of random weights prove nothing. Without labelled soundscapes
nothing below f32 is accepted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from birdkit.engines.layout import Layout
from birdkit.grid import WINDOWS_A_MINUTE
from birdkit.scoring import ensemble
from birdkit.scoring.calibration import windows_per_s
from birdkit.scoring.ensemble import combine
from train.scoring.auc import macro_auc, paired_bootstrap
from train.scoring.evaluate import TruthSet, member_scores

NAME = "precision.json"
MAX_LOSS = 0.001
MAX_LOSS_BOUND = 0.005
# The upper end of the bootstrap's 90 % interval.
BOUND_SHARE = 0.95
MIN_RANK_CORRELATION = 0.999


@dataclass(frozen=True)
class Table:
    """The scores of an ensemble in one precision on labelled soundscapes, and its speed."""

    rows: NDArray[np.float32]  # (rows, classes), as submitted
    auc: float
    ms_per_minute: float


@dataclass(frozen=True)
class Verdict:
    """One lower precision against f32."""

    precision: str
    auc: float
    auc_f32: float
    loss: float
    loss_bound: float
    rank_correlation: float
    ms_per_minute: float
    ms_per_minute_f32: float

    def faults(self) -> list[str]:
        """Why the precision is refused; empty where it is accepted. NaN is a fault."""
        limits = (
            ("macro-AUC falls by", self.loss, MAX_LOSS),
            ("the bootstrap's bound of that is", self.loss_bound, MAX_LOSS_BOUND),
        )
        faults = [f"{text} {value:.4f} > {at}" for text, value, at in limits if not value <= at]
        if not self.rank_correlation >= MIN_RANK_CORRELATION:
            faults.append(f"rank correlation {self.rank_correlation:.5f} < {MIN_RANK_CORRELATION}")
        return faults

    def __str__(self) -> str:
        faults = self.faults()
        verdict = f"REFUSED, {'; '.join(faults)}" if faults else "accepted"
        return (
            f"{self.precision:<5} macro-AUC {self.auc:.4f} (f32 {self.auc_f32:.4f}), loss "
            f"{self.loss:+.4f}, bound {self.loss_bound:+.4f}, rank correlation "
            f"{self.rank_correlation:.5f}, {self.ms_per_minute:.0f} ms a minute (f32 "
            f"{self.ms_per_minute_f32:.0f}): {verdict}"
        )


def table(folder: Path, precisions: Sequence[str], layout: Layout, labelled: TruthSet) -> Table:
    """Score the labelled soundscapes with a model folder in OpenVINO.

    Raises
    ------
    RuntimeError
        Where another precision than the first of `precisions` was loaded.
    """
    loaded = ensemble.load(folder, layout, "openvino", precisions)
    wanted = precisions[0] if precisions else "f32"
    if not all(wanted in description for description in loaded.engines):
        raise RuntimeError(f"{folder}: {wanted} did not load: {'; '.join(loaded.fallbacks)}")
    spec = loaded.ensemble.spec
    scores = member_scores(loaded.ensemble, labelled, layout.streams)[spec.output]
    rows = labelled.rows(combine(scores, spec))
    auc = macro_auc(labelled.truth, rows).macro
    speed = windows_per_s(loaded.ensemble, layout.streams)
    return Table(rows, auc, 1000 * loaded.ensemble.windows_heard(WINDOWS_A_MINUTE) / speed)


def compare(precision: str, f32: Table, lower: Table, labelled: TruthSet) -> Verdict:
    """Hold a precision's table against that of f32."""
    change = paired_bootstrap(labelled.truth, f32.rows, lower.rows)
    return Verdict(
        precision=precision,
        auc=lower.auc,
        auc_f32=f32.auc,
        loss=-change.estimate,
        loss_bound=-change.bound(1 - BOUND_SHARE),
        rank_correlation=rank_correlation(f32.rows, lower.rows),
        ms_per_minute=lower.ms_per_minute,
        ms_per_minute_f32=f32.ms_per_minute,
    )


def rank_correlation(reference: NDArray[np.float32], candidate: NDArray[np.float32]) -> float:
    """Spearman's rank correlation over all rows, as the mean over classes that are not constant."""
    by_class = pd.DataFrame(reference).rank().corrwith(pd.DataFrame(candidate).rank())
    return float(by_class.mean())


def order_of_use(verdicts: Sequence[Verdict]) -> tuple[str, ...]:
    """The accepted ones that are faster than f32, the fastest first."""
    faster = [v for v in verdicts if not v.faults() and v.ms_per_minute < v.ms_per_minute_f32]
    return tuple(v.precision for v in sorted(faster, key=lambda v: v.ms_per_minute))


def save(folder: Path, verdicts: Sequence[Verdict], not_tried: Mapping[str, str]) -> None:
    """Write the figures and faults of every precision, and why others were not tried."""
    tried = {v.precision: {**asdict(v), "refused": v.faults()} for v in verdicts}
    absent = {name: {"refused": [why]} for name, why in not_tried.items()}
    (folder / NAME).write_text(json.dumps(tried | absent, indent=2) + "\n")


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """Precision → its figures and "refused", as `save` wrote them; none where the file is absent."""
    path = folder / NAME
    return dict(json.loads(path.read_text())) if path.is_file() else {}
