"""The order of members and passes in which a submission spends its time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from birdkit.engines.layout import Layout
from birdkit.scoring.ensemble import Spec
from birdkit.scoring.parts import SoundFile
from export.gates import order
from train.scoring.evaluate import TruthSet


def test_each_member_comes_by_what_it_adds_to_those_before_it() -> None:
    aucs = {
        ("a",): 0.80,
        ("b",): 0.81,
        ("c",): 0.70,
        ("b", "a"): 0.82,  # a is the second best alone, but says what b says
        ("b", "c"): 0.85,
        ("b", "c", "a"): 0.84,
    }
    ordered, steps = order.greedy(["a", "b", "c"], lambda members: aucs[members])
    assert ordered == ["b", "c", "a"]
    assert steps == [0.81, 0.85, 0.84]


def test_members_keep_their_weights_in_whatever_order_they_come() -> None:
    rng = np.random.default_rng(0)
    files = tuple(SoundFile(Path(f"{i}.ogg"), 12) for i in range(6))
    labels = rng.random((72, 2)) < 0.3
    truth_set = TruthSet.of("soundscapes", files, labels, np.ones_like(labels))
    noise = rng.random((3, 72, 2))
    # The second member knows most; the third, much less than the first, knows what no other does.
    gains = np.zeros((3, 1, 2))
    gains[0], gains[1], gains[2, 0, 1] = 0.3, [[2.0, 0.1]], 0.8
    every = (noise + gains * labels).astype(np.float32)
    scores = np.split(every, 6, axis=1)
    spec = Spec({"a": 0.5, "b": 0.3, "c": 0.2})
    members, line = order.members_in_order(spec, scores, truth_set)
    assert next(iter(members)) == "b"
    assert members == spec.members
    best = truth_set.auc([of[1] for of in scores]).macro
    assert f"the first ones: macro-AUC b {best:.4f}, +" in line
    assert order.members_in_order(Spec({"a": 1.0}), [of[:1] for of in scores], truth_set)[1] == ""


def test_a_shift_is_worth_a_pass_where_it_does_not_lower_what_is_chosen_already() -> None:
    aucs = {
        (): 0.8,
        (0.25,): 0.81,
        (0.5,): 0.82,
        (0.75,): 0.79,
        (0.5, 0.25): 0.815,  # better than plain, not than what is chosen
        (0.5, 0.75): 0.82,
    }

    def auc(shifts: Sequence[float]) -> float:
        return aucs[tuple(shifts)]

    def worth(chosen: Sequence[float], shift: float) -> bool:
        return auc([*chosen, shift]) >= auc(chosen)

    chosen, tried = order.added_one_by_one((0.25, 0.5, 0.75), auc, worth)
    assert chosen == (0.5, 0.75)
    assert tried == ["plain 0.8000", "+0.5 0.8200", "+0.25 0.8150", "+0.75 0.8200"]


@pytest.mark.parametrize(
    ("stretches", "gain_in", "expected"),
    [
        (False, {0.5: 12, 0.25: 0, 0.75: 12}, (0.5, 0.75)),  # no worse is enough
        (True, {0.5: 12, 0.25: 0, 0.75: 12}, (0.5,)),  # twice the time must gain
        (True, {0.5: 1, 0.25: 0, 0.75: 0}, ()),  # and not by chance
    ],
)
def test_a_further_pass_must_be_worth_what_it_costs(
    stretches: bool,
    gain_in: dict[float, int],
    expected: tuple[float, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A pass knows the labels of so many of twelve soundscapes; with 0 it has all upside down."""
    rng = np.random.default_rng(0)
    files = tuple(SoundFile(Path(f"{i}.ogg"), 12) for i in range(12))
    labels = rng.random((144, 2)) < 0.3
    truth_set = TruthSet.of("soundscapes", files, labels, np.ones_like(labels))
    noise = [rng.random((1, 12, 2)) for _ in files]
    own = np.split(labels[None], 12, axis=1)

    def scores(loaded: Any, labelled: Any, streams: int, shift: float) -> dict[str, Any]:
        gains = [3.0] * gain_in[shift] + [-3.0 if not gain_in[shift] else 0.0] * (12 - gain_in[shift])
        each = zip(noise, gains, own, strict=True)
        return {"clipwise": [(a + gain * b).astype(np.float32) for a, gain, b in each]}

    monkeypatch.setattr(order, "member_scores", scores)
    loaded: Any = SimpleNamespace(hears_stretches=stretches)
    plain = [of.astype(np.float32) for of in noise]
    found, _ = order.further_passes(loaded, Spec({"m": 1.0}), plain, truth_set, Layout(1, 1, 1))
    assert found == expected
