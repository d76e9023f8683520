"""What the swipe models share: kinematics, Conv + BatchNorm, and how a key is described.

Every derived input channel (velocity, speed, ...) is computed here, inside the graph, so that no
host can compute it differently.
"""

from __future__ import annotations

import copy
import math
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
