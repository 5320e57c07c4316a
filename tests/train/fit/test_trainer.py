"""Killed anywhere, the rerun ends as the run that was not: bitwise, on a CPU with fixed threads."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from birdkit import files
from birdkit.contract import Contract
from birdkit.errors import UserError
from tests.conftest import ROOT, TINY, tiny_job, tiny_predictor
from tests.train.config.test_job import version_3
from train import run as train_run
from train.config.job import Job
from train.config.provenance import differences
from train.data.augment import mixed_evenly
from train.fit import trainer as fit
from train.fit.precision import Precision
from train.fit.trainer import lr_factor
from train.models import checkpoint
from train.rounds import training

# Of 0.4 M parameters; like the encoders that win, it has depthwise convolutions and drop path.
ENCODER = "test_efficientnet"
# Everything random is on: masks, mixing, noise, dropout, drop path, the moving average.
SETTINGS = [
    *TINY,
    f"models.encoder={ENCODER}",
    "models.drop_path_rate=0.2",
    "models.drop_rate=0.5",
    "fit.batch=4",
    "fit.steps_per_epoch=3",
    "fit.epochs=2",
    "fit.checkpoint_every_s=0.0",  # after every step
    "rounds=[{}]",
]


Outcome = tuple[dict[str, Any], dict[str, Tensor]]  # history and final weights


class Killed(BaseException):
    """Stands for a kill: nothing in the code may catch it."""


def train(competition: Path, out: Path, *overrides: str, restart: bool = False) -> int:
    arguments = ["--recipe", "demo", "--data", str(competition), "--out", str(out), "--device", "cpu"]
    for override in [*SETTINGS, *overrides]:
        arguments += ["--set", override]
    return train_run.main([*arguments, *(["--restart"] if restart else [])])


def outcome(out: Path, encoder: str = ENCODER) -> Outcome:
    folder = out / "round0" / encoder
    history = json.loads((folder / "history.json").read_text())
    return history, checkpoint.Final.load(folder / "final.pt").state


@pytest.fixture(scope="module")
def whole(competition: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert train(competition, out) == 0
    return out


@pytest.fixture(scope="module")
def uninterrupted(whole: Path) -> Outcome:
    return outcome(whole)


def assert_same(found: Outcome, expected: Outcome) -> None:
    assert found[0]["losses"] == expected[0]["losses"]
    assert found[0] == expected[0]
    assert found[1].keys() == expected[1].keys()
    assert all(torch.equal(found[1][key], expected[1][key]) for key in expected[1])


@pytest.mark.slow
@pytest.mark.parametrize("at_step", [4, 0])
def test_killed_mid_epoch(
    competition: Path,
    uninterrupted: Outcome,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at_step: int,
) -> None:
    step = fit.Trainer.step

    def dies(self: fit.Trainer, waveforms: Tensor, targets: Tensor, number: int) -> Tensor:
        if number == at_step:
            raise Killed
        return step(self, waveforms, targets, number)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(fit.Trainer, "step", dies)
        train(competition, tmp_path)
    assert train(competition, tmp_path) == 0
    assert_same(outcome(tmp_path), uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("at_write", [4, 2])
def test_killed_mid_checkpoint_write(
    competition: Path,
    uninterrupted: Outcome,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at_write: int,
) -> None:
    """Half a file is not what counts, but the last whole state."""
    writes = []

    def dies(content: Any, file: Any) -> None:
        writes.append(1)
        if len(writes) == at_write:
            file.write(b"half a checkp")
            raise Killed
        torch_save(content, file)

    torch_save = torch.save
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(torch, "save", dies)
        train(competition, tmp_path)
    litter = tmp_path / "round0" / ENCODER / "state.pt.0.partial"
    litter.touch()  # a kill leaves it there
    assert train(competition, tmp_path) == 0
    assert not litter.exists()
    assert_same(outcome(tmp_path), uninterrupted)


def test_a_second_training_in_one_folder_is_told_who_holds_it(
    competition: Path, tmp_path: Path
) -> None:
    holder = rf"process {os.getpid()} on .* is writing there; .* or give another --out"
    with files.locked(tmp_path), pytest.raises(UserError, match=holder):
        train(competition, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_killed_in_validation(
    competition: Path, uninterrupted: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*arguments: object) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(training, "evaluate", dies)
        train(competition, tmp_path)
    assert train(competition, tmp_path) == 0
    assert_same(outcome(tmp_path), uninterrupted)


def command(competition: Path, out: Path, *overrides: str) -> list[str]:
    """The same training as a process of its own."""
    script = str(ROOT / "train" / "run.py")
    arguments = ["--recipe", "demo", "--data", str(competition), "--out", str(out), "--device", "cpu"]
    for override in [*SETTINGS, *overrides]:
        arguments += ["--set", override]
    return [sys.executable, script, *arguments]


def same_threads() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}


def test_a_finished_run_is_kept_and_trained_again_only_where_it_changed_and_restarts(
    competition: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ["models.encoder=test_resnet", "models.drop_path_rate=0.0", "fit.steps_per_epoch=1"]
    assert train(competition, tmp_path, *quick) == 0
    made_at = (tmp_path / "round0" / "test_resnet" / "final.pt").stat().st_mtime_ns
    assert train(competition, tmp_path, *quick) == 0
    assert (tmp_path / "round0" / "test_resnet" / "final.pt").stat().st_mtime_ns == made_at
    assert "done already" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"final\.pt: finished with another job\.fit\.lr; .*--restart"):
        train(competition, tmp_path, *quick, "fit.lr=0.002")
    assert (tmp_path / "round0" / "test_resnet" / "final.pt").stat().st_mtime_ns == made_at
    assert train(competition, tmp_path, *quick, "fit.lr=0.002", restart=True) == 0
    assert (tmp_path / "round0" / "test_resnet" / "final.pt").stat().st_mtime_ns > made_at
    assert "made with another job.fit.lr" in capsys.readouterr().out


def test_a_setting_that_the_kit_has_learnt_since_redoes_nothing(
    contract: Contract, tmp_path: Path
) -> None:
    wanted = checkpoint.made_by(tiny_job(), "data", {})

    def changed(job: dict[str, Any]) -> list[str]:
        predictor = tiny_predictor(contract)
        final = checkpoint.Final(contract, wanted | {"job": job}, "", "", {}, predictor.state_dict())
        final.save(tmp_path / "final.pt")
        return differences(wanted, checkpoint.Final.load(tmp_path / "final.pt").made_by)

    old, other = copy.deepcopy(wanted["job"]), copy.deepcopy(wanted["job"])
    del old["augment"]["afar"], old["pseudo"]["gain_db"]
    other["augment"]["afar"] = 0.5
    assert changed(old) == []
    assert changed(other) == ["job.augment.afar"]
    assert "job.colour" in changed(old | {"colour": "blue"})


def in_version_3(content: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint as the last version wrote it."""
    job = Job.from_table(content["made_by"]["job"], "here")
    recipe = json.dumps(version_3(job))
    made_by = {"recipe": recipe, **{k: content["made_by"][k] for k in ("data", "parents")}}
    return content | {"version": 3, "made_by": made_by}


