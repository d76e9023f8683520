"""What a preflight could overlook: noise, sign, blame, constants, and what it leaves behind."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from swipe.errors import DataError, NonFiniteError
from train.config import LoopConfig
from train.ctc import Alphabet, ctc_loss
from train.preflight import Check, preflight
from train.task import Batch, Score

ROWS, FRAMES, CLASSES = 8, 6, 4
CONFIG = LoopConfig.model_validate(
    {
        "optimizer": {"learning_rate": 0.05},
        "length": {"steps": 100},
        "schedule": {"warmup_steps": 0},
        "device": "cpu",
    }
)
FORWARD, HEART = "data -> model -> loss", f"{ROWS} samples can be learned by heart"
DIFFER = "frames differ over time"


class Regression:
    """Least squares; `change` is what happens to its loss."""

    batches_per_epoch = 10

    def __init__(self, change: Callable[[Tensor], Tensor] = lambda loss: loss) -> None:
        torch.manual_seed(0)
        self.model: nn.Module = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1))
        self.change = change

    def batch(self, index: int) -> Batch:
        x = torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(index))
        return Batch({"x": x, "y": x.sum(1, keepdim=True)}, [str(i) for i in range(ROWS)])

    def loss(self, batch: Batch) -> Tensor:
        x, y = batch.tensors["x"], batch.tensors["y"]
        return self.change(nn.functional.mse_loss(self.model(x), y))

    def evaluate(self) -> Score:
        raise AssertionError("a preflight does not evaluate")

    def checkpoint(self, step: int, score: Score) -> Any:
        raise AssertionError("a preflight writes nothing")


def ask(task: Any, folder: Path) -> tuple[dict[str, Check], list[str]]:
    answers = {check.name: check for check in preflight(task, CONFIG, folder)}
    for check in answers.values():
        assert bool(check.fix) is not check.passed, check
    return answers, [name for name, check in answers.items() if not check.passed]


def test_an_honest_regression_passes(tmp_path: Path) -> None:
    assert not ask(Regression(), tmp_path)[1]


@pytest.mark.parametrize("offset", [-1.0, -1000.0])
def test_l1_a_model_that_learns_nothing_is_found_below_zero_too(
    tmp_path: Path, offset: float
) -> None:
    """A log-likelihood may be negative, and a negative loss is less than a tenth of itself."""
    still = Regression(lambda loss: 0.0 * loss + offset)
    answers, failed = ask(still, tmp_path)
    assert failed == [HEART]
    assert "in 200 steps" in answers[HEART].detail


def test_l1_a_loss_that_is_always_zero_is_not_learned_by_heart(tmp_path: Path) -> None:
    """What `zero_infinity` makes of labels that cannot be spelled."""
    assert ask(Regression(lambda loss: 0.0 * loss), tmp_path)[1] == [HEART]


def test_a_loss_that_falls_below_zero_is_learned_by_heart(tmp_path: Path) -> None:
    assert not ask(Regression(lambda loss: (loss + 1e-3).log()), tmp_path)[1]


@pytest.mark.parametrize(
    "error",
    [
        DataError("label 7 is unknown", fix="-"),
        NonFiniteError("speed is Inf", fix="-"),
        RuntimeError("shapes do not fit"),
    ],
)
@pytest.mark.parametrize("where", ["batch", "loss", "few"])
def test_l3_whatever_a_task_refuses_is_an_answer_and_not_the_end(
    tmp_path: Path, error: Exception, where: str
) -> None:
    class Refusing(Regression):
        calls = 0

        def batch(self, index: int) -> Batch:
            if where == "batch":
                raise error
            return super().batch(index)

        def loss(self, batch: Batch) -> Tensor:
            self.calls += 1
            if where == "loss" or (where == "few" and self.calls > 1):
                raise error
            return super().loss(batch)

    answers, failed = ask(Refusing(), tmp_path)
    assert len(failed) == 1
    assert str(error) in answers[failed[0]].detail


def test_l1_the_layer_that_adds_shapes_itself_is_blamed_and_not_the_loss(tmp_path: Path) -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 35)
            self.skip = nn.Linear(3, 37)

        def forward(self, x: Tensor) -> Tensor:
            made: Tensor = self.inner(x) + self.skip(x)
            return made

    task = Regression()
    task.model = nn.Sequential(Residual(), nn.Linear(37, 1))
    answers, failed = ask(task, tmp_path)
    assert failed == [FORWARD]
    assert answers[FORWARD].detail.startswith("0: Residual() got [8, 3]: The size of tensor")


@pytest.mark.parametrize("value", [-math.inf, math.nan, torch.finfo(torch.float32).min])
@pytest.mark.parametrize("persistent", [True, False])
def test_l0_a_constant_that_no_step_would_accept_is_found(
    tmp_path: Path, value: float, persistent: bool
) -> None:
    """An attention mask of -inf, say: it would refuse every step of the run."""
    task = Regression()
    task.model.register_buffer("mask", torch.full((2, 2), value), persistent=persistent)
    answers, failed = ask(task, tmp_path)
    assert failed == [FORWARD]
    assert "mask: " in answers[FORWARD].detail


@pytest.mark.parametrize("persistent", [True, False])
def test_buffers_of_every_kind_are_left_as_they_were(tmp_path: Path, persistent: bool) -> None:
    class Counting(nn.Module):
        seen: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(()), persistent=persistent)
            self.inner = nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            self.seen += 1
            made: Tensor = self.inner(x)
            return made

    task = Regression()
    task.model = Counting()
    ask(task, tmp_path)
    assert float(task.model.seen) == 0.0


class Spelling:
    """CTC over random features; `pooled` says the same at all times, but for its dropout."""

    batches_per_epoch = 2
    alphabet = Alphabet("abc")

    def __init__(self, *, pooled: bool) -> None:
        torch.manual_seed(0)
        self.model: nn.Module = nn.Sequential(
            nn.Linear(5, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, CLASSES)
        )
        self.pooled = pooled

    def batch(self, index: int) -> Batch:
        generator = torch.Generator().manual_seed(index)
        x = torch.randn(ROWS, FRAMES, 5, generator=generator)
        targets = torch.tensor([[i % 3, (i + 1) % 3] for i in range(ROWS)])
        lengths = torch.full((ROWS,), 2)
        tensors = {"x": x, "targets": targets, "lengths": lengths}
        return Batch(tensors, [str(i) for i in range(ROWS)])

    def frames(self, batch: Batch) -> Tensor:
        return torch.full((len(batch.row_ids),), FRAMES)

    def logits(self, batch: Batch) -> Tensor:
        x = batch.tensors["x"]
        made: Tensor = self.model(x.mean(dim=1, keepdim=True).expand_as(x) if self.pooled else x)
        return made

    def loss(self, batch: Batch) -> Tensor:
        tensors = batch.tensors
        return ctc_loss(
            self.logits(batch), tensors["targets"], self.frames(batch), tensors["lengths"], blank=3
        )

    evaluate = Regression.evaluate
    checkpoint = Regression.checkpoint


@pytest.mark.parametrize("pooled", [False, True])
def test_l2_dropout_does_not_hide_that_all_frames_are_the_same(
    tmp_path: Path, pooled: bool
) -> None:
    answers, failed = ask(Spelling(pooled=pooled), tmp_path)
    assert answers[DIFFER].passed is not pooled
    assert (DIFFER in failed) is pooled


def test_l2_labels_whose_batches_cannot_be_drawn_are_an_answer(tmp_path: Path) -> None:
    class Torn(Spelling):
        def batch(self, index: int) -> Batch:
            if index:
                raise DataError("shard 1 is damaged", fix="-")
            return super().batch(index)

    answers, failed = ask(Torn(pooled=False), tmp_path)
    assert failed
    assert "shard 1 is damaged" in answers[failed[0]].detail
