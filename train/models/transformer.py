"""CTC transformer: sinusoidal positions, pre-norm encoder, key-padding mask from lengths.

One layout, ``[B, C, T]``, everywhere outside the attention. Attention is written out (matmul, add,
softmax) because the fused operator is unknown below ONNX opset 14, and because Core ML reads a
boolean padding mask the wrong way round; the mask is a float that is added. Its value is finite
in float16 too, so that a row that is all padding gives numbers and not NaN.

`CtcTransformer` takes sequences of any length; `SwipeTransformer` puts the same encoder between
the stem and the key scores of a swipe model, whose 32 frames are always real. What it leaves out:
relative positions and streaming.
"""

from __future__ import annotations

import copy
import math
from typing import Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from swipe.contract import FRAMES
from train.models.swipe_model import SwipeModel

MASKED: Final = -1e4
"""Added to the score of a padded key: softmax makes it exactly 0, and float16 can hold it."""

SLOWEST: Final = 10_000.0
"""Frames: the longest wavelength of the positions, divided by 2 pi."""


class Positions(nn.Module):
    """Adds sines and cosines of the frame's number to ``[B, T, width]``, for any T."""

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        exponents = torch.arange(width // 2, dtype=torch.float32) / (width // 2)
        self.register_buffer("frequencies", SLOWEST**-exponents, persistent=False)

    def table(self, frames: int) -> Tensor:
        """``[frames, width]``, computed and not sliced from a table of some largest length."""
        numbers = torch.arange(frames, dtype=self.frequencies.dtype, device=self.frequencies.device)
        angles = numbers[:, None] * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table(x.shape[1])


class FixedPositions(nn.Module):
    """`Positions` for one number of frames, as a constant: nothing to compute on a phone."""

    table: Tensor

    def __init__(self, positions: Positions, frames: int) -> None:
        super().__init__()
        self.register_buffer("table", positions.table(frames), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table


class Attention(nn.Module):
    """Multi-head self-attention over ``[B, T, width]``."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``[B, T, width]``; `mask` ``[B, 1, 1, T]`` is added to the scores of each key."""
        query, key, value = (self._split(part(x)) for part in (self.query, self.key, self.value))
        scores = (query / math.sqrt(query.shape[-1])) @ key.transpose(2, 3)
        if mask is not None:
            scores = scores + mask
        mixed = scores.softmax(dim=-1) @ value
        return cast(Tensor, self.output(mixed.transpose(1, 2).reshape(x.shape)))

    def _split(self, x: Tensor) -> Tensor:
        batch, frames, width = x.shape
        return x.reshape(batch, frames, self.heads, width // self.heads).transpose(1, 2)


class EncoderBlock(nn.Module):
    """Attention, then a two-layer network, each normalized before and added to what came in."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.feedforward_norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, feedforward)
        self.narrow = nn.Linear(feedforward, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), mask))
        # ReLU and not GELU: int8 and every delegate have it.
        wide = F.relu(self.widen(self.feedforward_norm(x)))
        return x + cast(Tensor, self.dropout(self.narrow(self.dropout(wide))))


class Encoder(nn.Module):
    """Positions and pre-norm encoder blocks, ``[B, width, T]`` -> ``[B, width, T]``.

    Args:
        width: channels; even, and a multiple of `heads`.
        depth: number of blocks.
        heads: of the attention.
        feedforward: hidden width of each block's two-layer network.
        dropout: probability, on each branch.
        gain: of the Xavier initialisation; below 1 the branches start out small.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        feedforward: int,
        *,
        dropout: float = 0.0,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.positions: nn.Module = Positions(width)
        self.blocks = nn.ModuleList(
            EncoderBlock(width, heads, feedforward, dropout) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight, gain)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Encode ``x [B, width, T]``, of which ``lengths int[B]`` frames are real; None: all.

        Frames beyond their row's length hold numbers without meaning.
        """
        mask = None if lengths is None else padding_mask(lengths, x.shape[2], x.dtype)
        x = self.positions(x.transpose(1, 2))
        for block in self.blocks:
            x = block(x, mask)
        return cast(Tensor, self.norm(x)).transpose(1, 2)

    def fixed(self, frames: int) -> Encoder:
        """A copy for sequences of exactly `frames`."""
        copied = copy.deepcopy(self)
        copied.positions = FixedPositions(cast(Positions, self.positions), frames)
        return copied


class CtcTransformer(nn.Module):
    """Features ``[B, inputs, T]`` of varying length -> CTC logits ``[B, T, classes]``.

    Args:
        inputs: channels of a frame.
        classes: with the blank.
        encoder: the encoder; decides the width.
    """

    def __init__(self, inputs: int, classes: int, encoder: Encoder) -> None:
        super().__init__()
        width = encoder.norm.normalized_shape[0]
        self.project = nn.Conv1d(inputs, width, 1)
        self.encoder = encoder
        self.head = nn.Conv1d(width, classes, 1)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Logits; those of frames beyond ``lengths int[B]`` have no meaning.

        The others do not depend on how long the padding is nor on what it holds, NaN included.
        """
        real = torch.arange(features.shape[2], device=features.device) < lengths[:, None]
        features = torch.where(real[:, None], features, 0.0)
        encoded = self.encoder(self.project(features), lengths)
        return cast(Tensor, self.head(encoded)).transpose(1, 2)


class SwipeTransformer(SwipeModel):
    """Features and key centres -> CTC logits; for the arguments see `Encoder`."""

    def __init__(
        self, width: int, depth: int, heads: int, feedforward: int, dropout: float, gain: float
    ) -> None:
        super().__init__(
            width,
            lambda: Encoder(width, depth, heads, feedforward, dropout=dropout, gain=gain),
            dropout,
        )

    def folded_blocks(self) -> nn.Module:
        """The encoder for 32 frames."""
        return cast(Encoder, self.blocks).fixed(FRAMES)


def padding_mask(lengths: Tensor, frames: int, dtype: torch.dtype) -> Tensor:
    """`MASKED` for keys beyond ``lengths int[B]``, else 0, as float ``[B, 1, 1, frames]``."""
    padded = torch.arange(frames, device=lengths.device) >= lengths[:, None]
    return padded.to(dtype)[:, None, None] * MASKED
