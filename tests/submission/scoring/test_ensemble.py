from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from birdkit.contract import Contract
from birdkit.engines.engine import Answers, Engine
from birdkit.errors import UserError
from birdkit.scoring.ensemble import Ensemble, Spec, combine, common_contract
from birdkit.scoring.postprocess import smooth
from birdkit.scoring.window_scores import probabilities


class Constant:
    """An engine that answers each class with a fixed value, plus the window's mean."""

    def __init__(self, contract: Contract, clipwise: Sequence[float]) -> None:
        self.contract, self.clipwise = contract, np.array(clipwise, dtype=np.float32)

    def __call__(self, chunks: NDArray[np.float32]) -> Answers:
        clipwise = np.tile(self.clipwise, (len(chunks), 1)) + chunks.mean(axis=1, keepdims=True)
        return {"clipwise": clipwise, "segmentwise": np.log(clipwise / (1 - clipwise))}


@pytest.fixture
def engines(contract: Contract) -> dict[str, Engine]:
    return {"x": Constant(contract, [0.1, 0.2, 0.3]), "y": Constant(contract, [0.5, 0.5, 0.5])}


def test_members_are_averaged_by_weight(engines: dict[str, Engine]) -> None:
    spec = Spec({"x": 3.0, "y": 1.0})
    scores = Ensemble(engines, spec).score(np.zeros(1, np.float32), 2)
    assert scores.shape == (2, 2, 3)
    (mean, nothing) = combine([scores, None], spec)
    assert mean is not None
    np.testing.assert_allclose(mean, np.array([[0.2, 0.275, 0.35]] * 2), atol=1e-6)
    assert nothing is None


def test_ranks_are_among_all_windows_of_all_files_and_ties_share_theirs() -> None:
    spec = Spec({"x": 1.0, "y": 1.0}, averaging="rank")
    x = np.array([[0.1, 0.5], [0.9, 0.5]], np.float32)
    files = [np.stack([x, 0.01 * x]), np.stack([x + 0.05, 0.01 * x + 0.0005])]
    first, second = combine(files, spec)
    assert first is not None
    assert second is not None
    np.testing.assert_allclose(first, np.array([[0.25, 0.375], [0.75, 0.375]]))
    np.testing.assert_allclose(second, np.array([[0.5, 0.875], [1.0, 0.875]]))


def test_a_fused_file_answers_as_its_members_do_alone(
    engines: dict[str, Engine], contract: Contract
) -> None:
    class Fused:
        contract = replace(engines["x"].contract, members=("x", "y"))

        def __call__(self, chunks: NDArray[np.float32]) -> Answers:
            return {
                f"{name}.{output}": values
                for name, engine in engines.items()
                for output, values in engine(chunks).items()
            }

    spec = Spec({"x": 1.0, "y": 2.0}, files={"both": ["x", "y"]})
    waveform = np.random.default_rng(0).random(320_000, dtype=np.float32)
    apart = Ensemble(engines, spec).score(waveform, 2)
    np.testing.assert_array_equal(Ensemble({"both": Fused()}, spec).score(waveform, 2), apart)
    with pytest.raises(UserError, match="names the members x, but the model files hold x, y"):
        Ensemble({"both": Fused()}, Spec({"x": 1.0}))
    beyond = len(contract.classes)
    with pytest.raises(UserError, match=f"steady names class {beyond}, but the models have {beyond}"):
        Ensemble({"both": Fused()}, replace(spec, steady=(beyond,)))


def test_each_output_can_be_the_one_used(engines: dict[str, Engine]) -> None:
    of = {
        output: Ensemble(engines, Spec({"x": 1.0, "y": 1.0}, output)).score(np.zeros(9, np.float32), 1)
        for output in ("clipwise", "segmentwise")
    }
    np.testing.assert_allclose(of["clipwise"], of["segmentwise"], atol=1e-6)
    with pytest.raises(UserError, match="output 'framewise' is not among the model's"):
        Ensemble(engines, Spec({"x": 1.0, "y": 1.0}, "framewise")).score(np.zeros(9, np.float32), 1)


def test_members_may_hear_longer_but_must_agree_on_the_rest(
    engines: dict[str, Engine], contract: Contract
) -> None:
    longer = Contract(32000, 20.0, 5.0, contract.classes)
    both = Ensemble(engines | {"y": Constant(longer, [0.5] * 3)}, Spec({"x": 1.0, "y": 1.0}))
    assert both.contract.chunk_s == 20.0
    assert both.score(np.zeros(320_000, np.float32), 2).shape == (2, 2, 3)
    other = Contract(32000, 5.0, 5.0, ("b", "a", "1234"))
    with pytest.raises(UserError, match="members x and y differ in classes"):
        Ensemble(engines | {"y": Constant(other, [0.5] * 3)}, Spec({"x": 1.0, "y": 1.0}))


@given(st.lists(st.floats(-200, 200, width=32), min_size=1))
def test_the_sigmoid_never_overflows_and_keeps_the_order_of_faint_answers(logits: list[float]) -> None:
    values = np.array([sorted(logits)], dtype=np.float32)
    with np.errstate(over="raise", invalid="raise"):
        p = probabilities({"segmentwise": values}, "segmentwise")
    assert p.dtype == np.float32
    assert ((p >= 0) & (p <= 1)).all()
    np.testing.assert_allclose(p, 1 / (1 + np.exp(-values.astype(np.float64))), rtol=1e-5, atol=1e-40)
    assert (np.diff(p) >= 0).all()


