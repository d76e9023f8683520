"""One step or none: bad batches by kind, and what a step that was not taken leaves behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from linear_task import ROWS, LinearTask, raising, settings
from torch import Tensor

from swipe.errors import DataError, ExitCode, GateError, NonFiniteError
from train.loop import fit
from train.progress import Progress
from train.step import Stepper
from train.task import Batch


class Backwards(torch.autograd.Function):
    """Fine forwards, an error backwards."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        raise RuntimeError("shapes do not fit in the backward pass")


def backwards(loss: Tensor) -> Tensor:
    made: Tensor = Backwards.apply(loss)  # type: ignore[no-untyped-call]
    return made


KINDS = {
    "a shape in the forward pass": (
        raising(RuntimeError("mat1 and mat2 shapes cannot be multiplied (8x35 and 37x4)")),
        "does not fit",
        "35 and 37",
    ),
    "numpy's shapes": (raising(ValueError("cannot reshape 17")), "does not fit", "reshape 17"),
    "an index": (raising(IndexError("tuple index out of range")), "does not fit", "tuple index"),
    "a backward pass": (backwards, "does not fit", "in the backward pass"),
    "host memory": (raising(MemoryError()), "out of memory", "MemoryError"),
    "torch's allocator": (
        raising(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")),
        "out of memory",
        "allocate",
    ),
    "a GPU's memory": (raising(torch.OutOfMemoryError("of CUDA")), "out of memory", "of CUDA"),
    "a label of the task": (raising(DataError("no such class", fix="-")), "does not fit", "class"),
    "the task's own check": (
        raising(NonFiniteError("speed is Inf", fix="-")),
        "not finite",
        "speed is Inf",
    ),
}  # fmt: skip


def skipped(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "skipped.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", KINDS)
def test_l3_one_bad_batch_costs_one_step_and_says_why(tmp_path: Path, name: str) -> None:
    sabotage, kind, cause = KINDS[name]
    task = LinearTask({5: sabotage})
    progress = fit(task, settings(), tmp_path, lambda _: None)
    assert (progress.step, progress.taken, progress.skipped) == (12, 11, 1)
    (row,) = skipped(tmp_path)
    assert (row["step"], row["kind"]) == (5, kind)
    assert cause in row["cause"]
    assert row["rows"] == [f"row-5-{i}" for i in range(ROWS)]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("at", [0, 3])
def test_a_step_that_is_not_taken_changes_nothing(name: str, at: int) -> None:
    task = LinearTask({at: KINDS[name][0]})
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=0.1)
    stepper = Stepper(task, optimizer, 1.0)

    def everything() -> list[Tensor]:
        moments = [v for s in optimizer.state.values() for v in s.values()]
        return [t.detach().clone() for t in [*task.model.state_dict().values(), *moments]]

    for number in range(at):
        assert stepper.step([number]).problem is None
    before = everything()
    outcome = stepper.step([at])
    assert outcome.problem is not None
    assert outcome.problem.batches == (at,)
    after = everything()
    assert len(after) == len(before)
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))
    assert stepper.step([at + 1]).problem is None
    assert not torch.equal(everything()[0], before[0]), "the next step is taken"


def test_gradients_of_the_batches_before_a_bad_one_are_dropped_with_it() -> None:
    task = LinearTask({1: KINDS["an index"][0]})
    stepper = Stepper(task, torch.optim.SGD(task.model.parameters(), lr=0.1), 1.0)
    outcome = stepper.step([0, 1])
    assert outcome.problem is not None
    assert outcome.problem.batches == (0, 1)
    assert all(p.grad is None for p in task.model.parameters())


@pytest.mark.parametrize("name", KINDS)
def test_a_batch_that_does_not_fit_ends_a_run_in_which_others_would_wait(name: str) -> None:
    """Of BatchNorm over several processes: they are in the middle of its collectives."""
    task = LinearTask({0: KINDS[name][0]})
    optimizer = torch.optim.SGD(task.model.parameters(), lr=0.1)
    with pytest.raises((RuntimeError, ValueError, IndexError, MemoryError, DataError, GateError)):
        Stepper(task, optimizer, 1.0, contain=False).step([0])


