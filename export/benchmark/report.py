"""The figures of `bench.py`, as a table and as a chart."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from export.benchmark.comparison import EAGER, IN_TURN, PUBLISHED, STRETCHES, THREE_PASSES, WINDOWS

MARK = "bench"  # of the table in README
IN_ONE_PASS = {
    STRETCHES: "Stretches in one pass",
    IN_TURN: "Members that hear windows and stretches in turn",
}
PARTS = ("decode", "front_end", "networks", "rest")


def markdown(report: Mapping[str, Any]) -> str:
    """The table, the front ends alone, the cost from decode to CSV, and what it was measured on."""
    rows = report["rows"]
    eager, published = _named(rows, EAGER), _named(rows, PUBLISHED)
    head = [
        "", "precision", "layout", "ms a minute (spread)", "decode", "front end", "networks", "rest",
        "peak MiB", "× (a)", "× (b, OpenVINO)", "share of peak", "max abs Δp", "rank correlation",
    ]  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(_cells(row, eager, published)) + " |" for row in rows]
    members = ", ".join(f"{name} ({encoder})" for name, encoder in report["members"].items())
    stretches = _named(rows, STRETCHES)
    to_csv = report["to_csv"]
    lines += [
        "",
        f"{report['machine']}. Members: {members}; weights: {report['weights']}. Medians of "
        f"{report['rounds']} rounds over {report['files']} minutes, decode to probabilities; ratios "
        "are of the same round. Layout: streams x threads x batch, the fastest of each. Decode is "
        "core time over cores.",
        "",
        f"Front end alone, ours over Conv1d: {_front_ends(rows)}. Decode to CSV takes "
        f"{to_csv['ms']:.0f} ms a minute where the engine alone takes {to_csv['engine_ms']:.0f}: "
        f"{to_csv['ms'] / to_csv['engine_ms']:.2f}. ({stretches['name'][4:]}, f32)",
        "",
        " ".join(_in_one_pass(rows, row) for row in rows if row["name"] in IN_ONE_PASS),
    ]
    lines += ["", _left_over(report)]
    if "scaling" in report:
        lines += ["", _scaling(report["scaling"])]
    return "\n".join(lines)


def _cells(row: Mapping[str, Any], eager: Mapping[str, Any], published: Mapping[str, Any]) -> list[str]:
    share = row["share_of_peak"]
    return [
        row["name"],
        row["precision"] + ("" if row["gated"] else ", ungated"),
        row["layout"],
        f"{row['ms']:.0f} ({min(row['ms_rounds']):.0f}–{max(row['ms_rounds']):.0f})",
        *(f"{row[part + '_ms']:.0f}" for part in PARTS),
        f"{row['peak_mib']:.0f}",
        f"{ratio(eager, row):.2f}",
        f"{ratio(published, row):.2f}",
        "–" if share is None else f"{share:.0%}",
        f"{row['max_dp']:.1e}",
        f"{row['rank_correlation']:.5f}",
    ]


def ratio(reference: Mapping[str, Any], row: Mapping[str, Any]) -> float:
    """How many times as fast as the reference: the median over the rounds."""
    pairs = zip(reference["ms_rounds"], row["ms_rounds"], strict=True)
    return float(statistics.median(theirs / ours for theirs, ours in pairs))


def _named(rows: Sequence[Mapping[str, Any]], start: str) -> Mapping[str, Any]:
    return next(row for row in rows if row["name"].startswith(start) and row["precision"] == "f32")


def _front_ends(rows: Sequence[Mapping[str, Any]]) -> str:
    parts = []
    for engine in ("ONNX Runtime", "OpenVINO"):
        conv = _named(rows, f"(b) Conv1d mel, {engine}")["front_end_ms"]
        ours = _named(rows, f"(c) ours, {engine}")["front_end_ms"]
        parts.append(f"{ours:.0f} / {conv:.0f} ms = {ours / conv:.2f} in {engine}")
    return ", ".join(parts)


def _in_one_pass(rows: Sequence[Mapping[str, Any]], row: Mapping[str, Any]) -> str:
    """How fast a setup of one pass is beside those that rank worse, and better, than it."""
    times = {name: ratio(_named(rows, name), row) for name in (WINDOWS, PUBLISHED, THREE_PASSES)}
    words = IN_ONE_PASS[row["name"]]
    return (
        f"{words}, in {row['precision']}: {times[WINDOWS]:.2f} times as fast as ours "
        f"window by window, {times[PUBLISHED]:.2f} times as fast as (b, OpenVINO), and "
        f"{times[THREE_PASSES]:.2f} times as fast as its three passes."
    )


def _left_over(report: Mapping[str, Any]) -> str:
    """The gain of each step, and what bounds the remaining time."""
    rows, gflop = report["rows"], report["gflop_per_minute"]
    published, ours = _named(rows, PUBLISHED), _named(rows, WINDOWS)
    less = {part: published[part] - ours[part] for part in ("ms", "front_end_ms")}
    gains = [
        f"From (b, OpenVINO) to ours in f32, a minute takes {less['ms']:.0f} ms less, the front end "
        f"alone {less['front_end_ms']:.0f} ms"
    ]
    for row in rows:
        if row["name"] == ours["name"] and row["precision"] != "f32":
            gain = ours["networks_ms"] - row["networks_ms"]
            gains.append(f"{row['precision']} gives {gain:.0f} ms more in the networks")
    limits = ", ".join(
        f"{1000 * gflop / peak:.0f} ms at the peak of {name} ({peak:.0f} GFLOP/s)"
        for name, peak in report["peak_gflops"].items()
        if peak
    )
    return (
        f"{'; '.join(gains)}. What is left are the networks: their {gflop:.0f} GFLOP a minute would "
        f"take {limits}."
    )


def _scaling(runs: Sequence[Mapping[str, float]]) -> str:
    listed = ", ".join(
        f"{run['files']} files {run['seconds']:.0f} s, {run['cpu_seconds']:.0f} s of CPU and "
        f"{run['peak_mib']:.0f} MiB"
        for run in runs
    )
    first, second = slopes(runs)
    return (
        f"Cost, decode to CSV: {listed}; {first:.3f} and {second:.3f} s of CPU for each further file, "
        f"{abs(second / first - 1):.1%} apart."
    )


def slopes(runs: Sequence[Mapping[str, float]]) -> tuple[float, float]:
    """Seconds of CPU a file between the first two and the last two of three or more runs.

    CPU time, because the wall time of minutes depends on a shared machine more than on the program.
    """
    (a, b), (c, d) = runs[:2], runs[-2:]
    return (
        (b["cpu_seconds"] - a["cpu_seconds"]) / (b["files"] - a["files"]),
        (d["cpu_seconds"] - c["cpu_seconds"]) / (d["files"] - c["files"]),
    )


def chart(report: Mapping[str, Any], path: Path) -> None:
    """A bar for each setup, divided into the parts that its milliseconds go to."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    rows = report["rows"][::-1]
    labels = [f"{row['name']}, {row['precision']}" for row in rows]
    figure, axes = plt.subplots(figsize=(9, 0.5 * len(rows) + 1.6), layout="constrained")
    left = [0.0] * len(rows)
    for part in PARTS:
        widths = [max(0.0, row[f"{part}_ms"]) for row in rows]
        axes.barh(labels, widths, left=left, label=part.replace("_", " "))
        left = [a + b for a, b in zip(left, widths, strict=True)]
    for place, row in enumerate(rows):
        axes.text(left[place] + 5, place, f"{row['ms']:.0f}", va="center")
    axes.set_xlabel("ms a minute of audio, decode to probabilities")
    axes.set_title(report["machine"], fontsize=9)
    axes.legend(ncols=len(PARTS), fontsize=8)
    axes.margins(x=0.1)
    figure.savefig(path, dpi=110)
    plt.close(figure)
