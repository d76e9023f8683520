"""What a run writes down while it trains: ``metrics.jsonl``, ``skipped.jsonl``, TensorBoard.

One JSON object per line. A run that is resumed from an earlier step first drops the lines of the
steps that it is about to repeat, so that each step stands there once.
"""

from __future__ import annotations

import importlib.util
import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch

from swipe.errors import UsageError
from swipe.files import write_text_atomic
from train.config import Record
from train.finite import null_for_nonfinite
from train.progress import Progress
from train.step import Problem
from train.task import Drawable, Task

METRICS: Final = "metrics.jsonl"
SKIPPED: Final = "skipped.jsonl"
TENSORBOARD: Final = "tensorboard"


class Journal:
    """The records of one run.

    Args:
        folder: the run's folder; nothing is written when it is None.
        config: what to write down, and how often.
        start: first step that this process takes; later ones are dropped from earlier records.
    """

    def __init__(self, folder: Path | None, config: Record, start: int = 0) -> None:
        self._folder, self._every = folder, config.every
        self._board: Any = None
        if folder is None:
            return
        # Figures stand under the number of steps so far, events under the number of their step.
        _keep(folder / METRICS, lambda row: row["step"] < start + ("event" not in row))
        _keep(folder / SKIPPED, lambda row: row["step"] < start)
        if config.tensorboard and tensorboard_is_installed():
            from torch.utils.tensorboard import SummaryWriter

            _await_new_second(folder / TENSORBOARD)
            # purge_step hides what a killed run logged beyond the state it is resumed from.
            self._board = SummaryWriter(str(folder / TENSORBOARD), purge_step=start + 1)

    def step(self, progress: Progress) -> None:
        """Write one line every few steps."""
        if progress.step % self._every:
            return
        figures = {
            "loss": progress.loss,
            "learning_rate": progress.learning_rate,
            "gradient_norm": progress.gradient_norm,
            "skipped": progress.skipped,
            "skipped_share": progress.skipped_share,
            "samples_per_second": progress.samples / max(progress.seconds, 1e-9),
        }
        self._line(progress.step, figures)
        self._scalars("train", progress.step, figures)

    def event(self, step: int, name: str, **fields: Any) -> None:
        """Write down what happened in a step: a rollback, an explosion."""
        self._line(step, {"event": name, **fields})

    def skipped(self, step: int, problem: Problem) -> None:
        """Write the rows of a step that was not taken, and why, into the quarantine file."""
        self._append(
            SKIPPED,
            {
                "step": step,
                "kind": problem.kind,
                "cause": problem.cause,
                "rows": list(problem.row_ids),
            },
        )

    def evaluation(self, progress: Progress, task: Task) -> None:
        """Write an evaluation: figures, and for TensorBoard histograms and a picture."""
        score = progress.score
        assert score is not None
        figures = {
            "score": score.value,
            "best": progress.best,
            "peak_memory_bytes": peak_memory_bytes(),
        }
        self._line(progress.step, {**figures, "metrics": dict(score.metrics)})
        self._scalars("dev", progress.step, figures)
        if self._board is None:
            return
        for name, parameter in task.model.named_parameters():
            self._histogram(f"weights/{name}", parameter, progress.step)
            if parameter.grad is not None:
                self._histogram(f"gradients/{name}", parameter.grad, progress.step)
        if isinstance(task, Drawable) and matplotlib_is_installed():
            self._board.add_figure("dev/samples", task.figure(), progress.step)
        self._board.flush()

    def close(self) -> None:
        """Flush and close what is open."""
        if self._board is not None:
            self._board.close()

    def _line(self, step: int, fields: Mapping[str, Any]) -> None:
        self._append(METRICS, {"step": step, **fields})

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        if self._folder is None:
            return
        path = self._folder / name
        text = json.dumps(null_for_nonfinite(row), default=str)
        try:
            with path.open("a", encoding="utf-8") as stream:
                stream.write(text + "\n")
        except OSError as error:
            raise UsageError(
                f"cannot write {path}: {error.strerror or error}",
                fix="free some space, then go on with --resume; the checkpoints are intact",
            ) from error

    def _scalars(self, group: str, step: int, figures: Mapping[str, float]) -> None:
        if self._board is not None:
            for name, value in figures.items():
                if math.isfinite(value):
                    self._board.add_scalar(f"{group}/{name}", value, step)

    def _histogram(self, name: str, values: torch.Tensor, step: int) -> None:
        values = values.detach().float().cpu()
        if values.numel() and bool(torch.isfinite(values).all()):
            self._board.add_histogram(name, values, step)


def tensorboard_is_installed() -> bool:
    """Whether TensorBoard's writer can be loaded."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        return False
    return True


def matplotlib_is_installed() -> bool:
    """Whether pictures can be drawn."""
    return importlib.util.find_spec("matplotlib") is not None


def peak_memory_bytes() -> int:
    """The most memory this process ever held: resident, or on the GPU when there is one."""
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    resident = peak if sys.platform == "darwin" else peak * 1024  # kB everywhere but on macOS
    return max(resident, torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0)


def _await_new_second(board: Path) -> None:
    """TensorBoard reads files by name, which begins with the second; within one second a resumed
    run's might come first, and its steps be hidden by the killed one's."""
    stamps = [path.name.split(".")[3] for path in board.glob("events.out.tfevents.*")]
    newest = max((int(stamp) for stamp in stamps if stamp.isdigit()), default=0)
    # Of a clock that was set back, no more than a second is made good.
    for _ in range(25):
        if int(time.time()) != newest:
            break
        time.sleep(0.05)


def _keep(path: Path, wanted: Callable[[Any], bool]) -> None:
    """Drop the rows of a jsonl file that are not `wanted`, and a last line that was cut off."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:  # cut off when the run was killed
            continue
        if wanted(row):
            kept.append(line + "\n")
    write_text_atomic(path, "".join(kept))
