"""Dilated temporal-convolution network for swipes: the default model.

Why this shape: dense dilated convolutions beat attention, depthwise and ConvNeXt trunks on this
task at phone size, and Conv + BatchNorm folds into plain convolutions that every mobile runtime
has fast kernels for.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from train.models.layers import KERNEL, ConvNorm
from train.models.swipe_model import SwipeModel


class ResidualBlock(nn.Module):
    """x + mix(relu(dilated(x))), on ``[B, C, T]``: `dilated` sees time, `mix` sees channels."""

    def __init__(self, dilated: nn.Module, mix: nn.Module) -> None:
        super().__init__()
        self.dilated = dilated
        self.mix = mix

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.mix(F.relu(self.dilated(x))))


class SwipeTcn(SwipeModel):
    """Features and key centres -> CTC logits.

    Args:
        channels: width of the trunk (nano 48, base 80, large 192).
        dilations: one residual block each, in order.
        dropout: probability on the trunk's output while training.
    """

    def __init__(
        self, channels: int, dilations: Sequence[int] = (1, 2, 4, 8), dropout: float = 0.0
    ) -> None:
        super().__init__(channels, lambda: _blocks(channels, dilations), dropout)

    def folded_blocks(self) -> nn.Module:
        """The residual blocks with BatchNorm folded into plain convolutions."""
        return nn.Sequential(
            *(ResidualBlock(_folded(b.dilated), _folded(b.mix)) for b in self.blocks.children())
        )


def _blocks(channels: int, dilations: Sequence[int]) -> nn.Sequential:
    return nn.Sequential(
        *(
            ResidualBlock(
                ConvNorm(channels, channels, KERNEL, dilation=dilation),
                ConvNorm(channels, channels, 1),
            )
            for dilation in dilations
        )
    )


def _folded(module: object) -> nn.Conv1d:
    if not isinstance(module, ConvNorm):
        raise TypeError(f"expected Conv + BatchNorm, got {type(module).__name__}")
    return module.folded()
