"""A trained swipe model as it is deployed: for one keyboard, or for any that the host passes.

All views fold BatchNorm into the convolutions and everything that is known at export into the
last one. They cannot be trained, and the model they were built from stays as it was.
"""

from __future__ import annotations

import copy
import math
from typing import Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.models.featurizer import Featurizer
from train.models.layers import EMBEDDING, KeyEmbedding, Kinematics
from train.models.swipe_model import SwipeModel

MASKED: Final = -1e4
"""Score of a slot without a key: exp of it is 0, and float16 still holds it."""


class Folded(nn.Module):
    """What the views share: kinematics, stem and blocks, then one 1x1 convolution.

    Args:
        model: the trained model.
        classes: ``[C, EMBEDDING]``, what the queries are projected on; the query layer, these and
            the scale of the scores become one convolution with C outputs.
    """

    def __init__(self, model: SwipeModel, classes: Tensor) -> None:
        super().__init__()
        self.kinematics = Kinematics()
        self.stem = model.stem.folded()
        self.halve = model.halve.folded()
        self.blocks = model.folded_blocks()
        with torch.no_grad():
            scaled = classes / math.sqrt(EMBEDDING)
            weight = scaled @ model.query.weight
            bias = scaled @ model.query.bias
        self.head = nn.Conv1d(weight.shape[1], weight.shape[0], 1)
        with torch.no_grad():
            self.head.weight.copy_(weight[:, :, None])
            self.head.bias.copy_(bias)  # type: ignore[union-attr]
        self.requires_grad_(False)
        self.eval()

    def projected(self, features: Tensor) -> Tensor:
        """``[B, 32, C]`` of ``features [B, 2, 64]``."""
        x = F.relu(self.stem(self.kinematics(features)))
        x = self.blocks(F.relu(self.halve(x)))
        return cast(Tensor, self.head(x).transpose(1, 2))


class Baked(Folded):
    """A `SwipeModel` for the key centres ``keys [K, 2]``: features in, raw logits out.

    The softmax is left to the host: it costs one line there.
    """

    def __init__(self, model: SwipeModel, keys: Tensor) -> None:
        with torch.no_grad():
            classes = model.class_embeddings(keys[None])[0]
        super().__init__(model, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Logits ``[B, 32, K + 1]`` of ``features [B, 2, 64]``, blank last."""
        return self.projected(features)


class FromPoints(Baked):
    """`Baked` for raw touch points."""

    def __init__(self, model: SwipeModel, keys: Tensor) -> None:
        super().__init__(model, keys)
        self.featurizer = Featurizer()

    def forward(self, points: Tensor) -> Tensor:
        """Logits ``[B, 32, K + 1]`` of ``points [B, N, 3]``, see `Featurizer`."""
        return super().forward(self.featurizer(points))


class Agnostic(Folded):
    """A `SwipeModel` for a keyboard that is an input: key centres in slots, some of them empty."""

    key_embedding: KeyEmbedding

    def __init__(self, model: SwipeModel) -> None:
        # The identity gives the queries themselves, the last row the score of the blank.
        with torch.no_grad():
            classes = torch.cat([torch.eye(EMBEDDING), model.blank[None]])
        super().__init__(model, classes)
        self.key_embedding = copy.deepcopy(model.key_embedding).requires_grad_(False).eval()

    def forward(self, features: Tensor, layout_keys: Tensor, layout_mask: Tensor) -> Tensor:
        """Log-probabilities ``[B, 32, S + 1]``, blank last.

        Args:
            features: ``[B, 2, 64]``.
            layout_keys: ``[B, S, 2]`` key centres in letter-area units; any finite values where
                a slot is empty.
            layout_mask: ``[B, S]``, 1 where a slot holds a key, 0 where it is empty.
        """
        projected = self.projected(features)
        # Empty slots are moved to the origin: their embeddings could overflow, and Inf * 0 is NaN.
        keys = layout_keys * layout_mask[:, :, None]
        embeddings = self.key_embedding(keys).transpose(1, 2)
        scores = torch.bmm(projected[:, :, :EMBEDDING], embeddings)
        # Arithmetic, not a boolean mask, which converters have been seen to read the wrong way
        # round; exact for masks of 0 and 1.
        mask = layout_mask[:, None, :]
        scores = scores * mask + (1.0 - mask) * MASKED
        return _log_softmax(torch.cat([scores, projected[:, :, EMBEDDING:]], dim=2))


def _log_softmax(scores: Tensor) -> Tensor:
    """Over the last axis, in operators that no converter splits into softmax and log.

    The logarithm of a softmax is -Inf wherever the probability is too small for a float.
    """
    shifted = scores - scores.amax(dim=-1, keepdim=True)
    return shifted - shifted.exp().sum(dim=-1, keepdim=True).log()
