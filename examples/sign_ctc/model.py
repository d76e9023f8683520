"""Sign-language CTC network: temporal MobileNetV3 blocks at stride 4, back to T, one BiLSTM.

Padding cannot be seen from a real frame, though strided convolutions, a transposed one and the
backward direction of an LSTM all look ahead:

* padded frames are zero before every operation that sees time, which is what the convolution's own
  padding is at the end of a sequence; lengths follow the stride;
* the transposed convolution has kernel = stride, so a frame comes from one frame of the slow axis;
* the norm is per frame: BatchNorm would count padding in its statistics;
* the BiLSTM is two one-way LSTMs. The second reads each row reversed *within its length*, so that
  it meets the padding last. The reversal is a gather, as packed sequences cannot be exported.

Squeeze-and-excitation averages over a window around each frame. Averaging over all of time, as the
image network does, gives every frame the same gate, and is one step from every frame the same.
"""

from __future__ import annotations

from typing import Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.models.transformer import CtcTransformer, Encoder

FEATURES: Final = 6516
STRIDE: Final = 4
KERNEL: Final = 5
GAIN: Final = 0.5
"""Of the transformer's Xavier initialisation."""
WINDOW: Final = 9
"""Frames that a squeeze averages over."""


def real_frames(frames: Tensor, count: int) -> Tensor:
    """Which of `count` frames are real, ``bool[B, 1, count]``, for ``frames int[B]``."""
    return torch.arange(count, device=frames.device) < frames[:, None, None]


class FrameNorm(nn.Module):
    """LayerNorm over the channels of each frame of ``[B, C, T]``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.norm(x.transpose(1, 2))).transpose(1, 2)


class WindowExcite(nn.Module):
    """Squeeze-and-excitation whose squeeze is the mean over the real frames of a window."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(8, channels // 4)
        self.squeeze = nn.Conv1d(channels, hidden, 1)
        self.excite = nn.Conv1d(hidden, channels, 1)

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """Gate ``x [B, C, T]``, zero where ``real [B, 1, T]`` is; T stays."""
        share = F.avg_pool1d(real.to(x.dtype), WINDOW, stride=1, padding=WINDOW // 2)
        mean = F.avg_pool1d(x, WINDOW, stride=1, padding=WINDOW // 2)
        # A window of padding only has no mean; its frame is masked afterwards anyway.
        mean = mean / share.clamp(min=1.0 / WINDOW)
        return x * F.hardsigmoid(self.excite(F.relu(self.squeeze(mean))))


class Block(nn.Module):
    """MobileNetV3 block along time: widen, depthwise, excite, narrow; residual at stride 1."""

    def __init__(self, channels: int, stride: int, expansion: int = 2) -> None:
        super().__init__()
        wide = expansion * channels
        self.stride = stride
        self.widen = nn.Sequential(nn.Conv1d(channels, wide, 1), FrameNorm(wide), nn.Hardswish())
        self.depthwise = nn.Conv1d(wide, wide, KERNEL, stride, KERNEL // 2, groups=wide)
        self.activate = nn.Sequential(FrameNorm(wide), nn.Hardswish())
        self.excite = WindowExcite(wide)
        self.narrow = nn.Sequential(nn.Conv1d(wide, channels, 1), FrameNorm(channels))

    def forward(self, x: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """``[B, C, T]`` and its lengths -> ``[B, C, ceil(T / stride)]`` and its lengths."""
        wide = self.widen(x).where(real_frames(frames, x.shape[2]), 0.0)
        wide = self.activate(self.depthwise(wide))
        frames = (frames + self.stride - 1) // self.stride
        real = real_frames(frames, wide.shape[2])
        y = self.narrow(self.excite(wide.where(real, 0.0), real))
        return (x + y if self.stride == 1 else y), frames


class BiLstm(nn.Module):
    """Both directions over ``[B, T, C]``, each blind to padding; gives ``[B, T, 2 * hidden]``."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.forwards = nn.LSTM(inputs, hidden, batch_first=True)
        self.backwards = nn.LSTM(inputs, hidden, batch_first=True)

    def forward(self, x: Tensor, frames: Tensor) -> Tensor:
        ahead, _ = self.forwards(x)
        back, _ = self.backwards(reverse(x, frames))
        return torch.cat([ahead, reverse(back, frames)], dim=2)


def reverse(x: Tensor, frames: Tensor) -> Tensor:
    """``[B, T, C]`` with the first ``frames int[B]`` of each row reversed; its own inverse."""
    numbers = torch.arange(x.shape[1], device=x.device)
    last = frames[:, None] - 1
    source = torch.where(numbers <= last, last - numbers, numbers)
    return x.gather(1, source[:, :, None].expand_as(x))


class SignModel(nn.Module):
    """Keypoint features ``[B, C, T]`` -> CTC logits ``[B, T, classes]``.

    Args:
        classes: with the blank.
        features: C, per frame.
        width: channels of the blocks.
        hidden: of each direction of the LSTM.
    """

    def __init__(self, classes: int, features: int, width: int, hidden: int) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.Conv1d(features, width, 1), FrameNorm(width))
        self.blocks = nn.ModuleList(Block(width, stride) for stride in (1, 2, 1, 2))
        self.back = nn.ConvTranspose1d(width, width, STRIDE, STRIDE)
        self.recurrent = BiLstm(width, hidden)
        self.head = nn.Linear(2 * hidden, classes)
        # An LSTM's answers start out small. With PyTorch's own, smaller weights, learning eight
        # sentences by heart takes twice the steps.
        nn.init.xavier_uniform_(self.head.weight)

    def forward(self, features: Tensor, frames: Tensor) -> Tensor:
        """Logits; those of frames beyond ``frames int[B]`` have no meaning.

        The others do not depend on how long the padding is nor on what it holds, NaN included.
        """
        count = features.shape[2]
        real = real_frames(frames, count)
        fine = self.project(features.where(real, 0.0))
        coarse, remaining = fine, frames
        for block in self.blocks:
            coarse, remaining = block(coarse, remaining)
        # Without `fine`, four frames in a row start out nearly alike, and CTC stays at the blank.
        x = fine + self.back(coarse)[:, :, :count]
        return cast(Tensor, self.head(self.recurrent(x.transpose(1, 2), frames)))


def build_transformer(
    classes: int, features: int = FEATURES, width: int = 64, depth: int = 2, heads: int = 4
) -> CtcTransformer:
    """A transformer for the same task, to which padding is invisible as well.

    For runtimes without a recurrent operator, which unroll a BiLSTM to one length.
    """
    return CtcTransformer(features, classes, Encoder(width, depth, heads, 2 * width, gain=GAIN))


def build(classes: int, features: int = FEATURES, width: int = 32, hidden: int = 48) -> SignModel:
    """A freshly initialised model; seed torch first to make it repeatable."""
    return SignModel(classes, features, width, hidden)
