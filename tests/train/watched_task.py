"""A small task that goes wrong where it is told to, and an optimizer that remembers its rates."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from train.checkpoint import ModelCheckpoint, copy_tensors
from train.config import LoopConfig
from train.progress import Progress
from train.task import Batch, Score

ROWS = 8

Sabotage = Callable[[Tensor], Tensor]


class WatchedTask:
    """Least squares with BatchNorm and dropout: everything that a step could leave changed.

    `plan` maps a batch number to what happens to that batch's loss; it may raise. `scores` are
    given out in turn by `evaluate`; without them, the score is the number of the latest step.
    """

    batches_per_epoch = 1000

    def __init__(
        self, plan: Mapping[int, Sabotage] | None = None, scores: Iterable[Any] | None = None
    ) -> None:
        torch.manual_seed(0)
        self.model: nn.Module = nn.Sequential(
            nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.2), nn.Linear(6, 1)
        )
        self.plan = dict(plan or {})
        self.scores = iter(scores) if scores is not None else None
        self.number = -1

    def batch(self, index: int) -> Batch:
        self.number = index
        x = torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(index))
        y = x.sum(dim=1, keepdim=True)
        return Batch({"x": x, "y": y}, [f"row-{index}-{i}" for i in range(ROWS)])

    def loss(self, batch: Batch) -> Tensor:
        loss = nn.functional.mse_loss(self.model(batch.tensors["x"]), batch.tensors["y"])
        return self.plan[self.number](loss) if self.number in self.plan else loss

    def evaluate(self) -> Score:
        self.model.eval()
        value = float(self.number + 1) if self.scores is None else next(self.scores)
        return Score(value, {"batch": self.number}, f"score {value}")

    def checkpoint(self, step: int, score: Score) -> ModelCheckpoint:
        return ModelCheckpoint("tests:watched", {}, copy_tensors(self.model), step, score.metrics)


class RememberingAdamW(torch.optim.AdamW):
    """AdamW that a test can look into: the rate of every update, seen inside the update."""

    last: RememberingAdamW

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rates: list[float] = []
        type(self).last = self

    def step(self, closure: Any = None) -> Any:
        self.rates.append(self.param_groups[0]["lr"])
        return super().step(closure)


@pytest.fixture
def adamw(monkeypatch: pytest.MonkeyPatch) -> type[RememberingAdamW]:
    """The optimizer of the next run, as ``adamw.last``."""

    class Watched(RememberingAdamW):
        pass

    monkeypatch.setattr(torch.optim, "AdamW", Watched)
    return Watched


def settings(**sections: Any) -> LoopConfig:
    """A run of 12 steps with three evaluations, after 4, 8 and 12, at a constant-ish rate."""
    fields: dict[str, Any] = {
        "optimizer": {"learning_rate": 0.01},
        "schedule": {"warmup_steps": 0},
        "length": {"steps": 12},
        "evaluation": {"times": 3},
        "record": {"tensorboard": False, "every": 1},
        "device": "cpu",
    }
    return LoopConfig.model_validate({**fields, **sections})


def ignore(progress: Progress) -> None:
    """An observer that does not look."""


class Stopped(Exception):  # noqa: N818 - a kill, not an error
    """The end of a process, as a test can cause it."""


def stop_at(step: int) -> Callable[[Progress], None]:
    """An observer that ends the run after `step`, before anything else could be saved."""

    def observe(progress: Progress) -> None:
        if progress.step == step:
            raise Stopped

    return observe


def raising(error: BaseException) -> Sabotage:
    """Sabotage that raises `error` in the forward pass."""

    def raise_it(loss: Tensor) -> Tensor:
        raise error

    return raise_it


def nan(loss: Tensor) -> Tensor:
    """Sabotage that makes the loss NaN."""
    return loss * float("nan")


def lines(path: Path) -> list[dict[str, Any]]:
    """Rows of a jsonl file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def everything(task: WatchedTask, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Copies of parameters, buffers and moments by name."""
    found = {n: t.detach().clone() for n, t in task.model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        found |= {f"moment.{index}.{k}": torch.as_tensor(v).clone() for k, v in state.items()}
    return found


def differing(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> list[str]:
    """Names of what is not bit for bit the same in `a` and `b`, or not in both."""
    missing = sorted(a.keys() ^ b.keys())
    return missing + [name for name in a if name in b and not torch.equal(a[name], b[name])]
