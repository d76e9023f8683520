"""Models as others write them: shared weights, buffers that are replaced instead of changed."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from linear_task import LinearTask, equal, ignore, nan, settings, weights
from torch import Tensor, nn

from train.loop import fit
from train.progress import Progress
from train.sealed import read_sealed


def test_weights_that_are_shared_can_be_saved_and_resumed(tmp_path: Path) -> None:
    """As an embedding and the layer that reads it out often are."""

    class Tied(LinearTask):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 1))
            self.model[1].weight = self.model[0].weight

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    expected, resumed = Tied(), Tied()
    with torch.no_grad():
        for one, other in zip(resumed.model.parameters(), expected.model.parameters(), strict=True):
            one.copy_(other)
    fit(expected, settings(), whole, ignore)
    last = Progress()

    def observe(progress: Progress) -> None:
        nonlocal last
        last = progress

    with pytest.raises(KeyboardInterrupt):
        fit(resumed, settings(), parts, observe, stop=lambda: last.step == 6)
    fit(resumed, settings(), parts, ignore, resume=True)
    assert resumed.model[0].weight is resumed.model[1].weight  # type: ignore[index]
    assert equal(weights(resumed), weights(expected))
    record, _ = read_sealed(parts / "last.safetensors", fix="-")
    assert record["step"] == 12


@pytest.mark.parametrize("at", [0, 5])
def test_l0_a_buffer_that_is_replaced_is_put_back_too(tmp_path: Path, at: int) -> None:
    """``self.mean = 0.9 * self.mean + …`` makes a new tensor at every step."""

    class Averaging(nn.Module):
        mean: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(3))
            self.inner = nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(dim=0)
            made: Tensor = self.inner(x - self.mean)
            return made

    class Replacing(LinearTask):
        def __init__(self) -> None:
            super().__init__({at: nan})
            self.model = Averaging()

    task = Replacing()
    before: Tensor = task.model.mean.clone()  # type: ignore[operator, union-attr, assignment]
    seen: list[Tensor] = []

    def observe(progress: Progress) -> None:
        nonlocal before
        now: Tensor = task.model.mean  # type: ignore[assignment]
        if progress.step == at + 1:
            seen.append(now.clone())
            assert torch.equal(now, before)
        before = now.clone()

    fit(task, settings(), tmp_path, observe)
    assert seen
    _, tensors = read_sealed(tmp_path / "last.safetensors", fix="-")
    assert torch.equal(tensors["mean"], before)


def test_l0_a_replaced_buffer_that_is_not_finite_costs_a_step(tmp_path: Path) -> None:
    class Counting(nn.Module):
        seen: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(()))
            self.inner = nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            self.seen = self.seen + (math.inf if x.sum() > 6 else 1.0)
            made: Tensor = self.inner(x)
            return made

    task = LinearTask()
    task.model = Counting()
    progress = fit(task, settings(), tmp_path, ignore)
    bad = sum(float(task.batch(n).tensors["x"].sum()) > 6 for n in range(12))
    assert progress.skipped == bad > 0
