"""Which parts of recordings a page takes, and in what order."""

from __future__ import annotations

import numpy as np
import pytest

from train.pages.review.clips import Clip, all_clips, choose, highest_first, peaks, spread
from train.scoring.thresholds import logit


@pytest.mark.parametrize(
    "n_windows, counts", [(1, [1]), (12, [12]), (13, [7, 6]), (24, [12, 12]), (25, [9, 8, 8])]
)
def test_a_recording_is_cut_into_clips_of_a_minute_or_less(n_windows: int, counts: list[int]) -> None:
    clips = all_clips([None, np.zeros((n_windows, 2), np.float32)])
    assert [clip.count for clip in clips] == counts
    assert [clip.first for clip in clips] == np.cumsum([0, *counts[:-1]]).tolist()
    assert {clip.recording for clip in clips} == {1}


def test_the_peak_of_a_clip_is_that_of_its_own_windows() -> None:
    scores = np.zeros((24, 2), np.float32)
    scores[3, 0], scores[20, 1] = 0.9, 0.8
    np.testing.assert_array_equal(
        peaks([Clip(0, 0, 12), Clip(0, 12, 12)], [scores]), np.array([[0.9, 0], [0, 0.8]], np.float32)
    )


def test_each_class_has_its_highest_clip_before_any_has_its_second() -> None:
    of_clips = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.1, 0.6]])
    assert choose(of_clips, 2, highest_first) == [0, 3]
    assert choose(of_clips, 3, highest_first) == [0, 3, 1]
    assert sorted(choose(of_clips, 9, highest_first)) == [0, 1, 2, 3]


def test_clips_spread_over_the_range_have_its_ends_and_its_middle() -> None:
    of_class = np.random.default_rng(0).beta(0.3, 3, 700)
    chosen = spread(of_class, 32)
    assert len(set(chosen)) == 32
    assert of_class[chosen[:2]].tolist() == [of_class.max(), pytest.approx(of_class.min(), abs=1e-6)]
    levels = np.sort(logit(of_class[chosen]))
    # In logits they are as far apart as 32 of an even spread, where the highest ones alone are close.
    assert np.diff(levels).max() < 4 * (levels[-1] - levels[0]) / 31
    assert len(spread(of_class[:3], 32)) == 3
    assert len(spread(np.array([0.5]), 1)) == 1
