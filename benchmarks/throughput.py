"""Training swipes per second: one process against several, alternating in one run.

    python benchmarks/throughput.py --config nano --config base --processes 2

Prints, per configuration, the median of each and the median of their paired ratios. Several
processes train steps of as many batches, so twice the rate means perfect scaling for two.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

SWIPES = 4000


def main(
    config: Annotated[list[str] | None, typer.Option(help="Preset; repeat for several.")] = None,
    processes: Annotated[int, typer.Option(help="Processes to compare with one.")] = 2,
    rounds: Annotated[int, typer.Option(help="Pairs.")] = 3,
    seconds: Annotated[float, typer.Option(help="Training time of each.")] = 15.0,
    worker: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Print swipes/s of one process and of several, and the ratio."""
    if worker:
        print(json.dumps(_train(worker, seconds)))
        return
    for name in config or ["nano", "base", "large"]:
        alone, together = [], []
        for _ in range(rounds):
            alone.append(_run(name, 1, seconds))
            together.append(_run(name, processes, seconds))
        ratio = statistics.median(b / a for a, b in zip(alone, together, strict=True))
        print(
            f"{name}: 1 process {statistics.median(alone):,.0f} swipes/s, {processes} processes "
            f"{statistics.median(together):,.0f} swipes/s, ratio {ratio:.2f}"
        )


def _run(name: str, processes: int, seconds: float) -> float:
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *(torchrun if processes > 1 else []), __file__]
    done = subprocess.run(
        [*command, "--worker", name, "--seconds", str(seconds)],
        capture_output=True,
        text=True,
        check=True,
    )
    return max(float(json.loads(line)) for line in done.stdout.splitlines() if line)


def _train(name: str, seconds: float) -> float:
    """Swipes per second of all processes, without start, first steps and evaluation."""
    from swipe.layout import load_layout
    from train.config import TrainConfig, load_config
    from train.distributed import joined
    from train.loop import fit
    from train.progress import Progress
    from train.swipe_data import load_swipe_data
    from train.swipe_task import SwipeTask

    settings = load_config(
        name,
        {
            "data.train": f"synthetic:{SWIPES}",
            "evaluation.swipes": 1,
            "evaluation.times": 1,
            "evaluation.lexicon": "wordfreq:1000",
            "length.minutes": (seconds + 5) / 60,
            "record.tensorboard": False,
        },
    )
    assert isinstance(settings, TrainConfig)
    layout = load_layout(settings.data.layout)
    task = SwipeTask(settings, load_swipe_data(settings.data, layout, 0), layout)
    first: tuple[float, int] | None = None
    rate = 0.0

    def observe(progress: Progress) -> None:
        nonlocal first, rate
        if progress.step < 3 or progress.score is not None:
            return
        if first is None:
            first = time.perf_counter(), progress.samples
            return
        rate = (progress.samples - first[1]) / (time.perf_counter() - first[0])

    with joined() as ranks, tempfile.TemporaryDirectory() as folder:
        # All processes need the same folder; only the first one writes into it.
        shared = Path(ranks.from_first(folder))
        fit(task, settings, shared, observe, ranks=ranks)
        ranks.any(False)
    return rate


if __name__ == "__main__":
    typer.run(main)