@pytest.mark.slow
def test_a_run_of_version_3_is_read_and_neither_trained_again_nor_begun_anew(
    competition: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ["models.encoder=test_resnet", "models.drop_path_rate=0.0", "fit.steps_per_epoch=1"]
    assert train(competition, tmp_path, *quick) == 0
    folder = tmp_path / "round0" / "test_resnet"
    for name in ("final.pt", "state.pt"):
        torch.save(in_version_3(torch.load(folder / name, weights_only=True)), folder / name)
    assert train(competition, tmp_path, *quick) == 0
    assert "done already" in capsys.readouterr().out
    (folder / "final.pt").unlink()
    assert train(competition, tmp_path, *quick) == 0
    assert "going on after step 2 of 2" in capsys.readouterr().out


@pytest.mark.slow
def test_loader_processes_change_nothing(
    competition: Path, uninterrupted: Outcome, tmp_path: Path
) -> None:
    """In a process of its own: torch's loader leaves signal handlers behind."""
    with_workers = command(competition, tmp_path, "data.workers=2")
    subprocess.run(with_workers, env=same_threads(), check=True, stdout=subprocess.DEVNULL)
    history, _ = outcome(tmp_path)
    assert history["losses"] == uninterrupted[0]["losses"]


def test_a_loss_that_is_no_number_stops_the_run_with_a_remedy(
    competition: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit.Trainer, "step", lambda *arguments: torch.tensor(torch.nan))
    with pytest.raises(UserError, match=r"the loss is nan at step 0; lower fit\.lr"):
        train(competition, tmp_path)


@pytest.mark.slow
def test_the_moving_average_is_what_is_kept_and_it_lags_behind_the_weights(whole: Path) -> None:
    folder = whole / "round0" / ENCODER
    state, final = checkpoint.read(folder / "state.pt"), checkpoint.Final.load(folder / "final.pt")
    key = "network.att_block.cla.weight"
    assert torch.equal(final.state[key], state["ema"][key])
    assert not torch.equal(final.state[key], state["model"][key])
    norm = "network.encoder.bn1.running_var"
    assert not torch.equal(final.state[norm], state["model"][norm])  # buffers are averaged too


def test_the_learning_rate_warms_up_and_ends_at_zero() -> None:
    factors = [lr_factor(step, 100, 0.1) for step in range(100)]
    assert factors[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert max(factors) == 1.0
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[-1] < 0.001


def test_from_average_from_on_the_rate_stays_and_the_plain_mean_of_the_weights_is_kept(
    contract: Contract,
) -> None:
    def trainer() -> fit.Trainer:
        job = tiny_job("fit.average_from=0.5", "fit.amp=f32")
        return fit.Trainer(tiny_predictor(contract), job, 8, torch.device("cpu"))

    whole, target = trainer(), torch.eye(3)
    sounds = torch.sin(torch.arange(160_000) * torch.tensor([[0.1], [0.4], [1.5]]))
    rates, weights = [], []
    for step in range(8):
        whole.step(sounds, target, step)
        rates.append(whole.optimizer.param_groups[0]["lr"])
        weights.append(whole.predictor.network.hidden.weight.detach().clone())
        if step == 5:
            resumed = trainer()
            resumed.load_state(copy.deepcopy(whole.state()))
    assert rates[2] > rates[3] > rates[4] == rates[5] == rates[7] > 0
    mean = torch.stack(weights[4:]).mean(dim=0)
    torch.testing.assert_close(whole.averaged().network.hidden.weight, mean)
    assert not torch.allclose(mean, weights[-1])
    for step in (6, 7):
        resumed.step(sounds, target, step)
    assert torch.equal(resumed.averaged().network.hidden.weight, whole.averaged().network.hidden.weight)


@pytest.mark.parametrize(("grad_clip", "clipped"), [(1e-3, True), (0.0, False)])
def test_gradients_are_clipped_to_a_norm_and_by_zero_not_at_all(
    contract: Contract, grad_clip: float, clipped: bool
) -> None:
    job = tiny_job(f"fit.grad_clip={grad_clip}", "fit.amp=f32")
    trainer = fit.Trainer(tiny_predictor(contract), job, 8, torch.device("cpu"))
    trainer.step(torch.randn(3, contract.chunk_samples), torch.eye(3), 0)
    gradients = [p.grad for p in trainer.predictor.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    assert (norm <= 1.01e-3) == clipped


def test_log_mels_are_those_of_the_whole_batch(contract: Contract) -> None:
    trainer = fit.Trainer(tiny_predictor(contract), tiny_job(), 8, torch.device("cpu"))
    chunks = torch.randn(2 * fit.CPU_CHUNKS + 3, contract.chunk_samples)
    whole = trainer.predictor.front_end(chunks)
    torch.testing.assert_close(trainer._log_mel(chunks), whole, rtol=0, atol=1e-6)


def test_precision_is_what_the_device_has() -> None:
    cpu = torch.device("cpu")
    assert Precision.choose(cpu, "fp16").grad_scaler().is_enabled()
    assert not Precision.choose(cpu, "bf16").grad_scaler().is_enabled()
    assert Precision.choose(cpu, "auto").dtype in (torch.bfloat16, torch.float32)


@pytest.mark.parametrize("amp", ["fp16", "bf16"])
def test_half_precision_learns_and_its_scale_is_part_of_the_state(contract: Contract, amp: str) -> None:
    def trainer() -> fit.Trainer:
        job = tiny_job(f"fit.amp={amp}", "augment.freq_masks=0", "augment.time_masks=0")
        return fit.Trainer(tiny_predictor(contract), job, 8, torch.device("cpu"))

    first, target = trainer(), torch.eye(3)
    sounds = torch.sin(torch.arange(160_000) * torch.tensor([[0.1], [0.4], [1.5]]))
    losses = [first.step(sounds, target, step) for step in range(6)]
    assert losses[-1] < losses[0]
    again = trainer()
    again.load_state(first.state())
    assert again.scaler.state_dict() == first.scaler.state_dict()
    assert again.step(sounds, target, 6) == first.step(sounds, target, 6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_a_resumed_run_ends_within_a_hundredth(
    competition: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """cuDNN and atomics reorder sums, so it is not bitwise there."""
    arguments = ["--recipe", "demo", "--data", str(competition), "--device", "cuda"]
    for override in SETTINGS:
        arguments += ["--set", override]
    assert train_run.main([*arguments, "--out", str(tmp_path / "whole")]) == 0
    step = fit.Trainer.step

    def dies(self: fit.Trainer, waveforms: Tensor, targets: Tensor, number: int) -> Tensor:
        if number == 4:
            raise Killed
        return step(self, waveforms, targets, number)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(fit.Trainer, "step", dies)
        train_run.main([*arguments, "--out", str(tmp_path / "killed")])
    assert train_run.main([*arguments, "--out", str(tmp_path / "killed")]) == 0
    whole, killed = (outcome(tmp_path / name)[0]["losses"] for name in ("whole", "killed"))
    assert killed == pytest.approx(whole, rel=1e-2)


def test_convolutions_are_searched_for_in_steps_and_not_where_validation_has_other_sizes(
    contract: Contract, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = fit.Trainer(tiny_predictor(contract), tiny_job(), 2, torch.device("cpu"))
    backward, seen = trainer._backward, []

    def watched(*micro_batch: Any) -> Tensor:
        seen.append(torch.backends.cudnn.benchmark)
        return backward(*micro_batch)

    monkeypatch.setattr(trainer, "_backward", watched)
    trainer.step(torch.randn(3, 160_000), torch.eye(3), 0)
    assert seen == [True]
    assert not torch.backends.cudnn.benchmark


def test_a_stranger_s_pickle_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (os.mkdir, (str(tmp_path / "owned"),))

    torch.save({"version": checkpoint.VERSION, "evil": Evil()}, tmp_path / "final.pt")
    with pytest.raises(UserError, match=r"final\.pt: not a checkpoint"):
        checkpoint.Final.load(tmp_path / "final.pt")
    assert not (tmp_path / "owned").exists()


def test_a_checkpoint_of_another_version_is_named(tmp_path: Path) -> None:
    torch.save({"version": 99}, tmp_path / "final.pt")
    with pytest.raises(UserError, match="checkpoint version 99, this kit reads 3 and 4"):
        checkpoint.Final.load(tmp_path / "final.pt")


def test_each_step_draws_masks_of_its_own(contract: Contract, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def recorded(log_mel: Tensor, config: Any, draws: Tensor) -> Tensor:
        seen.append(draws)
        return log_mel

    monkeypatch.setattr(fit, "spec_augment", recorded)
    trainer = fit.Trainer(tiny_predictor(contract), tiny_job(), 8, torch.device("cpu"))
    for step in (0, 1, 1):
        trainer.step(torch.zeros(2, contract.chunk_samples), torch.zeros(2, 3), step)
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(seen[1], seen[2])


def test_mixmax_hears_each_pair_of_the_batch_mixed_and_adds_its_weight(
    contract: Contract, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = []

    def recorded(mix: Any, first: Any, second: Any, config: Any) -> Tensor:
        heard.append([tuple(answer.shape[0] for answer in of) for of in (mix, first, second)])
        return torch.tensor(10.0)

    monkeypatch.setattr(fit, "mixmax", recorded)
    chunks, targets = torch.randn(5, contract.chunk_samples), torch.zeros(5, 3)

    def loss(weight: float) -> float:
        job = tiny_job(f"fit.mixmax={weight}")
        trainer = fit.Trainer(tiny_predictor(contract), job, 8, torch.device("cpu"))
        return float(trainer.step(chunks, targets, 0))

    plain = loss(0.0)
    assert not heard
    assert loss(0.5) == pytest.approx(plain + 5.0, rel=1e-5)
    assert heard == [[(2, 2), (2, 2), (2, 2)]]  # of five chunks two pairs


def test_a_pair_is_mixed_evenly_and_stays_within_full_scale() -> None:
    t = torch.arange(3200) / 3200
    first, second = (torch.sin(2 * torch.pi * hz * t)[None] for hz in (50, 300))
    mixed = mixed_evenly(first, 0.01 * second)
    power = torch.fft.rfft(mixed).abs()[0]
    assert power[50] == pytest.approx(float(power[300]), rel=1e-3)
    assert mixed.abs().max() == pytest.approx(1.0)
    silence = torch.zeros_like(first)
    torch.testing.assert_close(mixed_evenly(first, silence), first, atol=2e-3, rtol=2e-3)
    assert not mixed_evenly(silence, silence).any()
