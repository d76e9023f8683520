"""Dilated temporal-convolution network for swipes: the default model.

Why this shape: dense dilated convolutions beat attention, depthwise and ConvNeXt trunks on this
task at phone size, and Conv + BatchNorm folds into plain convolutions that every mobile runtime
has fast kernels for. Every derived input channel (velocity, speed, ...) is computed here, inside
the graph, so that no host can compute it differently. The softmax is left to the host: raw logits
survive int8, a log-softmax over quantized logits does not.

What it leaves out: the layout-agnostic export view (keys as run-time inputs).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KERNEL: Final = 5
COSINES: Final = 8
KEY_FEATURES: Final = 2 + COSINES * COSINES
KEY_HIDDEN: Final = 96
EMBEDDING: Final = 64


class Kinematics(nn.Module):
    """Positions ``[B, 2, T]`` -> positions, velocity, acceleration and speed ``[B, 7, T]``.

    Differences are slices and concatenations because ``torch.diff`` lowers to neither Core ML nor
    ONNX opset 14. The gains bring each channel to unit order of magnitude, which per-tensor int8
    activations need.
    """

    CHANNELS: Final = 7
    VELOCITY_GAIN: Final = 16.0
    ACCELERATION_GAIN: Final = 64.0

    def forward(self, position: Tensor) -> Tensor:
        velocity = self._difference(position) * self.VELOCITY_GAIN
        acceleration = self._difference(velocity) * (self.ACCELERATION_GAIN / self.VELOCITY_GAIN)
        squared = velocity * velocity
        # A sum of two slices, not sum(dim=1), which XNNPACK leaves out of its delegate.
        speed = (squared[:, :1] + squared[:, 1:] + 1e-6).sqrt()
        return torch.cat([position * 2.0 - 1.0, velocity, acceleration, speed], dim=1)

    @staticmethod
    def _difference(x: Tensor) -> Tensor:
        step = x[:, :, 1:] - x[:, :, :-1]
        return torch.cat([step[:, :, :1], step], dim=2)


class ConvNorm(nn.Module):
    """Conv1d (same padding, given stride and dilation) + BatchNorm."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, dilation: int = 1
    ) -> None:
        super().__init__()
        padding = dilation * (kernel - 1) // 2
        self.conv = nn.Conv1d(
            inputs, outputs, kernel, stride, padding, dilation=dilation, bias=False
        )
        self.norm = nn.BatchNorm1d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.norm(self.conv(x)))

    def folded(self) -> nn.Conv1d:
        """The same affine map as one Conv1d, with the running statistics folded in."""
        convolution, norm = copy.deepcopy(self.conv).eval(), copy.deepcopy(self.norm).eval()
        return nn.utils.fusion.fuse_conv_bn_eval(convolution, norm)


class ResidualBlock(nn.Module):
    """x + mix(relu(dilated_conv(x))): the dilated convolution sees time, `mix` sees channels."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.dilated: nn.Module = ConvNorm(channels, channels, KERNEL, dilation=dilation)
        self.mix: nn.Module = ConvNorm(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.mix(F.relu(self.dilated(x))))


class KeyEmbedding(nn.Module):
    """Key centres ``[..., 2]`` -> embeddings ``[..., EMBEDDING]``.

    A key is described by its centre and the 8 x 8 cosines cos(pi i cx) cos(pi j cy), so any
    layout can be given at run time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(KEY_FEATURES, KEY_HIDDEN)
        self.output = nn.Linear(KEY_HIDDEN, EMBEDDING)
        self.register_buffer(
            "frequencies", torch.arange(COSINES, dtype=torch.float32) * math.pi, persistent=False
        )

    def forward(self, keys: Tensor) -> Tensor:
        frequencies = cast(Tensor, self.frequencies)
        cos_x = torch.cos(keys[..., 0:1] * frequencies)
        cos_y = torch.cos(keys[..., 1:2] * frequencies)
        grid = (cos_x[..., :, None] * cos_y[..., None, :]).flatten(-2)
        return cast(Tensor, self.output(F.relu(self.hidden(torch.cat([keys, grid], dim=-1)))))


