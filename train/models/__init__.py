"""Network architectures, the record of which one a checkpoint holds, and what is exported."""

from __future__ import annotations

from torch import Tensor, nn

from train.models.spec import ModelSpec, TcnSpec, TransformerSpec, spec_from_dict
from train.models.swipe_model import Baked, SwipeModel
from train.models.tcn import SwipeTcn
from train.models.transformer import SwipeTransformer

__all__ = [
    "ModelSpec",
    "SwipeModel",
    "TcnSpec",
    "TransformerSpec",
    "bake",
    "build_model",
    "spec_from_dict",
]


def build_model(spec: TcnSpec | TransformerSpec) -> SwipeModel:
    """A freshly initialised model of `spec`; seed torch first to make it repeatable."""
    if isinstance(spec, TcnSpec):
        return SwipeTcn(spec.channels, spec.dilations, spec.dropout)
    return SwipeTransformer(
        spec.width, spec.depth, spec.heads, spec.feedforward, spec.dropout, spec.gain
    )


def bake(model: SwipeModel, keys: Tensor) -> nn.Module:
    """`model` for the key centres ``keys [K, 2]``: what is exported and benched.

    Takes ``features [B, 2, 64]``, gives logits ``[B, 32, K + 1]``; cannot be trained. Each
    architecture folds its own blocks; `model` stays as it was.
    """
    return Baked(model, keys)
