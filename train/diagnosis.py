"""Why a run stopped: the layer, the rows and the history, in one file for whoever mends it."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from swipe.files import write_text_atomic
from train.progress import Progress
from train.step import REFUSALS, Problem
from train.task import Task

FILE: Final = "diagnosis.json"
HISTORY: Final = 200
"""Steps whose loss and gradient norm are remembered."""
ROWS: Final = 20


class History:
    """Loss, gradient norm and learning rate of the latest steps that were taken."""

    def __init__(self) -> None:
        self._steps: deque[dict[str, float]] = deque(maxlen=HISTORY)

    def add(self, step: int, loss: float, norm: float, rate: float) -> None:
        """Remember one step."""
        self._steps.append(
            {"step": step, "loss": loss, "gradient_norm": norm, "learning_rate": rate}
        )

    def to_list(self) -> list[dict[str, float]]:
        """Oldest first, JSON-ready."""
        return list(self._steps)


def write_diagnosis(
    folder: Path,
    task: Task,
    device: torch.device,
    problem: Problem,
    reason: str,
    progress: Progress,
    history: History,
) -> str:
    """Write ``diagnosis.json`` into `folder`; returns what it found in one line.

    Names the first layer whose output is not finite, or that does not take its input, the rows that
    were in most of the steps that were not taken, and the gradient norms before them.
    """
    layer = first_bad_layer(task, device, problem.batches)
    rows = _frequent_rows(folder / "skipped.jsonl")
    record = {
        "reason": reason,
        "kind": problem.kind,
        "cause": problem.cause,
        "tensor": problem.tensor or None,
        "layer": layer,
        "step": progress.step,
        "skipped": progress.skipped,
        "rollbacks": progress.rollbacks,
        "rows_of_this_step": list(problem.row_ids),
        "rows_skipped_most": rows,
        "history": history.to_list(),
    }
    write_text_atomic(folder / FILE, json.dumps(record, indent=2) + "\n")
    where = layer or problem.tensor
    return f"first seen in {where}" if where else "in no layer: look at the data and the loss"


def first_bad_layer(task: Task, device: torch.device, batches: Sequence[int]) -> str | None:
    """Module path of the first layer, in order of execution, that breaks on `batches`.

    Its output is not finite, or it raises an error. Runs the model forward as it is, in evaluation
    mode, which changes nothing.
    """
    found: list[str] = []
    entered: list[str] = []

    def enter(name: str) -> Any:
        return lambda *_: entered.append(name)

    def leave(name: str) -> Any:
        def look(_: nn.Module, __: Any, output: Any) -> None:
            entered.pop()
            outputs = output if isinstance(output, tuple | list) else [output]
            floats = [o for o in outputs if isinstance(o, Tensor) and o.is_floating_point()]
            if not found and not all(bool(torch.isfinite(o).all()) for o in floats):
                found.append(name)

        return look

    hooks = []
    for path, module in task.model.named_modules():
        name = path or type(task.model).__name__
        hooks.append(module.register_forward_pre_hook(enter(name)))
        hooks.append(module.register_forward_hook(leave(name)))
    training = task.model.training
    task.model.eval()
    try:
        with torch.no_grad():
            for number in batches:
                task.loss(task.batch(number).to(device))
    except REFUSALS:
        # What happened, the cause says already; where, the module that was entered and not left.
        found += entered[-1:]
    finally:
        task.model.train(training)
        for handle in hooks:
            handle.remove()
    return found[0] if found else None


def _frequent_rows(skipped: Path) -> list[dict[str, Any]]:
    counts: Counter[str] = Counter()
    if skipped.is_file():
        for line in skipped.read_text("utf-8").splitlines():
            counts.update(set(json.loads(line)["rows"]))
    return [{"row": row, "steps": count} for row, count in counts.most_common(ROWS)]
