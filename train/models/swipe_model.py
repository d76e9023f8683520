"""The frame every swipe model fills: kinematics and a stride-2 stem before, key scores after.

What happens in between (`blocks`) is the architecture. Classes are scored against embeddings of
the keys' centres, so one model serves any layout.

What it leaves out: the forms in which it is deployed, see `train.models.views`.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.models.layers import EMBEDDING, KERNEL, ConvNorm, KeyEmbedding, Kinematics


class SwipeModel(nn.Module):
    """Features and key centres -> CTC logits.

    Args:
        width: channels of the trunk.
        blocks: makes the module that maps ``[B, width, 32]`` to the same shape. It is called
            between stem and head, so that a seed goes on giving the weights it always gave.
        dropout: probability on the trunk's output while training.
    """

    def __init__(self, width: int, blocks: Callable[[], nn.Module], dropout: float) -> None:
        super().__init__()
        self.kinematics = Kinematics()
        self.stem = ConvNorm(Kinematics.CHANNELS, width, KERNEL)
        self.halve = ConvNorm(width, width, KERNEL, stride=2)
        self.blocks = blocks()
        self.dropout = nn.Dropout(dropout)
        self.query = nn.Linear(width, EMBEDDING)
        self.key_embedding = KeyEmbedding()
        self.blank = nn.Parameter(torch.zeros(EMBEDDING))

    @abstractmethod
    def folded_blocks(self) -> nn.Module:
        """A copy of `blocks` that computes the same in evaluation, with its constants folded."""

    def trunk(self, features: Tensor) -> Tensor:
        """``[B, 2, 64]`` -> ``[B, width, 32]``."""
        x = F.relu(self.stem(self.kinematics(features)))
        return cast(Tensor, self.blocks(F.relu(self.halve(x))))

    def class_embeddings(self, keys: Tensor) -> Tensor:
        """Key centres ``[B, K, 2]`` -> class embeddings ``[B, K + 1, EMBEDDING]``, blank last."""
        blank = self.blank.expand(keys.shape[0], 1, -1)
        return torch.cat([self.key_embedding(keys), blank], dim=1)

    def forward(self, features: Tensor, keys: Tensor) -> Tensor:
        """Logits ``[B, 32, K + 1]`` of ``features [B, 2, 64]`` over ``keys [B, K, 2]``."""
        queries = self.query(self.dropout(self.trunk(features)).transpose(1, 2))
        scores = queries @ self.class_embeddings(keys).transpose(1, 2)
        return cast(Tensor, scores / math.sqrt(EMBEDDING))
