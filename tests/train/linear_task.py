"""A task small enough to be watched number by number: least squares without randomness."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from train.checkpoint import ModelCheckpoint, copy_tensors
from train.config import LoopConfig
from train.progress import Progress
from train.task import Batch, Score

ROWS = 8

Sabotage = Callable[[Tensor], Tensor]


class LinearTask:
    """Three inputs, one output; `plan` says at which batch numbers what goes wrong.

    A plan maps a batch number to a function that is called in `loss` with the loss, and may raise
    or return another one. `scores` are given out in turn by `evaluate`, instead of the error.
    """

    batches_per_epoch = 1000

    def __init__(
        self,
        plan: Mapping[int, Sabotage] | None = None,
        scores: list[float] | None = None,
    ) -> None:
        torch.manual_seed(0)
        self.model: nn.Module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        self.plan = dict(plan or {})
        self.scores = scores
        self.number = -1
        self.evaluated = 0

    def batch(self, index: int) -> Batch:
        self.number = index
        x = torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(index))
        return Batch(
            {"x": x, "y": x.sum(dim=1, keepdim=True)}, [f"row-{index}-{i}" for i in range(ROWS)]
        )

    def loss(self, batch: Batch) -> Tensor:
        loss = nn.functional.mse_loss(self.model(batch.tensors["x"]), batch.tensors["y"])
        return self.plan[self.number](loss) if self.number in self.plan else loss

    def evaluate(self) -> Score:
        self.evaluated += 1
        if self.scores is not None:
            value = self.scores[self.evaluated - 1]
        else:
            x = torch.randn(50, 3, generator=torch.Generator().manual_seed(10**6))
            with torch.no_grad():
                value = -float(((self.model(x) - x.sum(dim=1, keepdim=True)) ** 2).mean())
        return Score(value, {}, f"score {value:g}")

    def checkpoint(self, step: int, score: Score) -> ModelCheckpoint:
        return ModelCheckpoint("tests:linear", {}, copy_tensors(self.model), step, score.metrics)


def settings(**sections: Any) -> LoopConfig:
    """A run of 12 steps with three evaluations, after 4, 8 and 12."""
    fields: dict[str, Any] = {
        "optimizer": {"learning_rate": 0.01},
        "schedule": {"warmup_steps": 0},
        "length": {"steps": 12},
        "evaluation": {"times": 3},
        "record": {"tensorboard": False, "every": 1},
        "device": "cpu",
    }
    return LoopConfig.model_validate({**fields, **sections})


def nan(loss: Tensor) -> Tensor:
    """Sabotage that makes the loss NaN."""
    return loss * float("nan")


def raising(error: BaseException) -> Sabotage:
    """Sabotage that raises `error` in the forward pass."""

    def raise_it(loss: Tensor) -> Tensor:
        raise error

    return raise_it


def ignore(progress: Progress) -> None:
    """An observer that does not look."""


def weights(task: LinearTask) -> list[Tensor]:
    """Copies of the parameters."""
    return [p.detach().clone() for p in task.model.parameters()]


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    """Whether two lists of tensors are bit for bit the same."""
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
