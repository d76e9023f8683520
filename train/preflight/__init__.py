"""The half minute before a long run: does this task, with this configuration, train at all?

One real batch goes through data, model and loss; a few samples are learned by heart; a CTC task is
asked whether its frames differ, whether it says anything but blank, and whether its labels can be
spelled; then the learning rate, the disk and the memory. The model is left as it was.

What it leaves out: evaluation, whose time cannot be bounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import torch

from train.config import LoopConfig
from train.loop import choose_device
from train.preflight.check import Check
from train.preflight.ctc import check_frames_differ, check_labels, check_not_only_blank
from train.preflight.machine import check_disk, check_memory, check_schedule
from train.preflight.model import (
    check_batch,
    check_contracts,
    check_forward,
    learn_by_heart,
    restoring,
)
from train.task import Contracted, CtcTask, Task

__all__ = ["Check", "preflight"]

SAMPLES: Final = 8


def preflight(task: Task, config: LoopConfig, folder: Path) -> Iterator[Check]:
    """Ask every question, yielding each answer as it is known.

    Args:
        task: what would be trained; its model is left as it was.
        config: how.
        folder: where the run would write.
    """
    torch.set_num_threads(config.threads)
    device = choose_device(config.device)
    task.model.to(device)
    yield check_schedule(config)
    yield check_disk(task.model, folder)
    yield check_memory(task.model)
    batch, check = check_batch(task)
    yield check
    if batch is None:
        return
    if isinstance(task, CtcTask):
        yield from check_labels(task)
    with restoring(task.model):
        check = check_forward(task, batch.to(device), config)
        yield check
        if not check.passed:
            return
        if isinstance(task, Contracted):
            yield check_contracts(task, batch.to(device))
        few = batch.head(SAMPLES).to(device)
        yield learn_by_heart(task, few, config)
        if isinstance(task, CtcTask):
            yield check_frames_differ(task, few)
            yield check_not_only_blank(task, few)
