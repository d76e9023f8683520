"""Inputs and outputs of the ExecuTorch runner: positions, types, sizes, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from runner_runs import execute

from android_harness.pack import Refused, Returned
from android_harness.runners.sets import RunnerSet
from exporter.formats import Axis, Inputs, Lowering, executorch

pytestmark = pytest.mark.slow

LEAST, MOST = 2, 6


class Difference(torch.nn.Module):
    """Two inputs of different kinds, so that their order shows."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 3, bias=False)

    def forward(self, rows: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        scaled: torch.Tensor = self.linear(rows) - shift.float()
        return scaled


def rows_of(rows: int, shift: int) -> Inputs:
    values = np.arange(rows * 3, dtype=np.float32).reshape(1, rows, 3)
    return {"rows": values, "shift": np.array([shift], np.int64)}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program of two inputs, one of them with an axis from `LEAST` to `MOST`."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("executorch") / "difference.pte"
    axis = Axis("rows", LEAST, MOST)
    calls = [rows_of(4, 1), rows_of(4, 2)]
    job = Lowering(Difference().eval(), calls[0], calls, {}, dynamic={"rows": {1: axis}})
    executorch.lower(job, path)
    return path


def test_inputs_go_by_position_and_sizes_vary(
    native_set: RunnerSet, program: Path, tmp_path: Path
) -> None:
    sizes = (LEAST, MOST, 3, MOST + 1, 4)
    calls = [rows_of(n, n) for n in sizes]
    ended = execute(
        native_set, "executorch", tmp_path, program, calls, outputs=str(tmp_path / "answers")
    )
    assert ended.code == 0, ended.stderr
    assert ended.record is not None
    assert ended.record.engine is not None
    assert ended.record.engine.backend == executorch.DELEGATE
    assert ended.record.outputs is not None
    assert ended.record.outputs.refused == 1
    assert ended.answers is not None
    run = executorch.load(program)
    for size, call, given in zip(sizes, calls, ended.answers.calls, strict=True):
        if size > MOST:
            assert isinstance(given, Refused)
            assert "0x" in given.reason
            continue
        assert isinstance(given, Returned)
        assert given.arrays[0].shape == (1, size, 3)
        assert np.array_equal(given.arrays[0], run(*call.values()))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ({"shift": np.array([1]), "rows": rows_of(4, 1)["rows"]}, "takes float32"),
        ({"rows": rows_of(4, 1)["rows"]}, "takes 2 inputs"),
        ({**rows_of(4, 1), "more": np.array([1])}, "takes 2 inputs"),
        ({**rows_of(4, 1), "shift": np.array([1], np.int32)}, "takes int64"),
        ({**rows_of(4, 1), "rows": rows_of(4, 1)["rows"][0]}, "has 3 dimensions"),
        ({**rows_of(4, 1), "rows": np.zeros((1, 2**31, 0), np.float32)}, "too large"),
    ],
)
def test_other_inputs_are_refused(
    native_set: RunnerSet, program: Path, tmp_path: Path, call: Inputs, says: str
) -> None:
    ended = execute(native_set, "executorch", tmp_path, program, [call], timed=1, iters=5)
    assert ended.failed_at() == "inputs"
    assert ended.record is not None
    assert says in ended.record.error
    assert ended.record.latency_ns == ()


def test_not_finite_numbers_are_written_as_they_are(
    native_set: RunnerSet, program: Path, tmp_path: Path
) -> None:
    call = rows_of(2, 0)
    call["rows"][0, 0] = np.nan  # type: ignore[index]
    outputs = str(tmp_path / "answers")
    ended = execute(native_set, "executorch", tmp_path, program, [call], outputs=outputs)
    assert ended.answers is not None
    (given,) = ended.answers.calls
    assert isinstance(given, Returned)
    assert np.isnan(given.arrays[0][0, 0]).all()
    assert np.isfinite(given.arrays[0][0, 1]).all()


def test_threads_are_those_of_the_pool(
    native_set: RunnerSet, program: Path, tmp_path: Path
) -> None:
    ended = execute(native_set, "executorch", tmp_path, program, [rows_of(4, 1)], threads=2)
    assert ended.record is not None
    assert ended.record.threads == 2
