"""The SED model of the 6th place of BirdCLEF+ 2025: timm encoder, attention over time, two outputs.

`Predictor` is the front end and the network in eval mode: the one module that validation, pseudo
labelling and export call.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from birdkit.contract import Contract
from birdkit.errors import UserError
from train.config.settings import FrontEnd, Model
from train.models import encoder
from train.models.frontend import LogMel, n_frames


class AttBlockV2(nn.Module):
    """Attention over time: the head of PANNs (https://arxiv.org/abs/1912.10211), as in the write-up.

    (batch, features, frames) → clipwise (batch, classes), attention and framewise probabilities, both
    (batch, classes, frames).
    """

    def __init__(self, n_features: int, n_classes: int) -> None:
        super().__init__()
        self.att = nn.Conv1d(n_features, n_classes, kernel_size=1)
        self.cla = nn.Conv1d(n_features, n_classes, kernel_size=1)
        for conv in (self.att, self.cla):
            nn.init.xavier_uniform_(conv.weight)
        nn.init.zeros_(self.att.bias)  # type: ignore[arg-type]
        # About one class in n_classes is present. From even odds, a short training would spend its
        # first epochs on this bias alone (the prior of RetinaNet, https://arxiv.org/abs/1708.02002).
        nn.init.constant_(self.cla.bias, -math.log(max(2, n_classes) - 1.0))  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        norm_att = torch.softmax(torch.tanh(self.att(x)), dim=-1)
        cla = fine_sigmoid(self.cla(x))
        return (norm_att * cla).sum(dim=2), norm_att, cla


def fine_sigmoid(logit: Tensor) -> Tensor:
    """The sigmoid, of any shape, with small values exact to their last digits in every engine.

    ONNX Runtime's own Sigmoid has an absolute error of 6e-8. Most clipwise values are far below 1e-3,
    where that is an error of a percent and more, and macro-AUC depends on their order.
    """
    # The clamp at -80 keeps exp, and so the gradient, finite.
    return 1.0 / (1.0 + torch.exp(-logit.clamp(min=-80.0)))


class SedNetwork(nn.Module):
    """Log-mel (batch, 1, mels, frames) → clipwise probabilities and segmentwise logits.

    Both are (batch, classes).

    The write-up does not say what lies between encoder and attention. Here it is what SED models have
    shared since PANNs: mean over frequency, max plus mean pooling over three frames, one hidden layer.
    """

    def __init__(self, config: Model, n_classes: int, n_mels: int, n_frames: int) -> None:
        super().__init__()
        self.encoder, self.features = encoder.build(config, n_mels, n_frames)
        n_features: int = self.encoder.num_features  # type: ignore[assignment]
        self.drop_rate = config.drop_rate
        self.hidden = nn.Linear(n_features, n_features)
        self.att_block = AttBlockV2(n_features, n_classes)

    def forward(self, log_mel: Tensor, answer_share: float = 1.0) -> tuple[Tensor, Tensor]:
        """Clipwise and segmentwise for the central share `answer_share` of the frames."""
        clipwise, framewise_logit = self.over_time(log_mel, answer_share)
        return clipwise, framewise_logit.max(dim=2)[0]

    def over_time(self, log_mel: Tensor, answer_share: float = 1.0) -> tuple[Tensor, Tensor]:
        """Clipwise, and the framewise logits (batch, classes, frames) whose maxima are segmentwise."""
        return self.answers_over_time(self.encoded(log_mel), answer_share)

    def answers_over_time(self, encoded: Tensor, answer_share: float = 1.0) -> tuple[Tensor, Tensor]:
        """What `over_time` gives, from what the encoder made of the log-mel."""
        x = self.hidden_features(encoded)
        first, last = central_frames(x.shape[2], answer_share)
        x = x[:, :, first:last]
        clipwise, _, _ = self.att_block(x)
        return clipwise, self.att_block.cla(x)

    def framewise(self, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """Framewise logits, and the attention before its softmax: both (batch, frames, classes)."""
        x = self.hidden_features(self.encoded(log_mel))
        attention = torch.tanh(self.att_block.att(x))
        return self.att_block.cla(x).transpose(1, 2), attention.transpose(1, 2)

    def encoded(self, log_mel: Tensor) -> Tensor:
        """(batch, 1, mels, frames) → (batch, features, mels, frames), each by the encoder's stride."""
        features: Tensor = self.features(self.encoder, 2.0 * log_mel - 1.0)
        return features

    def hidden_features(self, encoded: Tensor) -> Tensor:
        """(batch, features, mels, frames) of the encoder → (batch, features, frames)."""
        x = encoded.mean(dim=2)  # (batch, features, frames)
        x = nn.functional.max_pool1d(x, 3, 1, 1) + nn.functional.avg_pool1d(x, 3, 1, 1)
        x = nn.functional.dropout(x, self.drop_rate, self.training)
        x = torch.relu(self.hidden(x.transpose(1, 2))).transpose(1, 2)
        return nn.functional.dropout(x, self.drop_rate, self.training)


class Predictor(nn.Module):
    """Waveform (batch, input_samples) in [-1, 1] → the contract's outputs.

    Clipwise and segmentwise of the central window, or with stretches framewise logits and attention.
    """

    def __init__(self, frontend: FrontEnd, model: Model, contract: Contract) -> None:
        super().__init__()
        self.contract = contract
        self.model = model
        self.front_end = LogMel(frontend)
        frames = self.front_end.n_frames(contract.chunk_samples)
        self.network = SedNetwork(model, len(contract.classes), frontend.n_mels, frames)

    def forward(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        return self.answers(self.front_end.of(waveform, self.contract))

    def answers(self, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mel (batch, 1, mels, frames) of what the contract hears → the contract's outputs."""
        contract, network = self.contract, self.network
        if not contract.stretch_s:
            return network(log_mel, contract.window_s / contract.chunk_s)
        if not contract.by_window:
            return network.framewise(log_mel)
        of_windows = network.framewise(self.front_end.by_window(log_mel, contract))
        n_frames, n_classes = contract.stretch_windows * of_windows[0].shape[1], len(contract.classes)
        framewise, attention = (each.reshape(-1, n_frames, n_classes) for each in of_windows)
        return framewise, attention

    def over_stretches(self, stretch_s: float) -> Predictor:
        """The same model, with the same weights in memory, where it hears stretches."""
        other = copy.copy(self)
        other.contract = over_stretches(self.front_end.config, self.model, self.contract, stretch_s)
        return other


def over_stretches(frontend: FrontEnd, model: Model, contract: Contract, stretch_s: float) -> Contract:
    """The contract of a model that hears stretches, with the length of its frames.

    Both are found with shapes alone. Raises `UserError` where the encoder can't hear so much at once.
    """
    rates = model.drop_rate, model.drop_path_rate

    def features(seconds: float) -> encoder.Features:
        frames = n_frames(frontend, round(seconds * contract.sample_rate))
        return encoder.probe(model.encoder, *rates, frontend.n_mels, frames)

    of_chunk = features(contract.chunk_s)
    if features(stretch_s) != of_chunk:
        raise UserError(
            f"models.encoder {model.encoder!r} needs log-mels of another length than that of "
            f"{stretch_s:g} s; give stretches of another length, or of 0 s"
        )
    stride = encoder.stride(model.encoder, of_chunk, frontend.n_mels)
    return contract.over_stretches(stretch_s, stride * frontend.hop / frontend.sample_rate)


def central_frames(n_frames: int, share: float) -> tuple[int, int]:
    """First and one past the last of the frames that touch the central `share` of them."""
    margin = n_frames * (1.0 - share) / 2
    return math.floor(margin + 1e-6), math.ceil(n_frames - margin - 1e-6)
