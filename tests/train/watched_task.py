"""A small task that goes wrong where it is told to, and an optimizer that remembers its rates."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from linear_task import ROWS, LinearTask, Sabotage, ignore, nan, raising, settings
from torch import Tensor, nn

from train.checkpoint import ModelCheckpoint, copy_tensors
from train.progress import Progress
from train.task import Score

__all__ = [
    "ROWS",
    "RememberingAdamW",
    "Sabotage",
    "Stopped",
    "WatchedTask",
    "adamw",
    "differing",
    "everything",
    "ignore",
    "lines",
    "nan",
    "raising",
    "settings",
    "stop_at",
]


class WatchedTask(LinearTask):
    """Least squares with BatchNorm and dropout: everything that a step could leave changed.

    `plan` maps a batch number to what happens to that batch's loss; it may raise. `scores` are
    given out in turn by `evaluate`; without them, the score is the number of the latest step.
    """

    def __init__(
        self, plan: Mapping[int, Sabotage] | None = None, scores: Iterable[Any] | None = None
    ) -> None:
        super().__init__(plan)
        torch.manual_seed(0)
        self.model = nn.Sequential(
            nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.2), nn.Linear(6, 1)
        )
        self._given = iter(scores) if scores is not None else None

    def evaluate(self) -> Score:
        self.model.eval()
        value = float(self.number + 1) if self._given is None else next(self._given)
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


class Stopped(Exception):  # noqa: N818 - a kill, not an error
    """The end of a process, as a test can cause it."""


def stop_at(step: int) -> Callable[[Progress], None]:
    """An observer that ends the run after `step`, before anything else could be saved."""

    def observe(progress: Progress) -> None:
        if progress.step == step:
            raise Stopped

    return observe


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
