"""Network architectures, the record of which one a checkpoint holds, and what is exported."""

from __future__ import annotations

from torch import Tensor, nn

from train.models.spec import ModelSpec, TcnSpec, TransformerSpec, spec_from_dict
from train.models.swipe_model import SwipeModel
from train.models.tcn import SwipeTcn
from train.models.transformer import SwipeTransformer
from train.models.views import Agnostic, Baked, FromPoints

__all__ = [
    "ModelSpec",
    "SwipeModel",
    "TcnSpec",
    "TransformerSpec",
    "agnostic",
    "bake",
    "build_model",
    "from_points",
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
    """`model` for the key centres ``keys [K, 2]``: the layout-baked view.

    Takes ``features [B, 2, 64]``, gives logits ``[B, 32, K + 1]``; cannot be trained. Each
    architecture folds its own blocks; `model` stays as it was.
    """
    return Baked(model, keys)


def agnostic(model: SwipeModel) -> nn.Module:
    """`model` for any keyboard of S slots, given at run time: the layout-agnostic view.

    Takes ``features [B, 2, 64]``, ``layout_keys [B, S, 2]`` and ``layout_mask [B, S]``, gives
    log-probabilities ``[B, 32, S + 1]``; cannot be trained, and `model` stays as it was.
    """
    return Agnostic(model)


def from_points(model: SwipeModel, keys: Tensor) -> nn.Module:
    """`bake`, with the feature recipe in front: takes raw ``points [B, N, 3]`` (x, y, t_ms)."""
    return FromPoints(model, keys)
