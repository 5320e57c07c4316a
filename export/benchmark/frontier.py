"""Accuracy against time: what a run's members give on labelled soundscapes, and what they cost.

Every configuration of members, of what they hear at once and of passes is exported, scored and timed in
one run. One is dominated where another is at least as good in no more time.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations, cycle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from birdkit.engines.layout import Layout, usable_cores
from birdkit.grid import MINUTE_S, WINDOWS_A_MINUTE
from birdkit.scoring import ensemble
from birdkit.scoring.calibration import calibrate, candidates
from birdkit.scoring.ensemble import Loaded, Spec, combine
from birdkit.scoring.parts import SoundFile
from birdkit.scoring.pooling import POOLINGS
from export.benchmark import machine
from export.benchmark.comparison import PASSES, STRETCH_S
from export.benchmark.timing import total_ms
from export.gates.order import Members, greedy
from export.models import fuse, onnx, openvino
from export.models.members import Checkpoints
from train.data.progress import bar
from train.scoring.auc import macro_aucs, resampled_weights
from train.scoring.evaluate import LABELLED, TruthSet, member_scores

MARK = "frontier"  # of the table in docs
# With more members, each alone and the first ones together are tried, and not every combination.
MOST_COMBINED = 3
DRAWS = 1000
MOST_SHOWN = 40  # rows of the table
INTERVAL = (5, 95)  # percentiles of the bootstrap over soundscapes
TIMED_FILES = 8  # enough to keep every stream busy

# Output → for each file (members, windows, classes).
Scores = Mapping[str, Sequence[NDArray[np.float32]]]


@dataclass(frozen=True)
class Way:
    """What members hear at once, how windows are made of it, and the shifts of the passes."""

    stretches_s: tuple[float, ...]  # which the members take in turn; 0: a window
    pooling: str
    shifts: tuple[float, ...]

    @property
    def hears(self) -> str:
        names = [f"{s:g} s, {self.pooling}" if s else "a window" for s in self.stretches_s]
        return " and ".join(names)


WAYS = (
    Way((0.0,), "plain", (0.0, *PASSES)),
    Way((MINUTE_S,), "soft", (0.0,)),
    *(Way((STRETCH_S,), pooling, (0.0, PASSES[0])) for pooling in POOLINGS),
    Way((0.0, STRETCH_S), "soft", (0.0,)),
)


@dataclass(frozen=True)
class Point:
    """A configuration, what it gives and what it costs."""

    ensemble: str  # whose members these are; empty where there is one ensemble
    members: Members
    hears: str
    passes: int
    output: str
    ms: float  # a minute of audio, decode to probabilities
    ms_rounds: list[float]
    auc: float  # macro-AUC on the soundscapes that judge
    interval: tuple[float, float]  # 90 %, by the bootstrap over soundscapes
    dominated: bool = False


def measure(
    ensembles: Mapping[str, Checkpoints], judging: TruthSet, rounds: int, scratch: Path
) -> dict[str, Any]:
    """Every figure of the frontier, as plain values.

    Parameters
    ----------
    ensembles : the members of each by its name; members of one are not tried beside another's
    """
    several = len(ensembles) > 1
    tried = [
        _Tried.of(name if several else "", members, judging, scratch / str(index))
        for index, (name, members) in enumerate(ensembles.items())
    ]
    times = _in_turns(tried, judging, rounds)
    points = [p for one, own in zip(tried, times, strict=True) for p in one.points(judging, own)]
    return {
        "machine": machine.describe(),
        "members": {
            _titled(one.name, name): final.job.model.encoder
            for one in tried
            for name, final in one.members.finals.items()
        },
        "judging": "labelled" if judging.name == LABELLED else judging.name,
        "soundscapes": len(judging.files),
        "rounds": rounds,
        "points": [asdict(point) for point in marked(points)],
    }


def marked(points: Sequence[Point]) -> list[Point]:
    """The points by time, those marked that another one dominates."""

    def dominates(a: Point, b: Point) -> bool:
        return a.ms <= b.ms and a.auc >= b.auc and (a.ms, a.auc) != (b.ms, b.auc)

    every = sorted(points, key=lambda point: point.ms)
    return [replace(p, dominated=any(dominates(other, p) for other in every)) for p in every]


Key = tuple[tuple[float, ...], Members]
Times = Mapping[Key, Sequence[float]]


@dataclass(frozen=True)
class _Setup:
    """Some members of a model folder, and the layout in which they are fastest."""

    folder: Path
    members: Members
    layout: Layout
    heard: Mapping[float, int]  # shift of a pass → windows heard a minute

    @classmethod
    def of(cls, folder: Path, members: Members, shifts: Iterable[float]) -> _Setup:
        fastest = calibrate(lambda layout: _open(folder, layout, members), candidates(usable_cores()))
        loaded = fastest.loaded.ensemble
        heard = {shift: loaded.windows_heard(WINDOWS_A_MINUTE, shift) for shift in shifts}
        return cls(folder, members, fastest.layout, heard)

    def ms(self, files: Sequence[SoundFile]) -> float:
        """A minute of a plain pass. Opened for it alone: all setups at once would fill the memory."""
        loaded = _open(self.folder, self.layout, self.members).ensemble
        total_ms(loaded, files[: self.layout.streams], self.layout.streams)  # warms up
        return total_ms(loaded, files, self.layout.streams)


@dataclass(frozen=True)
class _Tried:
    """An ensemble, exported, scored and calibrated in every way."""

    name: str
    members: Checkpoints
    scores: Mapping[Way, Sequence[Scores]]
    subsets: Sequence[Members]
    setups: Mapping[Key, _Setup]

    @classmethod
    def of(cls, name: str, members: Checkpoints, judging: TruthSet, scratch: Path) -> _Tried:
        scratch.mkdir()
        ways = [way for way in WAYS if len(way.stretches_s) <= len(members.finals)]
        shifts = {way.stretches_s: way.shifts for way in ways}
        folders = {
            lengths: _export(members.over_stretches(*lengths), scratch / "-".join(map(str, lengths)))
            for lengths in shifts
        }
        scores = {way: _scores(folders[way.stretches_s], way, judging) for way in ways}
        subsets = _subsets(members, scores[ways[0]][0], judging)
        setups = {
            (lengths, subset): _Setup.of(folder, subset, shifts[lengths])
            for lengths, folder in folders.items()
            for subset in _in_all_lengths(subsets, members.over_stretches(*lengths))
        }
        return cls(name, members, scores, subsets, setups)

    def points(self, judging: TruthSet, times: Times) -> list[Point]:
        """All that it was tried in."""
        return [
            self._point(way, n_passes, subset, judging, times)
            for way in self.scores
            for n_passes in range(1, 1 + len(way.shifts))
            for subset in self.subsets
            if (way.stretches_s, subset) in self.setups
        ]

    def _point(
        self, way: Way, n_passes: int, subset: Members, judging: TruthSet, times: Times
    ) -> Point:
        output, auc, rows = _best(self.members, subset, self.scores[way][:n_passes], judging)
        # A pass is timed as the plain one, by how much more or less it hears.
        of_pass = self.setups[way.stretches_s, subset].heard
        heard = sum(of_pass[shift] for shift in way.shifts[:n_passes]) / of_pass[0.0]
        low, high = np.nanpercentile(_aucs(judging, rows, DRAWS)[1:], INTERVAL)
        rounds = [heard * ms for ms in times[way.stretches_s, subset]]
        return Point(
            ensemble=self.name,
            members=subset,
            hears=way.hears,
            passes=n_passes,
            output=output,
            ms=statistics.median(rounds),
            ms_rounds=rounds,
            auc=auc,
            interval=(float(low), float(high)),
        )


def _export(members: Checkpoints, folder: Path) -> Path:
    """A model folder, fused where that is possible; the gate is not asked, since nothing ships."""
    folder.mkdir()
    finals, stems = fuse.into_files(members.finals, fuse=True)
    members = replace(members, finals=finals)
    for stem, names in stems.items():
        path = folder / f"{stem}.onnx"
        onnx.write_members(members, names, path)
        openvino.write_ir(path, path.with_suffix(".xml"))
    weights = dict.fromkeys(members.finals, 1.0)
    Spec(weights, smoothing=members.smoothing, files=stems).save(folder)
    return folder


def _open(folder: Path, layout: Layout, members: Members | None = None) -> Loaded:
    """Some members of a model folder, or all, in f32."""
    return ensemble.load(folder, layout, "openvino", (), members=members)


def _scores(folder: Path, way: Way, judging: TruthSet) -> list[Scores]:
    """The scores of each pass, of all members."""
    layout = Layout(usable_cores(), 1, 4)
    loaded = _open(folder, layout).ensemble
    loaded.spec = replace(loaded.spec, pooling=way.pooling)
    return [member_scores(loaded, judging, layout.streams, shift) for shift in way.shifts]


def _subsets(members: Checkpoints, scores: Scores, judging: TruthSet) -> list[Members]:
    """The members to try together: those that a submission keeps where time is short, where many."""
    names = list(members.finals)
    if len(names) <= MOST_COMBINED:
        return [s for size in range(1, 1 + len(names)) for s in combinations(names, size)]
    ordered, _ = greedy(names, lambda subset: _best(members, subset, [scores], judging)[1])
    together = [tuple(ordered[:size]) for size in range(2, 1 + len(names))]
    return [*((name,) for name in ordered), *together]


def _in_all_lengths(subsets: Sequence[Members], heard: Checkpoints) -> list[Members]:
    """The subsets whose members take all the lengths that there are; others hear in a simpler way."""
    length = {name: final.contract.stretch_s for name, final in heard.finals.items()}
    return [each for each in subsets if {length[name] for name in each} == {*length.values()}]


def _best(
    members: Checkpoints, subset: Members, passes: Sequence[Scores], judging: TruthSet
) -> tuple[str, float, NDArray[np.float32]]:
    """The better output of some members, its macro-AUC and its rows (rows, classes)."""
    chosen = [index for index, name in enumerate(members.finals) if name in subset]
    spec = Spec(dict.fromkeys(subset, 1.0), smoothing=members.smoothing)
    tables = {}
    for output in passes[0]:
        by_file = zip(*(of_pass[output] for of_pass in passes), strict=True)
        mean = [np.mean([scores[chosen] for scores in of_file], axis=0) for of_file in by_file]
        tables[output] = judging.rows(combine(mean, spec))
    aucs = {output: _aucs(judging, rows, 0)[0] for output, rows in tables.items()}
    best = max(aucs, key=lambda output: aucs[output])
    return best, float(aucs[best]), tables[best]


def _aucs(judging: TruthSet, rows: NDArray[np.float32], draws: int) -> NDArray[np.float64]:
    """(1 + draws,): macro-AUC, then of resamples of whole soundscapes, which are the same each time."""
    weights = np.ones((len(rows), 1))
    if draws:
        resampled = resampled_weights(judging.truth.groups, draws, np.random.default_rng(0))
        weights = np.hstack([weights, resampled])
    return macro_aucs(judging.truth, rows, weights)


def _in_turns(tried: Sequence[_Tried], judging: TruthSet, rounds: int) -> list[Times]:
    """Milliseconds a minute of a plain pass. All take turns, so that a neighbour slows all alike."""
    files = [replace(file, n_windows=WINDOWS_A_MINUTE) for file in judging.files[:TIMED_FILES]]
    times = [{key: list[float]() for key in one.setups} for one in tried]
    for _ in tqdm(range(rounds), **bar("rounds")):
        for one, own in zip(tried, times, strict=True):
            for key, setup in one.setups.items():
                own[key].append(setup.ms(files))
    return list[Times](times)


def together(point: Mapping[str, Any]) -> str:
    """The members of a point, and whose they are where there are several ensembles."""
    return _titled(point["ensemble"], " + ".join(point["members"]))


def _titled(of: str, text: str) -> str:
    return f"{of}: {text}" if of else text


def _judging(report: Mapping[str, Any]) -> str:
    return f"{report['soundscapes']} {report['judging']} soundscapes"


def _shown(points: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """All points; of many those on the frontier, and the best in one pass of each set of members."""
    if len(points) <= MOST_SHOWN:
        return list(points)
    best: dict[str, Mapping[str, Any]] = {}
    for point in points:
        name = together(point)
        if point["passes"] == 1 and (name not in best or point["auc"] > best[name]["auc"]):
            best[name] = point
    return [point for point in points if not point["dominated"] or point in best.values()]


def markdown(report: Mapping[str, Any]) -> str:
    """The table, by time, with what is on the frontier in bold."""
    points, shown = report["points"], _shown(report["points"])
    of_all = (
        f" Of {len(points)} ways it shows those on the frontier, and the best one in one pass of each "
        "set of members."
    )
    low, high = INTERVAL
    head = ["members", "hears", "passes", "output", "ms a minute (spread)"]
    head += [f"macro-AUC ({high - low} % interval)", "frontier"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for point in shown:
        figures = f"{point['auc']:.4f} ({point['interval'][0]:.3f}–{point['interval'][1]:.3f})"
        spread = f"{min(point['ms_rounds']):.0f}–{max(point['ms_rounds']):.0f}"
        cells = [
            together(point),
            point["hears"],
            str(point["passes"]),
            point["output"],
            f"{point['ms']:.0f} ({spread})",
            figures if point["dominated"] else f"**{figures}**",
            "dominated" if point["dominated"] else "yes",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(
        [
            *lines,
            "",
            f"{report['machine']}. OpenVINO in f32, decode to probabilities, medians of "
            f"{report['rounds']} rounds; macro-AUC on {_judging(report)} that trained no member, of "
            "the better output, so it is a little kind to all. Further passes are timed as the plain "
            f"one, by what they hear.{of_all if len(shown) < len(points) else ''}",
        ]
    )


def chart(report: Mapping[str, Any], path: Path) -> None:
    """Macro-AUC over milliseconds a minute, with a line through the frontier."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 5.5), layout="constrained")
    points = report["points"]
    kinds = dict.fromkeys((point["ensemble"], point["hears"]) for point in points)
    colours = {hears: f"C{k}" for k, hears in enumerate(dict.fromkeys(hears for _, hears in kinds))}
    markers = dict(zip(dict.fromkeys(name for name, _ in kinds), cycle("os^Dv")))
    for name, hears in kinds:
        own = [point for point in points if (point["ensemble"], point["hears"]) == (name, hears)]
        axes.scatter(
            [p["ms"] for p in own],
            [p["auc"] for p in own],
            color=colours[hears],
            marker=markers[name],
            label=_titled(name, f"hears {hears}"),
            zorder=2,
        )
    best = [point for point in points if not point["dominated"]]
    line = [p["ms"] for p in best], [p["auc"] for p in best]
    axes.plot(*line, "k--", lw=1, label="frontier", zorder=1)
    middle = statistics.geometric_mean(p["ms"] for p in points)
    # Of as many members of one ensemble the best is named: texts of all would lie over each other.
    for p in {(p["ensemble"], len(p["members"])): p for p in best}.values():
        passes = f", {p['passes']} passes" if p["passes"] > 1 else ""
        counted = f"{p['ensemble']}: {len(p['members'])} members"  # short, beside many others
        text = f"{counted if p['ensemble'] and len(p['members']) > 1 else together(p)}{passes}"
        side, dx = ("right", -6) if p["ms"] > middle else ("left", 6)
        at = p["ms"], p["auc"]
        axes.annotate(text, at, (dx, 6), textcoords="offset points", ha=side, fontsize=8)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.xaxis.set_minor_formatter("{x:.0f}")
    axes.set_xlabel("ms a minute of audio, decode to probabilities")
    axes.set_ylabel(f"macro-AUC on {_judging(report)}")
    axes.set_title(report["machine"], fontsize=9)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
