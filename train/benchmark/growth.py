"""The stages at two sizes as a table, and which grow faster than their input or hold all audio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from train.benchmark.cost import Cost

# Core time may grow by so many times more than the input, since a short stage's time is uncertain, and
# only where it is longer than that many seconds.
MOST_GROWTH, LEAST_S = 1.3, 5.0
MOST_SHARE = 0.25  # of all audio, decoded to int16, in memory


@dataclass(frozen=True)
class Measured:
    """The cost of every stage at one size, and how much there was."""

    recordings: int
    soundscapes: int
    audio_mib: float  # of all audio as int16
    costs: Mapping[str, Cost]
    own_inputs: Mapping[str, int] = field(default_factory=dict)  # of stages that take some of the files

    def inputs(self, stage: str) -> int:
        """The files that a stage takes."""
        return self.own_inputs.get(stage, self.recordings + self.soundscapes)


def faults(small: Measured, large: Measured) -> dict[str, str]:
    """Stage → what is wrong with its growth."""
    found = {}
    for name, cost in large.costs.items():
        if name not in small.costs:
            continue
        times = cost.cpu_s / max(small.costs[name].cpu_s, 1e-9)
        if cost.cpu_s > LEAST_S and times > MOST_GROWTH * large.inputs(name) / small.inputs(name):
            found[name] = "grows faster than its input"
        elif cost.grown_mib > MOST_SHARE * large.audio_mib:
            found[name] = "holds too much of the audio"
    return found


def table(small: Measured, large: Measured) -> str:
    """Markdown: what each stage takes at both sizes."""
    sizes = [
        f"{size.recordings:,} recordings, {size.soundscapes:,} soundscapes" for size in (small, large)
    ]
    wrong = faults(small, large)
    lines = [
        f"| stage | {sizes[0]}: s (CPU) | peak MiB "
        f"| {sizes[1]}: s (CPU) | peak MiB | CPU × | input × | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, cost in large.costs.items():
        before = small.costs.get(name)
        grown = f"{large.inputs(name) / small.inputs(name):.1f}"
        cells = (name, _cells(before), _cells(cost), _times(before, cost), grown, wrong.get(name, ""))
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"The larger one has {large.audio_mib:,.0f} MiB of audio as int16. Peak is that of the whole "
        "process, which holds torch and the tables from the start.",
    ]
    return "\n".join(lines)


def _cells(cost: Cost | None) -> str:
    return f"{cost.seconds:.1f} ({cost.cpu_s:.1f}) | {cost.peak_mib:,.0f}" if cost else "– | –"


def _times(before: Cost | None, cost: Cost) -> str:
    return f"{cost.cpu_s / before.cpu_s:.1f}" if before and before.cpu_s else "–"


def summary(wrong: Mapping[str, str], names: Sequence[str]) -> str:
    """One line on all stages."""
    if not wrong:
        return f"none of {len(names)} stages grows faster than its input, and none holds all audio"
    return "; ".join(f"{name} {why}" for name, why in wrong.items())
