"""A preflight of anyone's task: every failure becomes an answer, and nothing is left changed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from watched_task import WatchedTask, differing, raising, settings

from swipe.errors import DataError, NonFiniteError
from train.ctc import Alphabet, ctc_loss, frames_needed
from train.preflight import Check, model, preflight
from train.task import Batch

DATA = "a batch of real data"
FORWARD = "data -> model -> loss"
LABELS = "labels round-trip through the alphabet"
FRAMES = "frames differ over time"
REFUSALS = [
    DataError("shard 7 is damaged", fix="-"),
    NonFiniteError("speed is Inf", fix="-"),
    ValueError("cannot reshape 17 into 3"),
    MemoryError("no room"),
]


def failures(task: WatchedTask, folder: Path) -> dict[str, Check]:
    """Bad answers by question."""
    found = preflight(task, settings(length={"steps": 500}), folder)
    return {check.name: check for check in found if not check.passed}


@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: type(error).__name__)
def test_l3_a_batch_that_cannot_be_made_is_an_answer(tmp_path: Path, error: Exception) -> None:
    class Refusing(WatchedTask):
        def batch(self, index: int) -> Batch:
            raise error

    found = failures(Refusing(), tmp_path)
    assert list(found) == [DATA]
    assert str(error) in found[DATA].detail
    assert found[DATA].fix


@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: type(error).__name__)
def test_l3_a_batch_that_cannot_be_taken_is_an_answer(tmp_path: Path, error: Exception) -> None:
    found = failures(WatchedTask({0: raising(error)}), tmp_path)
    assert list(found) == [FORWARD]
    assert str(error) in found[FORWARD].detail


def test_a_tensor_without_samples_is_an_answer(tmp_path: Path) -> None:
    class Lonely(WatchedTask):
        def batch(self, index: int) -> Batch:
            batch = super().batch(index)
            return Batch({**batch.tensors, "scale": torch.tensor(2.0)}, batch.row_ids)

    found = failures(Lonely(), tmp_path)
    assert list(found) == [DATA]
    assert "scale []" in found[DATA].detail


def test_a_mistake_in_the_code_is_not_an_answer(tmp_path: Path) -> None:
    with pytest.raises(AttributeError):
        failures(WatchedTask({0: raising(AttributeError("heads"))}), tmp_path)


def test_l3_a_shape_that_breaks_between_two_layers_names_the_block(tmp_path: Path) -> None:
    """448 was hard-coded where the model wants 224: not in a layer, in the code around them."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x).reshape(-1, 448)  # type: ignore[no-any-return]

    task = WatchedTask()
    task.model = nn.Sequential(nn.Linear(3, 6), nn.Sequential(Block(), nn.Linear(448, 1)))
    detail = failures(task, tmp_path)[FORWARD].detail
    assert "1.0: Block" in detail
    assert "got [8, 6]" in detail
    assert "448" in detail


def test_a_shape_that_breaks_in_the_loss_names_the_loss(tmp_path: Path) -> None:
    task = WatchedTask({0: raising(RuntimeError("size of tensor a (30)"))})
    assert failures(task, tmp_path)[FORWARD].detail.startswith("the loss: ")


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, also those that no checkpoint holds."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def test_every_kind_of_buffer_is_left_as_it_was(tmp_path: Path) -> None:
    class Counting(nn.Module):
        """Remembers the largest input in a buffer that no checkpoint holds."""

        largest: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("largest", torch.zeros(1), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            self.largest.copy_(torch.maximum(self.largest, x.detach().abs().max()))
            return x

    task = WatchedTask()
    task.model.insert(0, Counting())  # type: ignore[operator]
    task.model.eval()
    before = {n: t.clone() for n, t in tensors(task.model).items()}
    kept = dict(task.model.named_parameters())
    assert not failures(task, tmp_path)
    after = tensors(task.model)
    assert not differing(before, after)
    assert all(after[name] is parameter for name, parameter in kept.items())
    assert not task.model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in task.model.modules())


def test_a_model_too_slow_to_be_told_is_not_blamed_for_its_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "SECONDS", 0.02)

    class Slow(WatchedTask):
        def loss(self, batch: Batch) -> Tensor:
            time.sleep(0.01)
            return super().loss(batch)

    (check,) = failures(Slow(), tmp_path).values()
    assert "and then 0.02 s were used up" in check.detail
    assert "faster device" in check.fix
    assert "learning_rate" not in check.fix


# CTC.

LENGTH, CLASSES = 12, 4


class SpellingTask(WatchedTask):
    """Reads which symbol stands in which frame; `collapse` is what happens to time."""

    def __init__(self, *, pooled: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.alphabet = Alphabet("abc")
        self.pooled = pooled
        self.model = nn.ModuleDict(
            {
                "reads": nn.Sequential(nn.Linear(CLASSES, 32), nn.ReLU()),
                # L2 had .5; it must not pass for a difference between frames.
                "says": nn.Sequential(nn.Dropout(0.5), nn.Linear(32, CLASSES)),
            }
        )

    def batch(self, index: int) -> Batch:
        self.number = index
        rng = torch.Generator().manual_seed(index)
        targets = torch.randint(0, 3, (16, 3), generator=rng)
        spelt = torch.full((16, LENGTH), 3)
        spelt[:, 1::4] = targets
        return Batch(
            {
                "x": nn.functional.one_hot(spelt, CLASSES).float(),
                "targets": targets,
                "lengths": torch.full((16,), 3),
            },
            [f"row-{index}-{i}" for i in range(16)],
        )

    def logits(self, batch: Batch) -> Tensor:
        read = self.model["reads"](batch.tensors["x"])  # type: ignore[index]
        if self.pooled:
            read = read.mean(dim=1, keepdim=True).expand_as(read)
        return self.model["says"](read)  # type: ignore[index, no-any-return]

    def frames(self, batch: Batch) -> Tensor:
        return torch.full((len(batch.row_ids),), LENGTH)

    def loss(self, batch: Batch) -> Tensor:
        tensors = batch.tensors
        return ctc_loss(
            self.logits(batch), tensors["targets"], self.frames(batch), tensors["lengths"], blank=3
        )


def test_an_honest_ctc_task_passes(tmp_path: Path) -> None:
    assert not failures(SpellingTask(), tmp_path)


def test_l2_frames_that_differ_by_dropout_alone_do_not_differ(tmp_path: Path) -> None:
    """Pooled over time, then dropout at .5: every frame is another one, and none says anything."""
    found = failures(SpellingTask(pooled=True), tmp_path)
    assert FRAMES in found
    assert "by 0.00% of" in found[FRAMES].detail


@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: type(error).__name__)
def test_labels_that_cannot_be_read_are_an_answer(tmp_path: Path, error: Exception) -> None:
    class Torn(SpellingTask):
        def batch(self, index: int) -> Batch:
            if index == 3:
                raise error
            return super().batch(index)

    found = failures(Torn(), tmp_path)
    assert list(found) == [LABELS]
    assert str(error) in found[LABELS].detail
    assert "batch 3" in found[LABELS].detail


def test_labels_without_any_symbol_need_no_frames() -> None:
    lengths = torch.zeros(2, dtype=torch.long)
    assert frames_needed(torch.zeros(2, 0, dtype=torch.long), lengths).tolist() == [0, 0]
