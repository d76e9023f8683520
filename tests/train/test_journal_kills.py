"""What a run writes down when it is killed, goes back or is looked at in TensorBoard."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from watched_task import (
    Sabotage,
    Stopped,
    WatchedTask,
    ignore,
    lines,
    nan,
    settings,
    stop_at,
)

from swipe.errors import UsageError
from train.loop import fit

# Steps 5 and 6 are skipped and the run goes back; 4 and 9 explode.
GUARD = {"max_skips_in_a_row": 2}
PLAN: dict[int, Sabotage] = {
    4: lambda loss: loss * 1e6,
    5: nan,
    6: nan,
    9: lambda loss: loss * 1e6,
}


def timeless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`rows` without what differs from run to run."""
    changing = ("samples_per_second", "peak_memory_bytes")
    return [{k: v for k, v in row.items() if k not in changing} for row in rows]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of `PLAN`, uninterrupted."""
    folder = tmp_path_factory.mktemp("whole")
    assert fit(WatchedTask(PLAN), settings(guard=GUARD), folder, ignore).rollbacks == 1
    return folder


@pytest.mark.parametrize("stops", [[5], [6], [7], [8], [10], [5, 6, 7, 10]], ids=str)
def test_l1_every_line_stands_there_once_after_kills(
    tmp_path: Path, whole: Path, stops: list[int]
) -> None:
    """Killed without a chance to save: the steps since the last evaluation are repeated."""
    config = settings(guard=GUARD)
    for number, stop in enumerate(stops):
        with pytest.raises(Stopped):
            fit(WatchedTask(PLAN), config, tmp_path, stop_at(stop), resume=number > 0)
    fit(WatchedTask(PLAN), settings(guard=GUARD), tmp_path, ignore, resume=True)
    for name in ("metrics.jsonl", "skipped.jsonl"):
        assert timeless(lines(tmp_path / name)) == timeless(lines(whole / name)), name


@pytest.mark.parametrize("name", ["metrics.jsonl", "skipped.jsonl"])
@pytest.mark.parametrize("cut", [1, 2, 20])
def test_a_line_that_was_cut_off_is_dropped(
    tmp_path: Path, whole: Path, name: str, cut: int
) -> None:
    with pytest.raises(Stopped):
        fit(WatchedTask(PLAN), settings(guard=GUARD), tmp_path, stop_at(7))
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-cut])
    fit(WatchedTask(PLAN), settings(guard=GUARD), tmp_path, ignore, resume=True)
    assert timeless(lines(path)) == timeless(lines(whole / name))


def test_the_lines_of_a_run_say_what_happened(whole: Path) -> None:
    rows = lines(whole / "metrics.jsonl")
    steps = [row["step"] for row in rows if "gradient_norm" in row and "event" not in row]
    assert steps == list(range(1, 13))
    events = [(row["event"], row["step"]) for row in rows if "event" in row]
    assert events == [("explosion", 4), ("rollback", 6), ("explosion", 9)]
    scored = [row for row in rows if "score" in row]
    assert [row["step"] for row in scored] == [4, 8, 12]
    assert all(row["peak_memory_bytes"] > 2**20 for row in scored)
    assert [row["step"] for row in lines(whole / "skipped.jsonl")] == [5, 6]


def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(UsageError, match=r"cannot write .*metrics\.jsonl") as caught:
        fit(WatchedTask(), settings(), tmp_path, ignore)
    assert "--resume" in caught.value.fix


# TensorBoard.


class DrawnTask(WatchedTask):
    """A task that can be looked at."""

    def figure(self) -> Any:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(1, 1))
        figure.subplots().plot([0, 1])
        return figure


def events(folder: Path) -> Any:
    """What TensorBoard would show of the run in `folder`."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(
        str(folder / "tensorboard"), size_guidance={"images": 0, "histograms": 0}
    )
    return read.Reload()


BOARD = {"tensorboard": True, "every": 1}


@pytest.mark.slow
def test_l1_tensorboard_shows_scalars_histograms_and_the_picture(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    task = DrawnTask({3: nan})
    fit(task, settings(record=BOARD), tmp_path, ignore)
    shown = events(tmp_path)
    tags = shown.Tags()
    names = ("loss", "learning_rate", "gradient_norm", "skipped", "skipped_share")
    assert {f"train/{name}" for name in names} < set(tags["scalars"])
    assert {"dev/score", "dev/best", "dev/peak_memory_bytes"} < set(tags["scalars"])
    assert [e.step for e in shown.Scalars("train/gradient_norm")] == list(range(1, 13))
    assert shown.Scalars("train/skipped_share")[-1].value == pytest.approx(1 / 12)
    for name, _ in task.model.named_parameters():
        assert [e.step for e in shown.Histograms(f"weights/{name}")] == [4, 8, 12]
        # Batch 3 was skipped: there are no gradients to show after step 4.
        assert [e.step for e in shown.Histograms(f"gradients/{name}")] == [8, 12]
    (width, height) = (shown.Images("dev/samples")[0].width, shown.Images("dev/samples")[0].height)
    assert (width, height) == (100, 100)
    assert [e.step for e in shown.Images("dev/samples")] == [4, 8, 12]


@pytest.mark.slow
def test_tensorboard_shows_each_step_once_after_a_kill(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    with pytest.raises(Stopped):
        fit(WatchedTask(), settings(record=BOARD), tmp_path, stop_at(7))
    time.sleep(1.1)  # TensorBoard reads its files by name, and names begin with the second
    fit(WatchedTask(), settings(record=BOARD), tmp_path, ignore, resume=True)
    shown = events(tmp_path)
    assert [e.step for e in shown.Scalars("train/loss")] == list(range(1, 13))
