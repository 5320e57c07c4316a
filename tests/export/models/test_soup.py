"""A soup is the mean of its members' weights, of members that share a start, with nothing shared."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from birdkit.errors import UserError
from birdkit.scoring.ensemble import Spec
from export import to_onnx
from export.benchmark import comparison
from export.models import members, soup
from export.models.members import Checkpoints
from train.models.checkpoint import Final, sha256
from train.rounds.runner import START

Runs = tuple[Path, Path]


def moved(final: Final, by: float, start: str) -> Final:
    """The model a training away from another one of this hash."""
    state = {k: v + by if v.is_floating_point() else v + 1 for k, v in final.state.items()}
    parents = final.made_by["parents"] | {START: start}
    return replace(final, state=state, made_by=final.made_by | {"parents": parents})


@pytest.fixture
def runs(run_dir: Path, tmp_path: Path) -> Runs:
    """A run of two members, and another whose first member went on from the first one's first."""
    one, other = (Path(shutil.copytree(run_dir, tmp_path / name)) for name in ("one", "other"))
    start = one / "round0" / "test_resnet" / "final.pt"
    moved(Final.load(start), 0.002, sha256(start)).save(other / start.relative_to(one))
    path = other / "round0" / "test_resnet-2" / "final.pt"
    strange = Final.load(path)
    moved(strange, 0.0, "0" * 64).save(path)
    return one, other


def family(checkpoints: Checkpoints) -> list[str]:
    return [name for name in checkpoints.finals if name.endswith("test_resnet")]


def test_a_soup_is_the_mean_of_every_weight_and_shares_no_tensor(run_dir: Path) -> None:
    first = members.load([run_dir]).finals["test_resnet"]
    others = [replace(moved(first, by, ""), trained_on=(f"{by}.ogg",)) for by in (0.3, 0.6)]
    mixed = soup.mean([first, *others])
    for key, value in mixed.state.items():
        every = [final.state[key] for final in (first, *others)]
        assert value.dtype == every[0].dtype
        assert all(value.data_ptr() != other.data_ptr() for other in every)
        if value.is_floating_point():
            slow = np.mean([other.numpy().astype(float) for other in every], axis=0)
            np.testing.assert_allclose(value.numpy(), slow, rtol=1e-6, atol=1e-7)
        else:
            assert torch.equal(value, every[0])
    assert mixed.trained_on == ("0.3.ogg", "0.6.ogg")
    assert mixed.metrics == {}
    before = first.state["network.att_block.att.weight"].clone()
    for of in (mixed, soup.mean([first])):
        of.state["network.att_block.att.weight"].add_(1.0)
    assert torch.equal(first.state["network.att_block.att.weight"], before)
    mixed.predictor()  # loads strictly


def test_members_that_share_a_start_become_one_and_the_others_stay(runs: Runs) -> None:
    checkpoints = members.load(runs)
    mixed, (line,) = soup.cook(checkpoints, None)
    assert set(mixed.finals) == {"one-test_resnet-soup", "one-test_resnet-2", "other-test_resnet-2"}
    assert line == "one-test_resnet-soup: mean of the weights of one-test_resnet, other-test_resnet"
    names = family(checkpoints)
    made_by = mixed.made_by("one-test_resnet-soup")
    assert made_by["soup_of"] == {name: sha256(checkpoints.paths[name]) for name in names}
    assert made_by["checkpoint_sha256"] not in made_by["soup_of"].values()
    assert "soup_of" not in mixed.made_by("one-test_resnet-2")


def test_members_of_one_start_that_is_not_there_are_kin_and_those_of_no_start_are_refused(
    runs: Runs,
) -> None:
    checkpoints = members.load(runs)
    finals = checkpoints.finals
    siblings = {
        name: moved(final, 0.1 * number, "f" * 64)
        for number, (name, final) in enumerate(finals.items())
    }
    mixed, _ = soup.cook(replace(checkpoints, finals=siblings), None)
    assert list(mixed.finals) == ["one-test_resnet-soup"]
    with pytest.raises(UserError, match="--soup: no two members are of one architecture and went on"):
        soup.cook(members.load(runs[:1]), None)
    wider = {
        name: replace(final, contract=replace(final.contract, chunk_s=5.0 + number))
        for number, (name, final) in enumerate(siblings.items())
    }
    with pytest.raises(UserError, match="no two members are of one architecture"):
        soup.cook(replace(checkpoints, finals=wider), None)


def test_a_greedy_soup_keeps_what_ranks_no_worse_from_the_best_on(runs: Runs) -> None:
    checkpoints = members.load(runs[:1])
    first = checkpoints.finals["test_resnet"]
    key = "network.att_block.att.bias"

    def level(final: Final) -> Tensor:
        return (final.state[key] - first.state[key]).mean()

    # The best bias lies at 1: the mean of 0.6 and 1.6 is nearer than 0.6, and with 2.5 it is farther.
    levels = {"low": 0.6, "high": 1.6, "far": 2.5}
    finals = {name: moved(first, by, "f" * 64) for name, by in levels.items()}
    paths = dict.fromkeys(levels, checkpoints.paths["test_resnet"])

    def score(final: Final) -> float:
        return 1.0 - abs(float(level(final)) - 1.0)

    mixed, (line,) = soup.cook(Checkpoints(finals, paths), score)
    assert set(mixed.soups["low-soup"]) == {"low", "high"}
    assert float(level(mixed.finals["low-soup"])) == pytest.approx(1.1, abs=1e-4)
    assert "macro-AUC 0.9000, alone low 0.6000, high 0.4000, far -0.5000; left out: far" in line


def test_a_soup_is_exported_with_what_it_was_mixed_of(
    runs: Runs, competition: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model"
    arguments = [*map(str, runs), "--out", str(out)]
    with pytest.raises(UserError, match="--soup greedy has nothing to choose on, since --data was not"):
        to_onnx.main([*arguments, "--soup", "greedy"])
    assert to_onnx.main([*arguments, "--soup", "greedy", "--data", str(competition)]) == 0
    said = capsys.readouterr().out
    assert "one-test_resnet-soup: mean of the weights of " in said
    stems = Spec.load(out).stems
    assert len(stems) == 3
    made_by = comparison.made_by(out / "one-test_resnet-soup.onnx")["one-test_resnet-soup"]
    assert made_by["soup_of"]
    assert made_by["weights_from"].startswith("soup of ")
    assert json.loads((out / "ensemble.json").read_text())["members"].keys() == set(stems)
