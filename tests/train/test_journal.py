"""What a run writes down: each step once, whatever was killed; TensorBoard read back."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
from linear_task import LinearTask, settings
from torch import Tensor

from train.journal import METRICS, SKIPPED, TENSORBOARD, Journal
from train.loop import fit
from train.progress import Progress
from train.step import Problem

RECORD = settings().record


def steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_every_line_is_json_that_any_reader_takes(tmp_path: Path) -> None:
    """NaN is not JSON: before the first finite step there is no loss, and that is null."""
    plan = {0: lambda loss: loss * math.nan}
    fit(LinearTask(plan), settings(), tmp_path, lambda _: None)

    def refuse(text: str) -> float:
        raise ValueError(text)

    lines = (tmp_path / METRICS).read_text().splitlines()
    rows = [json.loads(line, parse_constant=refuse) for line in lines]
    first = rows[0]
    assert first["loss"] is None
    assert (first["skipped"], first["skipped_share"]) == (1, 1.0)
    evaluations = [row for row in rows if "score" in row]
    assert [row["step"] for row in evaluations] == [4, 8, 12]
    assert all(row["peak_memory_bytes"] > 2**20 for row in evaluations)
    assert {"loss", "learning_rate", "gradient_norm", "samples_per_second"} <= first.keys()


def test_a_line_is_written_every_so_often(tmp_path: Path) -> None:
    fit(LinearTask(), settings(record={"every": 5, "tensorboard": False}), tmp_path, lambda _: None)
    assert steps(tmp_path / METRICS) == [4, 5, 8, 10, 12]


def test_steps_that_will_be_repeated_are_dropped_first(tmp_path: Path) -> None:
    """As after a kill: lines beyond the state, the last one cut off in the middle."""
    for name in (METRICS, SKIPPED):
        lines = [json.dumps({"step": step, "rows": []}) for step in range(1, 9)]
        (tmp_path / name).write_text("\n".join(lines) + '\n{"step": 9, "lo')
    Journal(tmp_path, RECORD, start=5).close()
    # A metric of step 5 was written after it, a skip of step 5 before it was counted.
    assert steps(tmp_path / METRICS) == [1, 2, 3, 4, 5]
    assert steps(tmp_path / SKIPPED) == [1, 2, 3, 4]


def test_a_new_run_in_an_old_folder_starts_with_empty_records(tmp_path: Path) -> None:
    (tmp_path / METRICS).write_text('{"step": 3}\n')
    Journal(tmp_path, RECORD).close()
    assert steps(tmp_path / METRICS) == []


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    journal = Journal(None, RECORD)
    journal.step(Progress(step=10))
    journal.skipped(3, Problem("not finite", "-"))
    journal.event(3, "rollback")
    journal.close()
    assert not list(tmp_path.iterdir())


def test_tensorboard_gets_scalars_and_histograms(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = settings(record={"every": 1, "tensorboard": True})
    fit(LinearTask(), config, tmp_path, lambda _: None)
    events = EventAccumulator(str(tmp_path / TENSORBOARD))
    events.Reload()
    assert len(events.Scalars("train/loss")) == 12
    assert [event.step for event in events.Scalars("dev/score")] == [4, 8, 12]
    assert all(math.isfinite(event.value) for event in events.Scalars("train/gradient_norm"))
    histograms = events.Tags()["histograms"]
    assert {"weights/0.weight", "gradients/0.weight"} <= set(histograms)


@pytest.fixture
def without_tensorboard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)


@pytest.mark.usefixtures("without_tensorboard")
def test_without_tensorboard_the_run_is_the_same(tmp_path: Path) -> None:
    config = settings(record={"every": 1, "tensorboard": True})
    assert fit(LinearTask(), config, tmp_path, lambda _: None).taken == 12
    assert not (tmp_path / TENSORBOARD).exists()
    assert len(steps(tmp_path / METRICS)) == 15


def test_gradients_of_a_step_that_was_not_taken_are_in_no_histogram(tmp_path: Path) -> None:
    """A histogram of NaN would be an error of its own, at the worst moment."""

    def nan(loss: Tensor) -> Tensor:
        return loss * math.nan

    config = settings(record={"every": 1, "tensorboard": True})
    assert fit(LinearTask({3: nan}), config, tmp_path, lambda _: None).skipped == 1