def test_a_spec_survives_its_file_and_a_bad_one_is_named(tmp_path: Path) -> None:
    spec = Spec({"m": 2.0}, "segmentwise", (0.2, 0.6, 0.2))
    spec.save(tmp_path)
    loaded = Spec.load(tmp_path)
    assert (loaded.members, loaded.output, list(loaded.smoothing)) == (
        {"m": 2.0},
        "segmentwise",
        [0.2, 0.6, 0.2],
    )
    for text, message in [
        ("{", "can't be read"),
        ("[]", "can't be read"),
        ('{"version": 9, "members": {"m": 1}}', "version 9"),
    ]:
        (tmp_path / "ensemble.json").write_text(text)
        with pytest.raises(UserError, match=f"ensemble.json: .*{message}"):
            Spec.load(tmp_path)
    with pytest.raises(UserError, match=r"ensemble\.json: not found; run export/to_onnx\.py"):
        Spec.load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("members", {}, "needs members"),
        ("members", {"m": -1}, "needs members"),
        ("members", {"m": math.nan, "n": 1}, "needs members"),
        ("members", {"m": math.inf}, "needs members"),
        ("members", {"m": "1"}, "needs members"),
        ("members", {"m": 0}, "needs members"),
        ("members", ["m"], "can't be read"),
        ("members", {"../../m": 1}, r"'\.\./\.\./m' is no plain name"),
        ("files", {"../m": ["m"]}, r"'\.\./m' is no plain name"),
        ("files", {"f": ["m", "n"]}, "hold m, n, not its members"),
        ("files", ["m"], "can't be read"),
        ("output", "logits", "output 'logits' is none of"),
        ("output", ["clipwise"], "is none of"),
        ("averaging", "geometric", "'geometric' is none of"),
        ("precisions", ["fp4"], "precision 'fp4' is none of"),
        ("precisions", [4], "precision '4' is none of"),
        ("precisions", 4, "can't be read"),
        ("shifts", [0.5, 2], r"shifts \[0.5, 2\] must be between 0 and 1"),
        ("shifts", ["half"], "must be between 0 and 1"),
        ("shifts", [math.nan], "must be between 0 and 1"),
        ("shifts", 0.5, "can't be read"),
        ("smoothing", [0.5, 0.5], "odd number"),
        ("smoothing", [0, math.nan, 1], "odd number"),
        ("smoothing", [], "odd number"),
        ("steady_smoothing", [0.5, 0.5], "steady_smoothing .* odd number"),
        ("steady", [-1], "must be numbers of classes"),
        ("steady", [0.5], "must be numbers of classes"),
        ("steady", ["frog"], "must be numbers of classes"),
        ("steady", 1, "can't be read"),
    ],
)
def test_a_value_that_a_spec_cannot_have_is_named(
    key: str, value: object, message: str, tmp_path: Path
) -> None:
    values = {"version": 2, "members": {"m": 1}, key: value}
    (tmp_path / "ensemble.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=f"ensemble.json: .*{message}"):
        Spec.load(tmp_path)


def test_a_precision_that_was_removed_is_dropped_from_an_older_spec(tmp_path: Path) -> None:
    """fp16 was computed in f32, so f32 gives the same answers."""
    replace(Spec({"m": 1.0}), precisions=("bf16", "fp16")).save(tmp_path)
    assert Spec.load(tmp_path).precisions == ("bf16",)


def test_smoothing_weighs_neighbours_and_keeps_constants() -> None:
    one = np.zeros((1, 5, 1), dtype=np.float32)
    one[0, 2] = 1.0
    np.testing.assert_allclose(smooth(one, (1, 2, 1))[0, :, 0], [0, 0.25, 0.5, 0.25, 0])
    constant = np.full((2, 4, 3), 0.7, dtype=np.float32)
    np.testing.assert_allclose(smooth(constant, (0.1, 0.2, 0.4, 0.2, 0.1)), constant, rtol=1e-6)
    np.testing.assert_allclose(smooth(one[0], (1, 2, 1)), smooth(one, (1, 2, 1))[0])
    assert smooth(one, (1.0,)) is one
    assert smooth(one[:, :1], (1, 1, 1)).shape == (1, 1, 1)
    with pytest.raises(UserError, match="odd number"):
        smooth(one, (0.5, 0.5))


def test_classes_that_call_on_and_on_are_smoothed_besides(tmp_path: Path) -> None:
    spec = Spec({"m": 1.0}, smoothing=(1, 2, 1), steady=(2, 0), steady_smoothing=(1, 1, 1))
    spec.save(tmp_path)
    assert Spec.load(tmp_path) == spec
    scores = np.random.default_rng(0).random((7, 3), dtype=np.float32)
    (table,) = combine([scores[None]], spec)
    assert table is not None
    once = smooth(scores, spec.smoothing)
    np.testing.assert_array_equal(table[:, 1], once[:, 1])
    np.testing.assert_array_equal(table[:, [0, 2]], smooth(once[:, [0, 2]], (1, 1, 1)))


@pytest.mark.parametrize("field", ["sample_rate", "window_s", "outputs"])
def test_members_of_another_grid_or_sound_are_refused(contract: Contract, field: str) -> None:
    others: dict[str, Any] = {"sample_rate": 16000, "window_s": 2.5, "outputs": ("clipwise",)}
    other = replace(contract, **{field: others[field]})
    with pytest.raises(UserError, match=f"members x and y differ in {field}"):
        common_contract({"x": contract, "y": other})
