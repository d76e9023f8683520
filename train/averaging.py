"""The mean of a run's best and last weights, with BatchNorm statistics of its own.

Two points of one run, one from its restless middle and one from its settled end, often have a mean
that generalises better than either. Their BatchNorm statistics do not average: they are estimated
again on training batches, augmented as the run augmented them. Works for any `Task`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch
from torch import nn

from swipe.errors import UsageError
from train.assemble import assemble
from train.checkpoint import save_checkpoint
from train.config import load_saved_config
from train.runs import CONFIG
from train.sealed import read_sealed
from train.task import Score, Task

AVERAGED: Final = "averaged.safetensors"
PARTS: Final = ("best.safetensors", "last.safetensors")
BATCHES: Final = 60
"""Training batches that the statistics are estimated on."""
AFTER: Final = 1_000_000
"""Number of the first of them, which no run gets to."""


def average_run(folder: Path) -> tuple[Path, Score]:
    """Write the mean of the best and the last checkpoint of `folder` beside them.

    Returns:
        The checkpoint's file, and its score on the run's held-out samples.

    Raises:
        UsageError: `folder` holds no finished run, or its best checkpoint is its last.
        CheckpointError: a checkpoint is damaged.
        NonFiniteError: a checkpoint or their mean holds NaN or Inf.
    """
    for name in (CONFIG, *PARTS):
        if not (folder / name).is_file():
            raise UsageError(f"{folder} has no {name}", fix="name the folder of a finished run")
    fix = "use another run"
    records, weights = zip(*(read_sealed(folder / name, fix=fix) for name in PARTS), strict=True)
    steps = [int(record["step"]) for record in records]
    if steps[0] == steps[1]:
        raise UsageError(
            f"the best checkpoint of {folder} is its last: there is nothing to average",
            fix=f"use {folder / PARTS[0]}",
        )
    config = load_saved_config(folder / CONFIG)
    torch.set_num_threads(config.threads)
    task = assemble(config).task
    best, last = weights
    task.model.load_state_dict(
        {
            name: (tensor + last[name]) / 2 if tensor.is_floating_point() else tensor
            for name, tensor in best.items()
        }
    )
    _estimate_statistics(task)
    score = task.evaluate()
    save_checkpoint(task.checkpoint(steps[1], score), folder / AVERAGED)
    return folder / AVERAGED, score


def _estimate_statistics(task: Task) -> None:
    """Set the running statistics of every BatchNorm to their mean over `BATCHES` batches."""
    norms = [m for m in task.model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's way to say: the plain mean of all batches
    task.model.train()
    with torch.no_grad():
        for number in range(BATCHES if norms else 0):
            task.loss(task.batch(AFTER + number))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    task.model.eval()
