"""Why a run stopped: the layer, the rows and the history are those that are to blame."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from watched_task import (
    ROWS,
    Sabotage,
    WatchedTask,
    differing,
    ignore,
    nan,
    raising,
    settings,
)

from swipe.errors import DataError, GateError, NonFiniteError, SwipeError
from train.diagnosis import HISTORY, History, first_bad_layer
from train.diagnosis import ROWS as MOST
from train.loop import fit
from train.task import Batch

CPU = torch.device("cpu")
STRICT = {"max_skips_in_a_row": 3, "max_rollbacks": 0}


def stopped(folder: Path, task: WatchedTask, **sections: Any) -> tuple[SwipeError, dict[str, Any]]:
    """How a run ended that had to stop, and its diagnosis."""
    with pytest.raises(GateError) as caught:
        fit(task, settings(guard=STRICT, **sections), folder, ignore)
    return caught.value, json.loads((folder / "diagnosis.json").read_text())


class Broken(nn.Module):
    """Passes its input on until it is told to break."""

    def __init__(self, how: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.how, self.active = how, False

    def forward(self, x: Tensor) -> Tensor:
        return self.how(x) if self.active else x


class BreakingTask(WatchedTask):
    """From batch 5 on, a layer within a block breaks."""

    def __init__(self, how: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer = Broken(how)
        block = nn.Sequential(nn.Identity(), self.layer, nn.Identity())
        self.model = nn.Sequential(nn.Linear(3, 6), block, nn.Linear(6, 1))

    def batch(self, index: int) -> Batch:
        self.layer.active = index >= 5
        return super().batch(index)


def test_l4_the_first_layer_that_is_not_finite_is_named(tmp_path: Path) -> None:
    error, found = stopped(tmp_path, BreakingTask(lambda x: x / 0.0))
    assert found["layer"] == "1.1"
    assert found["kind"] == "not finite"
    assert "first seen in 1.1" in str(error)
    assert found["reason"] in str(error)
    assert isinstance(error, NonFiniteError)


def test_l3_the_layer_that_does_not_take_its_input_is_named(tmp_path: Path) -> None:
    error, found = stopped(tmp_path, BreakingTask(lambda x: x @ torch.ones(7, 7)))
    assert (found["layer"], found["kind"]) == ("1.1", "does not fit")
    assert "first seen in 1.1" in str(error)
    assert "mat1 and mat2" in found["cause"]


def test_what_breaks_outside_of_all_layers_says_so(tmp_path: Path) -> None:
    error, found = stopped(tmp_path, WatchedTask(dict.fromkeys(range(5, 12), nan)))
    assert found["layer"] is None
    assert "in no layer: look at the data and the loss" in str(error)


@pytest.mark.parametrize(
    "error",
    [
        DataError("shard 7 is damaged", fix="-"),
        NonFiniteError("speed is Inf", fix="-"),
        ValueError("cannot reshape 17 into 3"),
        MemoryError("no room"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("where", ["batch", "loss"])
def test_the_diagnosis_survives_what_it_diagnoses(
    tmp_path: Path, error: Exception, where: str
) -> None:
    """It draws the same batches again, and they break again."""

    class Refusing(WatchedTask):
        def batch(self, index: int) -> Batch:
            if index >= 5 and where == "batch":
                raise error
            return super().batch(index)

    plan: dict[int, Sabotage] = dict.fromkeys(range(5, 12), raising(error))
    raised, found = stopped(tmp_path, Refusing(plan if where == "loss" else {}))
    assert "3 steps in a row" in str(raised)
    assert str(error) in found["cause"]
    assert (found["step"], found["skipped"], found["layer"]) == (7, 3, None)


def test_the_rows_are_those_of_the_step_and_the_ones_skipped_most(tmp_path: Path) -> None:
    class OneRowTooMany(WatchedTask):
        def batch(self, index: int) -> Batch:
            batch = super().batch(index)
            return Batch(batch.tensors, ["always-there", *list(batch.row_ids)[1:]])

    _, found = stopped(tmp_path, OneRowTooMany(dict.fromkeys(range(5, 12), nan)))
    assert found["rows_skipped_most"][0] == {"row": "always-there", "steps": 3}
    assert len(found["rows_skipped_most"]) == MOST
    assert found["rows_of_this_step"] == ["always-there", *(f"row-7-{i}" for i in range(1, ROWS))]


def test_row_ids_that_json_does_not_know_are_no_reason_to_lose_the_diagnosis(
    tmp_path: Path,
) -> None:
    """Strangers number their rows with numpy."""

    class Numbered(WatchedTask):
        def batch(self, index: int) -> Batch:
            return Batch(super().batch(index).tensors, list(np.arange(ROWS)))  # type: ignore[arg-type]

    _, found = stopped(tmp_path, Numbered(dict.fromkeys(range(5, 12), nan)))
    assert found["rows_of_this_step"] == [str(i) for i in range(ROWS)]


def test_the_history_holds_the_steps_before_with_their_norms(tmp_path: Path) -> None:
    _, found = stopped(tmp_path, WatchedTask({2: nan, **dict.fromkeys(range(5, 12), nan)}))
    assert [row["step"] for row in found["history"]] == [0, 1, 3, 4]
    for row in found["history"]:
        assert row["gradient_norm"] > 0
        assert math.isfinite(row["loss"])
        assert 0 < row["learning_rate"] <= 0.01


def test_the_history_is_bounded() -> None:
    history = History()
    for step in range(HISTORY + 5):
        history.add(step, 1.0, 1.0, 1.0)
    assert [row["step"] for row in history.to_list()] == list(range(5, HISTORY + 5))


def test_looking_for_the_layer_changes_nothing_and_leaves_no_hook() -> None:
    task = WatchedTask()
    before = {n: t.clone() for n, t in task.model.state_dict().items()}
    task.model.train()
    assert first_bad_layer(task, CPU, [0, 1, 2]) is None
    assert not differing(before, task.model.state_dict())
    assert task.model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in task.model.modules())


def test_a_model_that_is_bad_as_a_whole_is_named_by_its_class() -> None:
    class Whole(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sum(dim=1, keepdim=True) * math.inf

    task = WatchedTask()
    task.model = Whole()
    assert first_bad_layer(task, CPU, [0]) == "Whole"


def test_outputs_of_several_kinds_are_looked_into() -> None:
    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return torch.arange(3), x / 0.0

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pair = Pair()

        def forward(self, x: Tensor) -> Tensor:
            return self.pair(x)[1][:, :1]  # type: ignore[no-any-return]

    task = WatchedTask()
    task.model = Reader()
    assert first_bad_layer(task, CPU, [0]) == "pair"
