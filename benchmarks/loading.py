"""Is loading ever the bottleneck, and does memory stay bounded? A million swipes, one core.

    python benchmarks/loading.py --count 1000000

Generates a prepared folder of synthetic swipes once (into --cache), then prints side by side what
the loader gives, what training steps take, which share of a step waits for data, and the peak
resident memory of a real ``swipe-train fit`` over that folder, in a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from swipe.files import size_bytes
from swipe.layout import load_layout
from swipe.prepared import RECORD
from train.config import TrainConfig, load_config
from train.stream import TrainingRows, row_groups
from train.swipe_data import load_swipe_data
from train.swipe_task import SwipeTask

BLOCKS = 5
CACHE = Path(tempfile.gettempdir()) / "swipe-loading"


def main(
    count: Annotated[int, typer.Option(min=100_000, help="Swipes.")] = 1_000_000,
    config: Annotated[str, typer.Option(help="Preset.")] = "nano",
    steps: Annotated[int, typer.Option(min=100, help="Training steps.")] = 300,
    cache: Annotated[Path, typer.Option(help="Where prepared folders are kept.")] = CACHE,
) -> None:
    """Print generation time, folder size, loader and step rates, their ratio, waits and memory."""
    folder = cache / str(count)
    if not (folder / RECORD).is_file():
        started = time.perf_counter()
        _run("swipe.cli", "synth", str(folder), "--count", str(count))
        print(f"generated in {time.perf_counter() - started:.0f} s on one core")
    print(f"{count:,} swipes, {size_bytes(folder) / 1e6:,.0f} MB in {folder}")
    overrides = {"data.train": str(folder), "length.steps": steps, "length.minutes": 0}
    _one_core()
    _rates(load_config(config, overrides), steps)
    with tempfile.TemporaryDirectory() as run:
        peak = _run(
            "train.cli", "fit", "--config", config, "--data", str(folder), "--steps", str(steps),
            "--out", run,
        )  # fmt: skip
    print(f"peak resident memory of swipe-train fit, {steps} steps and evaluation: {peak:,.0f} MB")


def _rates(settings: TrainConfig, steps: int) -> None:
    """Loader and training in alternating blocks, so that a noisy machine is noisy for both."""
    layout = load_layout(settings.data.layout)
    started = time.perf_counter()
    data = load_swipe_data(settings.data, layout, settings.seed)
    task = SwipeTask(settings, data, layout)
    print(f"opened, split by writer and filtered in {time.perf_counter() - started:.1f} s")
    torch.set_num_threads(1)
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=1e-4)
    task.model.train()
    size = settings.optimizer.batch_size
    waited: list[float] = []

    def train(number: int) -> None:
        started = time.perf_counter()
        batch = task.batch(number)
        waited.append(time.perf_counter() - started)
        optimizer.zero_grad(set_to_none=True)
        task.loss(batch).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    groups = row_groups(data.train, layout.letters)
    batches = len(data.train) // size

    def load_epoch(epoch: int) -> float:
        """Swipes per second of a whole epoch, the first window's wait included."""
        started, rows = time.perf_counter(), TrainingRows(groups, settings.seed)
        for position in range(batches):
            rows.rows(epoch, position * size, (position + 1) * size)
        return batches * size / (time.perf_counter() - started)

    def train_some(first: int, count: int) -> float:
        """Swipes per second of `count` training steps."""
        started = time.perf_counter()
        for number in range(first, first + count):
            train(number)
        return count * size / (time.perf_counter() - started)

    train(0)
    waited.clear()
    loading, training = [], []
    for number in range(BLOCKS):
        loading.append(load_epoch(number))
        training.append(train_some(1 + number * (steps // BLOCKS), steps // BLOCKS))
    rows, step = np.median(loading), np.median(training)
    share = sum(waited) / sum(steps // BLOCKS * size / rate for rate in training)
    print(f"loader {rows:,.0f} swipes/s (whole epochs), training {step:,.0f} swipes/s: "
          f"{rows / step:.0f} times as fast")  # fmt: skip
    print(f"waiting for batches, augmentation included: {share:.1%} of step time, at most "
          f"{1e3 * max(waited):.0f} ms at once")  # fmt: skip


def _one_core() -> None:
    """Loader thread and training share one core, as they may on a small machine."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def _run(module: str, *arguments: str) -> float:
    """Run one of our commands; its peak resident memory in MB."""
    process = subprocess.Popen([sys.executable, "-m", module, *arguments])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise typer.Exit(process.returncode)
    return usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


if __name__ == "__main__":
    typer.run(main)
