"""Alarms on pseudo labels: a class whose share collapses or explodes, or whose scores are constant."""

from __future__ import annotations

from collections.abc import Mapping

from train.config.settings import Alarms, Limits
from train.rounds.pseudo_labels import Summary


def alarms(now: Summary, before: Summary | None, config: Alarms) -> list[str]:
    """A line for each class that is beyond a limit.

    Parameters
    ----------
    now, before : this round's labels and the last round's. Masses are compared as shares of all
        classes' mass, so that a change of output or transform, which scales all of them, raises no
        alarm.
    """
    limits: Limits = getattr(config, now.output)
    lines = [
        f"{name}: {now.output} labels differ by {spread:.1e} over {now.n_windows} windows, less than "
        f"{limits.constant:g}: the teacher does not know it"
        for name, spread in now.spread.items()
        if spread < limits.constant
    ]
    if before is None:
        return lines
    last_shares, shares = _shares(before.mass), _shares(now.mass)
    for name, share in shares.items():
        # The floor is a hundredth of an even share, so that a tiny share can't collapse further.
        floor = 0.01 / len(shares)
        last = last_shares.get(name, 0.0)
        ratio = max(share, floor) / max(last, floor)
        if ratio < limits.collapse or ratio > limits.explode:
            what = "collapses" if ratio < 1 else "explodes"
            lines.append(f"{name}: its share of the labels' mass {what}, {last:.2%} → {share:.2%}")
    return lines


def _shares(mass: Mapping[str, float]) -> dict[str, float]:
    total = sum(mass.values()) or 1.0
    return {name: value / total for name, value in mass.items()}
