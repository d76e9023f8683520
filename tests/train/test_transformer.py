"""The transformer: padding that cannot be seen, any length, sane sizes, and a swipe model in it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from swipe.contract import FRAMES, POINTS
from swipe.errors import CheckpointError
from swipe.layout import load_layout
from train.checkpoint import Checkpoint, copy_tensors, load_checkpoint, save_checkpoint
from train.config import load_config
from train.ctc import ctc_loss
from train.models import TransformerSpec, bake, build_model
from train.models import transformer as module
from train.models.transformer import (
    CtcTransformer,
    Encoder,
    EncoderBlock,
    Positions,
    SwipeTransformer,
)

INPUTS, CLASSES = 5, 7
FULL = {"model.width": 384, "model.depth": 8, "model.heads": 6, "model.feedforward": 1472}


@pytest.fixture(scope="module")
def sequence_model() -> CtcTransformer:
    torch.manual_seed(0)
    return CtcTransformer(INPUTS, CLASSES, Encoder(16, 2, 2, 32)).eval()


def features(batch: int, frames: int, seed: int = 0) -> Tensor:
    return torch.randn(batch, INPUTS, frames, generator=torch.Generator().manual_seed(seed))


def padded(x: Tensor, frames: int, content: float) -> Tensor:
    return torch.cat([x, torch.full((*x.shape[:2], frames), content)], dim=2)


def largest_difference(model: CtcTransformer, length: int, padding: int, content: float) -> float:
    x = features(1, length)
    real = torch.tensor([length])
    with torch.inference_mode():
        alone = model(x, real)
        with_padding = model(padded(x, padding, content), real)[:, :length]
    return float((alone - with_padding).abs().max())


@given(
    length=st.integers(1, 40),
    padding=st.integers(0, 40),
    content=st.sampled_from([0.0, 1.0, -1e6, float("nan"), float("inf")]),
)
@settings(max_examples=60, deadline=None)
def test_padding_cannot_be_seen(
    sequence_model: CtcTransformer, length: int, padding: int, content: float
) -> None:
    assert largest_difference(sequence_model, length, padding, content) <= 1e-5


def test_without_the_mask_padding_is_seen(
    sequence_model: CtcTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above fails when the mask does nothing, and when it is the wrong way round."""
    right = module.padding_mask
    for wrong in (
        lambda *given: right(*given) * 0.0,
        lambda *given: module.MASKED - right(*given),
    ):
        monkeypatch.setattr(module, "padding_mask", wrong)
        assert largest_difference(sequence_model, 20, 10, 0.0) > 1e-3


