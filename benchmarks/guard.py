"""What the finite guard costs: guarded against bare optimizer steps, interleaved one by one.

    python benchmarks/guard.py --config nano --pairs 400

Two copies of one task take the same steps in turn, one guarded, one bare, and who goes first
alternates. Neighbouring steps meet the same load, so the ratio of each pair is fair even on a busy
machine; the median of the pairs shrugs off the steps that were interrupted, and a bootstrap says
how sure it is. 1.03 means 3 % of step time. The ratio of the two fastest steps is the same question
asked of the quietest moments.

Making the batch is part of the step on both sides, as it is in training.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Final

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch import nn

from swipe.layout import load_layout
from train.config import load_config
from train.step import Stepper
from train.swipe_data import load_swipe_data
from train.swipe_task import SwipeTask

WARM_UP: Final = 10
RESAMPLES: Final = 4000

Step = Callable[[int], object]
"""Takes the step of this number."""


def main(
    config: Annotated[str, typer.Option(help="Preset.")] = "nano",
    pairs: Annotated[int, typer.Option(min=20, help="Pairs of steps.")] = 400,
    bound: Annotated[float, typer.Option(help="The claim to judge, e.g. 1.03.")] = 1.03,
) -> None:
    """Print the ratio of guarded to bare step time, and what it says of the claim."""
    settings = load_config(config, {"data.train": "synthetic:2000", "evaluation.swipes": 10})
    layout = load_layout(settings.data.layout)
    data = load_swipe_data(settings.data, layout, 0)
    torch.set_num_threads(settings.threads)
    one, other = (SwipeTask(settings, data, layout) for _ in range(2))
    steps = (guarded(one), bare(other))
    times = np.array([_pair(steps, n) for n in range(WARM_UP + pairs)])[WARM_UP:]
    ratios = times[:, 0] / times[:, 1]
    low, high = interval(ratios)
    verdict = "supported" if high <= bound else "refuted" if low > bound else "undecided"
    fastest = times.min(axis=0)
    print(
        f"{config}: guarded / bare step time {np.median(ratios):.3f} "
        f"(95 % interval {low:.3f} to {high:.3f}, {pairs} pairs); fastest steps "
        f"{fastest[0] / fastest[1]:.3f}; bare step {1e3 * np.median(times[:, 1]):.1f} ms; "
        f"at most {bound:g}: {verdict}"
    )


def guarded(task: SwipeTask) -> Step:
    """One step as training takes it."""
    stepper = Stepper(task, torch.optim.AdamW(task.model.parameters(), lr=1e-4), clip_norm=1.0)
    task.model.train()
    return lambda number: stepper.step([number])


def bare(task: SwipeTask) -> Step:
    """The same step as a textbook takes it: clipped, the loss read, nothing checked."""
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=1e-4)
    task.model.train()

    def step(number: int) -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = task.loss(task.batch(number))
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(task.model.parameters(), 1.0)
        optimizer.step()
        return float(loss.detach())

    return step


def interval(ratios: NDArray[np.float64]) -> tuple[float, float]:
    """95 % bootstrap interval of the median."""
    drawn = np.random.default_rng(0).choice(ratios, (RESAMPLES, len(ratios)))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    return float(low), float(high)


def _pair(steps: tuple[Step, Step], number: int) -> tuple[float, float]:
    """Seconds that both steps took; who goes first depends on the number."""
    seconds = [0.0, 0.0]
    for index in (number % 2, 1 - number % 2):
        started = time.perf_counter()
        steps[index](number)
        seconds[index] = time.perf_counter() - started
    return seconds[0], seconds[1]


if __name__ == "__main__":
    typer.run(main)
