"""The sign-language example: padding that cannot be seen, frames that differ, and learning."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from examples.sign_ctc import model as module
from examples.sign_ctc.data import Signer
from examples.sign_ctc.model import FEATURES, SignModel, build, reverse
from examples.sign_ctc.task import SignTask
from swipe.errors import CheckpointError, ConfigError
from train.assemble import assemble
from train.checkpoint import load_weights, save_checkpoint
from train.config import CustomConfig, load_config
from train.ctc import frames_needed
from train.loop import fit
from train.task import CtcTask, Score

CONFIG = Path(module.__file__).with_name("config.toml")
NARROW = 6


@pytest.fixture(scope="module")
def narrow() -> SignModel:
    torch.manual_seed(0)
    return build(5, NARROW, width=8, hidden=6).eval()


@pytest.fixture(scope="module")
def task() -> SignTask:
    return SignTask(0, 4, samples=40, held_out=6, features=32, width=8, hidden=8)


def features(batch: int, frames: int) -> Tensor:
    return torch.randn(batch, NARROW, frames, generator=torch.Generator().manual_seed(0))


def largest_difference(model: nn.Module, length: int, padding: int, content: float) -> float:
    x, real = features(1, length), torch.tensor([length])
    longer = torch.cat([x, torch.full((1, NARROW, padding), content)], dim=2)
    with torch.inference_mode():
        return float((model(x, real) - model(longer, real)[:, :length]).abs().max())


# The model.


@pytest.mark.slow
@given(
    length=st.integers(1, 40),
    padding=st.integers(0, 40),
    content=st.sampled_from([0.0, 1.0, -1e6, float("nan"), float("inf")]),
)
@settings(max_examples=60, deadline=None)
def test_padding_cannot_be_seen(
    narrow: SignModel, length: int, padding: int, content: float
) -> None:
    assert largest_difference(narrow, length, padding, content) <= 1e-5


@pytest.mark.parametrize("sabotage", ["mask", "reverse"])
def test_each_precaution_against_padding_is_needed(
    narrow: SignModel, monkeypatch: pytest.MonkeyPatch, sabotage: str
) -> None:
    """The test above fails when one of them is taken away."""
    if sabotage == "mask":
        everything = torch.ones(1, 1, 1, dtype=torch.bool)
        monkeypatch.setattr(module, "real_frames", lambda frames, count: everything)
    else:
        monkeypatch.setattr(module, "reverse", lambda x, frames: x.flip(1))
    assert largest_difference(narrow, 21, 30, 1.0) > 1e-4


def test_rows_do_not_see_each_other(narrow: SignModel) -> None:
    x, lengths = features(4, 30), torch.tensor([30, 1, 13, 22])
    with torch.inference_mode():
        together = narrow(x, lengths)
        for row, length in enumerate(lengths.tolist()):
            alone = narrow(x[row : row + 1, :, :length], lengths[row : row + 1])
            torch.testing.assert_close(together[row, :length], alone[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 17])
def test_there_is_one_answer_per_frame(narrow: SignModel, frames: int) -> None:
    with torch.inference_mode():
        logits = narrow(features(2, frames), torch.tensor([frames, 1]))
    assert logits.shape == (2, frames, 5)
    assert torch.isfinite(logits).all()


def test_frames_differ(narrow: SignModel) -> None:
    """L2: a squeeze over all of time made them alike."""
    with torch.inference_mode():
        logits = narrow(features(1, 40), torch.tensor([40]))[0]
    assert logits.std(dim=0).min() > 1e-3


def test_reversing_twice_gives_the_same_and_padding_stays_last() -> None:
    x, frames = torch.arange(10.0).reshape(2, 5, 1), torch.tensor([3, 5])
    assert reverse(x, frames)[..., 0].tolist() == [[2, 1, 0, 3, 4], [9, 8, 7, 6, 5]]
    assert torch.equal(reverse(reverse(x, frames), frames), x)


def test_every_parameter_gets_a_gradient(task: SignTask) -> None:
    task.loss(task.batch(0)).backward()
    for name, parameter in task.model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
    task.model.zero_grad()


# torch's own nn.LSTM, while it is traced.
@pytest.mark.filterwarnings("ignore:The tensor attributes:UserWarning")
def test_it_is_exported_with_its_lengths_as_an_input(narrow: SignModel) -> None:
    program = torch.export.export(narrow, (features(1, 24), torch.tensor([24])), strict=False)
    for length in (24, 7):
        given = (features(1, 24), torch.tensor([length]))
        expected = narrow(*given)[:, :length]
        exported = program.module()(*given)[:, :length]
        torch.testing.assert_close(exported, expected, atol=1e-5, rtol=0)


# The data.


def test_a_sentence_is_a_function_of_seed_and_number() -> None:
    one, other, same = Signer(0, 5, 20, 4, 0.5), Signer(1, 5, 20, 4, 0.5), Signer(0, 5, 20, 4, 0.5)
    same.perform(3)
    assert np.array_equal(one.perform(7), same.perform(7))
    assert one.sentence(7) == same.sentence(7)
    assert not np.array_equal(one.perform(7)[:, :8], one.perform(8)[:, :8])
    assert not np.array_equal(one.perform(7)[:, :8], other.perform(7)[:, :8])
    assert one.perform(7).shape == (20, one.sentence(7).frames)
    assert one.perform(7).dtype == np.float32


def test_a_batch_is_a_function_of_its_number(task: SignTask) -> None:
    again = SignTask(0, 4, samples=40, held_out=6, features=32, width=8, hidden=8)
    forward = [task.batch(index) for index in range(12)]
    for index in reversed(range(12)):
        batch = again.batch(index)
        assert batch.row_ids == forward[index].row_ids
        for name, tensor in batch.tensors.items():
            assert torch.equal(tensor, forward[index].tensors[name]), (index, name)


def batches(task: SignTask, epoch: int) -> Iterator[list[str]]:
    count = task.batches_per_epoch
    return (list(task.batch(epoch * count + index).row_ids) for index in range(count))


def test_an_epoch_shows_every_sentence_once(task: SignTask) -> None:
    first, second = (list(batches(task, epoch)) for epoch in (0, 1))
    shown = [identifier for batch in first for identifier in batch]
    assert sorted(shown) == sorted(f"sentence-{n}" for n in range(40))
    assert first != second


def test_batches_hold_sentences_of_similar_length() -> None:
    task = SignTask(0, 8, samples=200, held_out=8, features=16, width=8, hidden=8)
    frames = [task.batch(index).tensors["frames"] for index in range(task.batches_per_epoch)]
    assert max(int(f.max() - f.min()) for f in frames) <= 16
    padding = sum(int((f.max() - f).sum()) for f in frames) / sum(int(f.sum()) for f in frames)
    assert padding < 0.15
    assert frames[0].max() != frames[1].max(), "the batches are in order of length"


def test_batches_are_what_a_ctc_task_promises(task: SignTask) -> None:
    assert isinstance(task, CtcTask)
    for index in range(10):
        batch = task.batch(index)
        tensors, frames = batch.tensors, task.frames(batch)
        assert task.logits(batch).shape == (4, int(frames.max()), task.alphabet.classes)
        assert (frames_needed(tensors["targets"], tensors["lengths"]) <= frames).all()
        for row, length in zip(tensors["targets"], tensors["lengths"], strict=True):
            label = task.alphabet.decode(row[:length].tolist())
            assert task.alphabet.encode(label) == row[:length].tolist()
    assert task.evaluate().metrics["sentences"] == 6


# Checkpoints and configuration.


def test_a_checkpoint_brings_the_model_back(task: SignTask, tmp_path: Path) -> None:
    checkpoint = task.checkpoint(3, Score(1.0, {"wer": 99.0}, ""))
    save_checkpoint(checkpoint, tmp_path / "best.safetensors")
    fresh = build(**checkpoint.options)
    record = load_weights(tmp_path, fresh)
    assert record["factory"] == "examples.sign_ctc.model:build"
    batch = task.batch(0)
    task.model.eval()
    with torch.inference_mode():
        expected = task.logits(batch)
        assert torch.equal(fresh.eval()(batch.tensors["features"], task.frames(batch)), expected)
    with pytest.raises(CheckpointError, match="another model"):
        load_weights(tmp_path, build(**{**checkpoint.options, "width": 16}))


def test_the_configuration_builds_the_task_with_6516_features() -> None:
    config = load_config(str(CONFIG))
    assert isinstance(config, CustomConfig)
    task = assemble(config).task
    assert isinstance(task, SignTask)
    assert task.batch(0).tensors["features"].shape[:2] == (16, FEATURES)
    assert sum(p.numel() for p in task.model.parameters()) < 300_000


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(ConfigError, match="colour"):
        assemble(load_config(str(CONFIG), {"options.colour": 3}))


# Learning.


@pytest.mark.slow
def test_it_overfits_eight_sentences() -> None:
    task = SignTask(0, 8, samples=40, held_out=6)
    batch = task.batch(2)
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=2e-3)
    for _ in range(150):
        loss = task.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.2


@pytest.mark.slow
def test_it_learns_to_read_unseen_sentences(tmp_path: Path) -> None:
    config = load_config(str(CONFIG))
    task = assemble(config).task
    before = task.evaluate().metrics["wer"]
    progress = fit(task, config, tmp_path, lambda progress: None)
    assert progress.score is not None
    assert before >= 90.0
    assert progress.score.metrics["wer"] < 30.0
