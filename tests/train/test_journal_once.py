"""Records of runs that were killed: nothing stands there twice, in no file and on no board."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from linear_task import LinearTask, settings
from torch import Tensor

from swipe.console import console
from train import fit as fit_module
from train.assemble import Assembled
from train.journal import METRICS, SKIPPED, TENSORBOARD, Journal
from train.loop import fit
from train.progress import Progress

GUARD = {"max_skips_in_a_row": 2, "max_rollbacks": 2}
BOTH = {"every": 1, "tensorboard": True}


class Killed(BaseException):
    """The end of a process, before anything more could be saved."""


def kill_after(step: int) -> Callable[[Progress], None]:
    def observe(progress: Progress) -> None:
        if progress.step == step:
            raise Killed

    return observe


def nan(loss: Tensor) -> Tensor:
    return loss * math.nan


def steep(loss: Tensor) -> Tensor:
    return loss * 1e5


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def essence(path: Path) -> list[tuple[int, str]]:
    """Steps and kinds of the rows."""
    return [(row["step"], row.get("event", "")) for row in rows(path)]


@pytest.mark.parametrize("kills", [[5], [7], [9], [10], [5, 9], [1]])
@pytest.mark.parametrize("plan", [{4: steep, 8: steep}, {2: nan, 3: nan}, {6: nan, 7: nan}])
def test_each_step_and_each_event_stands_there_once(
    tmp_path: Path, plan: dict[int, Callable[[Tensor], Tensor]], kills: list[int]
) -> None:
    """Events happen within a step, evaluations after it; both carry a step's number."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    config = settings(guard=GUARD)
    fit(LinearTask(plan), config, whole, lambda _: None)
    for step in kills:
        with pytest.raises(Killed):
            fit(LinearTask(plan), config, parts, kill_after(step), resume=True)
        with (parts / METRICS).open("a") as stream:
            stream.write('{"step": 11, "lo')
    fit(LinearTask(plan), config, parts, lambda _: None, resume=True)
    assert essence(parts / METRICS) == essence(whole / METRICS)
    if (whole / SKIPPED).exists():
        assert rows(parts / SKIPPED) == rows(whole / SKIPPED)


@pytest.mark.parametrize("kill", [3, 6])
def test_the_board_shows_each_step_once(tmp_path: Path, kill: int) -> None:
    """Killed before the first state, and after it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = settings(record=BOTH)
    with pytest.raises(Killed):
        fit(LinearTask(), config, tmp_path, kill_after(kill))
    fit(LinearTask(), config, tmp_path, lambda _: None, resume=True)
    events = EventAccumulator(str(tmp_path / TENSORBOARD))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == list(range(1, 13))
    assert [event.step for event in events.Scalars("dev/score")] == [4, 8, 12]


def test_a_run_resumed_within_the_second_comes_after_the_killed_one(tmp_path: Path) -> None:
    pytest.importorskip("torch.utils.tensorboard", reason="importing it takes the second")
    (board := tmp_path / TENSORBOARD).mkdir()
    while time.time() % 1 > 0.3:
        time.sleep(0.01)
    killed = board / f"events.out.tfevents.{int(time.time()):010d}.host.9.9"
    killed.touch()
    Journal(tmp_path, settings(record=BOTH).record).close()
    earlier, later = sorted(path.name.split(".")[3] for path in board.iterdir())
    assert earlier == killed.name.split(".")[3] < later


def test_the_board_shows_the_tasks_picture(tmp_path: Path) -> None:
    from matplotlib.figure import Figure
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    class Drawn(LinearTask):
        def figure(self) -> Figure:
            figure = Figure(figsize=(1, 1))
            figure.add_subplot().plot([0, 1])
            return figure

    fit(Drawn(), settings(record=BOTH), tmp_path, lambda _: None)
    events = EventAccumulator(str(tmp_path / TENSORBOARD))
    events.Reload()
    assert [event.step for event in events.Images("dev/samples")] == [4, 8, 12]


def test_a_missing_tensorboard_is_said_once_and_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "quiet", False)
    monkeypatch.setattr(fit_module, "assemble", lambda _: Assembled(LinearTask(), "samples"))
    config = settings(record=BOTH)
    fit_module.start(config, "linear", tmp_path / "run", preflight=False)  # type: ignore[arg-type]
    printed = capsys.readouterr().out
    assert printed.count("TensorBoard is not installed") == 1
    assert "tensorboard --logdir" not in printed
    assert not (tmp_path / "run" / TENSORBOARD).exists()
    assert len(rows(tmp_path / "run" / METRICS)) == 15
