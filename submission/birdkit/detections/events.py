"""Detections: windows whose score reaches their class's threshold, joined on request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from birdkit.recordings.journal import Scored


@dataclass(frozen=True)
class Detection:
    """A class that was heard in a recording from `start_s` to `end_s`.

    The score is the largest of its windows.
    """

    start_s: float
    end_s: float
    label: int  # index of the class
    score: float
    n_windows: int


def detections(
    scored: Scored, thresholds: Sequence[float], window_s: float, *, join: bool
) -> list[Detection]:
    """The detections of a recording, in order of their start and class.

    Parameters
    ----------
    thresholds : of each class
    join : make one detection of windows that follow each other
    """
    reach = scored.scores >= np.asarray(thresholds, dtype=np.float32)[scored.classes]
    windows, labels = scored.windows[reach].astype(int), scored.classes[reach].astype(int)
    order = np.lexsort((windows, labels))
    windows, labels, scores = windows[order], labels[order], scored.scores[reach][order]
    follows = (np.diff(windows) == 1) & (np.diff(labels) == 0) & join
    runs = np.split(np.arange(len(windows)), np.flatnonzero(~follows) + 1)
    found = [
        Detection(
            float(windows[run[0]] * window_s),
            min(float((windows[run[-1]] + 1) * window_s), scored.sound.duration_s),
            int(labels[run[0]]),
            float(scores[run].max()),
            len(run),
        )
        for run in runs
        if len(run)
    ]
    return sorted(found, key=lambda one: (one.start_s, one.label))


def moment(start: str, offset_s: float) -> str:
    """The ISO 8601 time of a moment in a recording; empty where its start is unknown."""
    return (datetime.fromisoformat(start) + timedelta(seconds=offset_s)).isoformat() if start else ""