@pytest.mark.parametrize(("scale", "moved"), [(1e3, 0.5), (1e-6, None)])
def test_gradients_are_clipped_to_their_norm_and_never_raised_to_it(
    scale: float, moved: float | None
) -> None:
    task = LinearTask({0: lambda loss: loss * scale})
    before = [p.detach().clone() for p in task.model.parameters()]
    stepper = Stepper(task, torch.optim.SGD(task.model.parameters(), lr=1.0), 0.5)
    outcome = stepper.step([0])
    steps = [p.detach() - was for p, was in zip(task.model.parameters(), before, strict=True)]
    length = float(torch.cat([step.flatten() for step in steps]).norm())
    assert length == pytest.approx(outcome.norm if moved is None else moved, rel=0.01)
    assert (outcome.norm > 0.5) == (moved is not None)


def test_a_batch_that_cannot_be_made_is_skipped_without_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = LinearTask.batch

    def batch(self: LinearTask, index: int) -> Batch:
        if index == 3:
            raise DataError("shard 7 is damaged", fix="-")
        return honest(self, index)

    monkeypatch.setattr(LinearTask, "batch", batch)
    progress = fit(LinearTask(), settings(), tmp_path, lambda _: None)
    assert progress.skipped == 1
    (row,) = skipped(tmp_path)
    assert row["rows"] == []
    assert "shard 7 is damaged" in row["cause"]


@pytest.mark.parametrize("error", [AttributeError, TypeError, KeyError, ZeroDivisionError])
def test_a_mistake_in_the_code_is_not_skipped_over(tmp_path: Path, error: type[Exception]) -> None:
    with pytest.raises(error):
        fit(LinearTask({2: raising(error("a mistake"))}), settings(), tmp_path, lambda _: None)


def test_batches_that_never_fit_stop_the_run_with_the_cause(tmp_path: Path) -> None:
    never = dict.fromkeys(range(5, 12), KINDS["a shape in the forward pass"][0])
    config = settings(guard={"max_skips_in_a_row": 3})
    with pytest.raises(GateError, match=r"3 steps in a row .*35 and 37x4") as caught:
        fit(LinearTask(never), config, tmp_path, lambda _: None)
    assert not isinstance(caught.value, NonFiniteError)
    assert caught.value.exit_code == ExitCode.GATE_FAILED
    assert (tmp_path / "best.safetensors").is_file()


@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulated_batches_equal_one_large_batch(tmp_path: Path, accumulate: int) -> None:
    class Large(LinearTask):
        def batch(self, index: int) -> Batch:
            parts = [LinearTask.batch(self, index * accumulate + i) for i in range(accumulate)]
            tensors = {n: torch.cat([p.tensors[n] for p in parts]) for n in ("x", "y")}
            return Batch(tensors, [row for part in parts for row in part.row_ids])

    large, small = Large(), LinearTask()
    fit(large, settings(), tmp_path, lambda _: None)
    recipe = {"learning_rate": 0.01, "accumulate": accumulate}
    progress = fit(small, settings(optimizer=recipe), tmp_path, lambda _: None)
    assert progress.samples == 12 * accumulate * ROWS
    for one, other in zip(large.model.parameters(), small.model.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_bfloat16_is_for_the_forward_pass_only(tmp_path: Path) -> None:
    seen: list[torch.dtype] = []

    class Watched(LinearTask):
        def loss(self, batch: Batch) -> Tensor:
            seen.append(self.model(batch.tensors["x"]).dtype)
            return super().loss(batch)

    task = Watched()
    progress = fit(task, settings(precision="bfloat16"), tmp_path, lambda _: None)
    assert set(seen) == {torch.bfloat16}
    assert progress.taken == 12
    assert all(p.dtype == torch.float32 for p in task.model.parameters())


def test_what_is_random_inside_the_model_is_a_function_of_the_batch_number() -> None:
    draws: list[float] = []

    class Random(LinearTask):
        def loss(self, batch: Batch) -> Tensor:
            draws.append(float(torch.rand(())))
            return super().loss(batch)

    task = Random()
    stepper = Stepper(task, torch.optim.AdamW(task.model.parameters()), 1.0, seed=3)
    for number in (4, 5, 4):
        torch.rand(number)  # whatever was drawn before
        stepper.step([number])
    assert draws[0] == draws[2] != draws[1]


def test_the_progress_of_a_run_counts_every_sample(tmp_path: Path) -> None:
    seen: list[Progress] = []
    fit(LinearTask(), settings(), tmp_path, seen.append)
    assert seen[-1].samples == 12 * ROWS
    assert seen[-1].skipped_share == 0.0