def test_rows_do_not_see_each_other(sequence_model: CtcTransformer) -> None:
    x, lengths = features(3, 12), torch.tensor([12, 5, 9])
    with torch.inference_mode():
        together = sequence_model(x, lengths)
        for row, length in enumerate(lengths.tolist()):
            alone = sequence_model(x[row : row + 1, :, :length], lengths[row : row + 1])
            torch.testing.assert_close(together[row, :length], alone[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_row_that_is_all_padding_is_finite(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = CtcTransformer(INPUTS, CLASSES, Encoder(16, 2, 2, 32)).eval().to(dtype)
    with torch.inference_mode():
        logits = model(features(2, 8).to(dtype), torch.tensor([0, 8]))
    assert torch.isfinite(logits).all()


def test_positions_tell_frames_apart_at_any_length() -> None:
    positions = Positions(16)
    table = positions.table(2000)
    assert table.shape == (2000, 16)
    assert table.abs().max() <= 1.0
    torch.testing.assert_close(positions.table(50), table[:50])
    assert torch.pdist(table[:200]).min() > 0.1
    assert not positions.state_dict(), "the frequencies are no weights"


def test_frames_with_the_same_content_differ(sequence_model: CtcTransformer) -> None:
    with torch.inference_mode():
        logits = sequence_model(torch.ones(1, INPUTS, 20), torch.tensor([20]))[0]
    assert logits.std(dim=0).min() > 1e-3


def test_gain_scales_the_weights() -> None:
    def weight(gain: float) -> Tensor:
        torch.manual_seed(0)
        block = Encoder(16, 1, 2, 32, gain=gain).blocks[0]
        assert isinstance(block, EncoderBlock)
        return block.widen.weight.detach()

    torch.testing.assert_close(weight(0.5), 0.5 * weight(1.0))


def test_it_is_exported_for_any_length(sequence_model: CtcTransformer) -> None:
    frames = torch.export.Dim("frames", min=2, max=512)
    program = torch.export.export(
        sequence_model,
        (features(1, 20), torch.tensor([20])),
        dynamic_shapes=({2: frames}, None),
    )
    for length in (2, 33, 500):
        x = features(1, length)
        expected = sequence_model(x, torch.tensor([length]))
        given = program.module()(x, torch.tensor([length]))
        torch.testing.assert_close(given, expected, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_it_learns_sequences_of_varying_length() -> None:
    torch.manual_seed(0)
    model = CtcTransformer(INPUTS, CLASSES, Encoder(32, 2, 4, 64, gain=0.5))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    targets = torch.randint(0, CLASSES - 1, (8, 4))
    lengths = torch.tensor([4, 4, 3, 3, 2, 2, 1, 1])
    frames = lengths * 5
    patterns = torch.randn(CLASSES, INPUTS)
    x = torch.zeros(8, INPUTS, 20)
    for row, count in enumerate(lengths.tolist()):
        symbols = targets[row, :count].repeat_interleave(5)
        x[row, :, : len(symbols)] = patterns[symbols].T
    for _ in range(150):
        loss = ctc_loss(model(x, frames), targets, frames, lengths, blank=CLASSES - 1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.1


# As a swipe model.


def test_the_full_size_has_14_6_million_parameters() -> None:
    model = build_model(load_config("transformer", FULL).model)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(14.6e6, rel=0.02)


def test_the_preset_says_how_to_get_the_full_size() -> None:
    preset = Path(module.__file__).parents[1] / "configs" / "transformer.toml"
    text = preset.read_text()
    for key, value in FULL.items():
        assert f"--set {key}={value}" in text


def test_the_default_is_small() -> None:
    model = build_model(TransformerSpec())
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(240e3, rel=0.02)


@pytest.fixture(scope="module")
def swipe_model() -> SwipeTransformer:
    torch.manual_seed(0)
    model = build_model(TransformerSpec(width=16, depth=2, heads=2, feedforward=32))
    assert isinstance(model, SwipeTransformer)
    with torch.no_grad():
        for _ in range(3):  # so that the statistics of BatchNorm have moved
            model(torch.rand(16, 2, POINTS), torch.rand(16, 26, 2))
    return model.eval()


def test_the_baked_swipe_model_equals_the_trained_one(swipe_model: SwipeTransformer) -> None:
    keys = torch.from_numpy(load_layout("qwerty").centers).float()
    strokes = torch.rand(8, 2, POINTS)
    before = {name: t.clone() for name, t in swipe_model.state_dict().items()}
    with torch.inference_mode():
        expected = swipe_model(strokes, keys.expand(8, -1, -1))
        baked = bake(swipe_model, keys)
        torch.testing.assert_close(baked(strokes), expected, atol=1e-5, rtol=0)
    assert expected.shape == (8, FRAMES, 27)
    assert expected.std() > 0.01
    assert not any(p.requires_grad for p in baked.parameters())
    assert all(p.requires_grad for p in swipe_model.parameters())
    for name, tensor in swipe_model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def checkpoint_of(model: SwipeTransformer, **changes: int) -> Checkpoint:
    options = {"width": 16, "depth": 2, "heads": 2, "feedforward": 32, **changes}
    spec = TransformerSpec.model_validate(options)
    contract = load_layout("qwerty").contract()
    return Checkpoint(spec, contract, copy_tensors(model), 3, {"top1": 1.0}, {})


def test_a_checkpoint_brings_the_transformer_back(
    swipe_model: SwipeTransformer, tmp_path: Path
) -> None:
    save_checkpoint(checkpoint_of(swipe_model), tmp_path / "best.safetensors")
    loaded = load_checkpoint(tmp_path)
    model = loaded.model()
    assert isinstance(model, SwipeTransformer)
    strokes, keys = torch.rand(2, 2, POINTS), torch.rand(2, 26, 2)
    with torch.inference_mode():
        assert torch.equal(model(strokes, keys), swipe_model(strokes, keys))


def test_weights_of_another_size_are_refused(swipe_model: SwipeTransformer) -> None:
    with pytest.raises(CheckpointError, match="do not fit"):
        checkpoint_of(swipe_model, depth=1).model()
