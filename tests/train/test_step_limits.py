"""What a step refuses beyond shapes and NaN: bad moments, refusing tasks, mistakes in the code."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from watched_task import (
    ROWS,
    RememberingAdamW,
    WatchedTask,
    adamw,
    everything,
    ignore,
    lines,
    raising,
    settings,
)

from swipe.errors import DataError, ExitCode, GateError, NonFiniteError
from train.loop import fit
from train.sealed import read_sealed
from train.task import Batch

__all__ = ["adamw"]


@pytest.mark.parametrize("where", ["batch", "loss"])
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (DataError("shard 7 is damaged", fix="-"), "does not fit"),
        (NonFiniteError("speed of row 3 is Inf", fix="-"), "not finite"),
        (MemoryError(), "out of memory"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_l3_a_batch_that_its_own_task_refuses_costs_one_step(
    tmp_path: Path, where: str, error: Exception, kind: str
) -> None:
    class Refusing(WatchedTask):
        def batch(self, index: int) -> Batch:
            if index == 5 and where == "batch":
                raise error
            return super().batch(index)

    task = Refusing({5: raising(error)} if where == "loss" else {})
    progress = fit(task, settings(), tmp_path, ignore)
    assert (progress.step, progress.taken, progress.skipped) == (12, 11, 1)
    (row,) = lines(tmp_path / "skipped.jsonl")
    assert (row["step"], row["kind"]) == (5, kind)
    assert (str(error) or "MemoryError") in row["cause"]
    assert len(row["rows"]) == (ROWS if where == "loss" else 0)


@pytest.mark.parametrize(
    "error",
    [
        NotImplementedError("aten::_nested is not implemented for this device"),
        RecursionError("maximum recursion depth exceeded"),
        AttributeError("'Model' has no attribute 'heads'"),
        TypeError("forward() takes 2 arguments"),
        KeyError("features"),
        AssertionError("unreachable"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("where", ["batch", "loss"])
def test_a_mistake_in_the_code_ends_the_run_as_itself(
    tmp_path: Path, where: str, error: Exception
) -> None:
    """No other batch would do better: skipping would only hide it behind twenty others."""

    class Mistaken(WatchedTask):
        def batch(self, index: int) -> Batch:
            if index == 2 and where == "batch":
                raise error
            return super().batch(index)

    task = Mistaken({2: raising(error)} if where == "loss" else {})
    with pytest.raises(type(error)) as caught:
        fit(task, settings(), tmp_path, ignore)
    assert caught.value is error
    assert not (tmp_path / "skipped.jsonl").exists()


def plant(task: WatchedTask, adamw: type[RememberingAdamW], moment: str, value: float) -> None:
    """Let a moment of ``4.weight`` be spoiled while batch 5 is computed, as bad memory would."""

    def spoil(loss: Tensor) -> Tensor:
        weight = task.model[4].weight  # type: ignore[index]
        adamw.last.state[weight][moment][0, 0] = value
        return loss

    task.plan[5] = spoil


def test_l4_a_moment_that_turns_nan_is_caught_by_its_update_and_undone_by_going_back(
    tmp_path: Path, adamw: type[RememberingAdamW]
) -> None:
    task = WatchedTask()
    plant(task, adamw, "exp_avg", math.nan)
    progress = fit(task, settings(guard={"max_skips_in_a_row": 3}), tmp_path, ignore)
    assert (progress.skipped, progress.rollbacks, progress.taken) == (3, 1, 9)
    rows = lines(tmp_path / "skipped.jsonl")
    assert [row["step"] for row in rows] == [5, 6, 7]
    assert all("update, 4.weight: 1 NaN" in row["cause"] for row in rows)
    assert all(bool(torch.isfinite(t).all()) for t in everything(task, adamw.last).values())


def test_l4_an_infinite_moment_that_moves_no_weight_is_not_saved(
    tmp_path: Path, adamw: type[RememberingAdamW]
) -> None:
    """No weight shows it: divided by it, they stand still. (No finite gradient can cause it.)"""
    task = WatchedTask()
    plant(task, adamw, "exp_avg_sq", math.inf)
    with pytest.raises(
        NonFiniteError, match=r"state\.safetensors: optimizer\.4\.exp_avg_sq"
    ) as caught:
        fit(task, settings(), tmp_path, ignore)
    assert caught.value.exit_code == ExitCode.GATE_FAILED
    record, _ = read_sealed(tmp_path / "state.safetensors", fix="-")
    assert record["step"] == 4, "the good state is gone"


@pytest.mark.parametrize("limit", [1, 3])
@pytest.mark.parametrize("kind", ["does not fit", "out of memory", "not finite"])
def test_l3_the_limit_is_exact_and_its_class_is_that_of_the_cause(
    tmp_path: Path, kind: str, limit: int
) -> None:
    errors = {
        "does not fit": ValueError("35 columns, 37 wanted"),
        "out of memory": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
        "not finite": NonFiniteError("speed is Inf", fix="-"),
    }
    config = settings(guard={"max_skips_in_a_row": limit, "max_rollbacks": 0})
    (tmp_path / "spared").mkdir()
    spared = WatchedTask(dict.fromkeys(range(5, 5 + limit - 1), raising(errors[kind])))
    assert fit(spared, config, tmp_path / "spared", ignore).skipped == limit - 1
    task = WatchedTask(dict.fromkeys(range(5, 12), raising(errors[kind])))
    (tmp_path / "run").mkdir()
    with pytest.raises(GateError, match=f"{limit} steps in a row") as caught:
        fit(task, config, tmp_path / "run", ignore)
    assert caught.value.exit_code == 3
    assert isinstance(caught.value, NonFiniteError) == (kind == "not finite")
    assert kind in str(caught.value)
    assert [row["step"] for row in lines(tmp_path / "run" / "skipped.jsonl")] == list(
        range(5, 5 + limit)
    )


def test_row_ids_of_any_type_are_written_down(tmp_path: Path) -> None:
    """Strangers number their rows with numpy; the quarantine must not die of it."""

    class Numbered(WatchedTask):
        def batch(self, index: int) -> Batch:
            batch = super().batch(index)
            return Batch(batch.tensors, list(np.arange(ROWS)))  # type: ignore[arg-type]

    task = Numbered(dict.fromkeys(range(5, 12), raising(ValueError("no"))))
    with pytest.raises(GateError, match="3 steps in a row"):
        fit(task, settings(guard={"max_skips_in_a_row": 3}), tmp_path, ignore)
    assert lines(tmp_path / "skipped.jsonl")[0]["rows"][:2] == ["0", "1"]
