"""What the finite guard costs: guarded against bare optimizer steps, interleaved in one run.

    python benchmarks/guard.py --config nano --rounds 8

Prints the median ratio of paired blocks; 1.03 means 3 % of step time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated

import numpy as np
import torch
import typer
from torch import nn

from swipe.layout import load_layout
from train.config import load_config
from train.step import Stepper
from train.swipe_data import load_swipe_data
from train.swipe_task import SwipeTask


def main(
    config: Annotated[str, typer.Option(help="Preset.")] = "nano",
    rounds: Annotated[int, typer.Option(help="Paired blocks.")] = 8,
    steps: Annotated[int, typer.Option(help="Steps per block.")] = 10,
) -> None:
    """Print the ratio of guarded to bare step time."""
    settings = load_config(config, {"data.train": "synthetic:2000", "evaluation.swipes": 10})
    layout = load_layout(settings.data.layout)
    task = SwipeTask(settings, load_swipe_data(settings.data, layout, 0), layout)
    torch.set_num_threads(settings.threads)
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=1e-4)
    stepper = Stepper(task, optimizer, clip_norm=1.0)
    task.model.train()

    def guarded() -> None:
        for number in range(steps):
            stepper.step([number])

    def bare() -> None:
        for number in range(steps):
            batch = task.batch(number)
            optimizer.zero_grad(set_to_none=True)
            task.loss(batch).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(task.model.parameters(), 1.0)
            optimizer.step()

    def seconds(block: Callable[[], None]) -> float:
        started = time.perf_counter()
        block()
        return time.perf_counter() - started

    guarded(), bare()
    ratios = []
    for number in range(rounds):
        first, second = (guarded, bare) if number % 2 else (bare, guarded)
        times = {first: seconds(first), second: seconds(second)}
        ratios.append(times[guarded] / times[bare])
    low, middle, high = np.percentile(ratios, [0, 50, 100])
    print(f"{config}: guarded / bare step time {middle:.3f} (min {low:.3f}, max {high:.3f})")


if __name__ == "__main__":
    typer.run(main)
