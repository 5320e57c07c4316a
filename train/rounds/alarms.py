"""When pseudo labels have gone wrong: a class that collapses, explodes, or says the same everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from train.config.settings import Alarms, Limits


def alarms(facts: Mapping[str, Any], before: Mapping[str, Any] | None, config: Alarms) -> list[str]:
    """A line a class that is past a limit.

    Parameters
    ----------
    facts, before : provenance of this round's labels and of the last round's (`pseudo.describe`).
        Masses are compared as shares of all classes' mass, so that another output or another
        transform, which moves all of them alike, raises none.
    """
    output = facts["made_by"]["output"]
    limits: Limits = getattr(config, output)
    found = [
        f"{name}: {output} labels differ by {spread:.1e} over {facts['n_windows']} windows, less than "
        f"{limits.constant:g}: the teacher does not know it"
        for name, spread in facts["spread"].items()
        if spread < limits.constant
    ]
    if before is None:
        return found
    then, now = _shares(before["mass"]), _shares(facts["mass"])
    for name in now:
        # A floor of a hundredth of an even share: what was next to nothing can't collapse.
        floor = 0.01 / len(now)
        ratio = max(now[name], floor) / max(then.get(name, 0.0), floor)
        if ratio < limits.collapse or ratio > limits.explode:
            what = "collapses" if ratio < 1 else "explodes"
            shares = f"{then.get(name, 0.0):.2%} → {now[name]:.2%}"
            found.append(f"{name}: its share of the labels' mass {what}, {shares}")
    return found


def _shares(mass: Mapping[str, float]) -> dict[str, float]:
    total = sum(mass.values()) or 1.0
    return {name: value / total for name, value in mass.items()}