class SwipeTcn(nn.Module):
    """Features and key centres -> CTC logits.

    Args:
        channels: width of the trunk (nano 48, base 80, large 192).
        dilations: one residual block each, in order.
        dropout: probability on the trunk's output while training.
    """

    def __init__(
        self, channels: int, dilations: Sequence[int] = (1, 2, 4, 8), dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.kinematics = Kinematics()
        self.stem: nn.Module = ConvNorm(Kinematics.CHANNELS, channels, KERNEL)
        self.halve: nn.Module = ConvNorm(channels, channels, KERNEL, stride=2)
        self.blocks = nn.ModuleList(ResidualBlock(channels, d) for d in dilations)
        self.dropout = nn.Dropout(dropout)
        self.query = nn.Linear(channels, EMBEDDING)
        self.key_embedding = KeyEmbedding()
        self.blank = nn.Parameter(torch.zeros(EMBEDDING))

    def trunk(self, features: Tensor) -> Tensor:
        """``[B, 2, 64]`` -> ``[B, C, 32]``."""
        x = F.relu(self.stem(self.kinematics(features)))
        x = F.relu(self.halve(x))
        for block in self.blocks:
            x = block(x)
        return x

    def class_embeddings(self, keys: Tensor) -> Tensor:
        """Key centres ``[B, K, 2]`` -> class embeddings ``[B, K + 1, EMBEDDING]``, blank last."""
        blank = self.blank.expand(keys.shape[0], 1, -1)
        return torch.cat([self.key_embedding(keys), blank], dim=1)

    def forward(self, features: Tensor, keys: Tensor) -> Tensor:
        """Logits ``[B, 32, K + 1]`` of ``features [B, 2, 64]`` over ``keys [B, K, 2]``."""
        queries = self.query(self.dropout(self.trunk(features)).transpose(1, 2))
        scores = queries @ self.class_embeddings(keys).transpose(1, 2)
        return cast(Tensor, scores / math.sqrt(EMBEDDING))


class BakedSwipeTcn(nn.Module):
    """`SwipeTcn` for one keyboard: features in, logits out, every constant folded.

    BatchNorm is folded into its convolution; query, key embeddings, blank and scale become one
    1x1 convolution. Built from a trained model, which stays as it was.
    """

    def __init__(self, model: SwipeTcn, keys: Tensor) -> None:
        """Fold `model` for the key centres ``keys [K, 2]``."""
        super().__init__()
        self.kinematics = Kinematics()
        self.stem = _folded(model.stem)
        self.halve = _folded(model.halve)
        self.blocks = nn.ModuleList()
        for block in model.blocks:
            folded = ResidualBlock.__new__(ResidualBlock)
            nn.Module.__init__(folded)
            folded.dilated = _folded(cast(ResidualBlock, block).dilated)
            folded.mix = _folded(cast(ResidualBlock, block).mix)
            self.blocks.append(folded)
        with torch.no_grad():
            classes = model.class_embeddings(keys[None])[0] / math.sqrt(EMBEDDING)
            weight = classes @ model.query.weight
            bias = classes @ model.query.bias
        self.head = nn.Conv1d(weight.shape[1], weight.shape[0], 1)
        with torch.no_grad():
            self.head.weight.copy_(weight[:, :, None])
            self.head.bias.copy_(bias)  # type: ignore[union-attr]
        self.requires_grad_(False)
        self.eval()

    def forward(self, features: Tensor) -> Tensor:
        """Logits ``[B, 32, K + 1]`` of ``features [B, 2, 64]``."""
        x = F.relu(self.stem(self.kinematics(features)))
        x = F.relu(self.halve(x))
        for block in self.blocks:
            x = block(x)
        return cast(Tensor, self.head(x).transpose(1, 2))


def _folded(module: nn.Module) -> nn.Conv1d:
    if not isinstance(module, ConvNorm):
        raise TypeError(f"expected Conv + BatchNorm, got {type(module).__name__}")
    return module.folded()
