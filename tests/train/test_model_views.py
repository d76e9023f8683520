"""The layout-agnostic view: the baked view's answers, for any keyboard in any slots."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from swipe.contract import FRAMES, POINTS
from swipe.features import feature_batch
from swipe.layout import BUILT_IN, load_layout
from swipe.lexicon import wordfreq_lexicon
from swipe.synthesis import synthesize
from train.checkpoint import load_checkpoint
from train.models import SwipeModel, TransformerSpec, agnostic, bake, build_model

SLOTS = 64


@pytest.fixture(scope="module")
def swipes() -> Tensor:
    gestures = synthesize(load_layout("qwerty"), wordfreq_lexicon(500), 24, seed=1).gestures
    return torch.from_numpy(feature_batch(gestures))


@pytest.fixture(scope="module")
def nano(released: Path) -> SwipeModel:
    return load_checkpoint(released).model()


@pytest.fixture(scope="module")
def view(nano: SwipeModel) -> nn.Module:
    return agnostic(nano)


def keys_of(layout: str) -> Tensor:
    return torch.from_numpy(load_layout(layout).centers.astype(np.float32))


def slotted(keys: Tensor, slots: list[int], batch: int, empty: float = 0.0) -> tuple[Tensor, ...]:
    layout_keys, layout_mask = torch.full((batch, SLOTS, 2), empty), torch.zeros(batch, SLOTS)
    layout_keys[:, slots], layout_mask[:, slots] = keys, 1.0
    return layout_keys, layout_mask


@pytest.mark.parametrize("layout", BUILT_IN)
def test_it_says_what_the_baked_view_says(
    nano: SwipeModel, view: nn.Module, swipes: Tensor, layout: str
) -> None:
    letters = list(range(26))
    emissions = view(swipes, *slotted(keys_of(layout), letters, len(swipes)))
    expected = bake(nano, keys_of(layout))(swipes).log_softmax(-1)
    assert emissions.shape == (len(swipes), FRAMES, SLOTS + 1)
    assert (emissions[:, :, [*letters, SLOTS]] - expected).abs().max() <= 2e-4
    assert expected.std() > 1, "a constant model is equal to anything"
    masked = emissions[:, :, 26:SLOTS]
    assert masked.max() < -9e3
    assert torch.isfinite(masked).all()
    assert torch.allclose(emissions.exp().sum(-1), torch.ones(()), atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(slots=st.permutations(range(SLOTS)).map(lambda order: order[:26]))
def test_permuting_the_slots_permutes_the_outputs(
    view: nn.Module, swipes: Tensor, slots: list[int]
) -> None:
    keys, some = keys_of("dvorak"), swipes[:4]
    in_order = view(some, *slotted(keys, list(range(26)), len(some)))
    permuted = view(some, *slotted(keys, slots, len(some)))
    torch.testing.assert_close(
        permuted[:, :, [*slots, SLOTS]], in_order[:, :, [*range(26), SLOTS]], atol=1e-4, rtol=0
    )
    empty = sorted(set(range(SLOTS)) - set(slots))
    assert permuted[:, :, empty].max() < -9e3


@pytest.mark.parametrize("empty", [-1.0, 0.35, 1e38])
def test_what_is_in_empty_slots_cannot_be_seen(
    view: nn.Module, swipes: Tensor, empty: float
) -> None:
    letters = list(range(26))
    plain = view(swipes, *slotted(keys_of("qwerty"), letters, len(swipes)))
    filled = view(swipes, *slotted(keys_of("qwerty"), letters, len(swipes), empty))
    torch.testing.assert_close(filled, plain, atol=1e-4, rtol=0)


def test_a_keyboard_without_keys_leaves_the_blank(view: nn.Module, swipes: Tensor) -> None:
    emissions = view(swipes, torch.zeros(len(swipes), SLOTS, 2), torch.zeros(len(swipes), SLOTS))
    assert torch.isfinite(emissions).all()
    assert (emissions[:, :, SLOTS] == 0).all()


def test_it_cannot_be_trained_and_leaves_the_model_as_it_was(released: Path) -> None:
    model = load_checkpoint(released).model().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    view = agnostic(model)
    assert not any(p.requires_grad for p in view.parameters())
    assert not any(module.training for module in view.modules())
    assert not {"BatchNorm1d", "ConvNorm"} & {type(m).__name__ for m in view.modules()}
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(module.training for module in model.modules())
    assert all(p.requires_grad for p in model.parameters())


def test_a_transformer_has_the_view_too() -> None:
    torch.manual_seed(0)
    model = build_model(TransformerSpec(width=16, depth=1, heads=2, feedforward=32)).eval()
    strokes, letters = torch.rand(3, 2, POINTS), list(range(26))
    emissions = agnostic(model)(strokes, *slotted(keys_of("azerty"), letters, 3))
    expected = bake(model, keys_of("azerty"))(strokes).log_softmax(-1)
    torch.testing.assert_close(emissions[:, :, [*letters, SLOTS]], expected, atol=1e-4, rtol=0)
