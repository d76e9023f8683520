"""The learning rate as a function of where the run stands.

A function and not an object: there is no scheduler that could be stepped before the optimizer,
twice or never, and nothing but `Progress` has to be saved to resume it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from train.config import LoopConfig
from train.progress import Progress

ONE_CYCLE_START: Final = 1 / 25
"""Share of the peak that a one-cycle run starts at."""

WARMUP_SHARE: Final = 0.1
"""A warm-up ends after this share of the run, even when it was to be longer."""


def learning_rate(config: LoopConfig, progress: Progress) -> float:
    """The rate of the step about to be taken.

    Each rollback halves it (see `train.policy`).
    """
    peak = config.optimizer.learning_rate * 0.5**progress.rollbacks
    schedule, fraction = config.schedule, progress.fraction
    if schedule.name == "one-cycle":
        if fraction < schedule.rise:
            return peak * _ease(ONE_CYCLE_START, 1.0, fraction / schedule.rise)
        return peak * _ease(1.0, 0.0, (fraction - schedule.rise) / (1.0 - schedule.rise))
    warm = min(
        1.0,
        max((progress.step + 1) / max(1, schedule.warmup_steps), fraction / WARMUP_SHARE),
    )
    if schedule.name == "plateau":
        reductions = stale_evaluations(progress.history, every=schedule.patience)
        return peak * warm * schedule.factor**reductions
    return peak * warm * _ease(1.0, 0.0, fraction)


def stale_evaluations(history: Sequence[Mapping[str, Any]], *, every: int) -> int:
    """How many times `every` evaluations in a row brought no better score than all before.

    Args:
        history: one record per evaluation, with its ``score`` (None: not finite).
        every: length of one such stretch; a better score, or the end of a stretch, starts a new.
    """
    best, waiting, stretches = -math.inf, 0, 0
    for record in history:
        score = record["score"]
        if score is not None and score > best:
            best, waiting = score, 0
            continue
        waiting += 1
        if waiting == every:
            stretches, waiting = stretches + 1, 0
    return stretches


def trace(config: LoopConfig, points: int = 200) -> Iterator[tuple[float, float]]:
    """(fraction of the run, learning rate) as a run of `config` would see them.

    For a run by the clock, the warm-up is taken to fill the first tenth.
    """
    progress = Progress()
    steps = config.length.steps or 10 * max(1, config.schedule.warmup_steps)
    for step in sorted({round(i * (steps - 1) / max(1, points - 1)) for i in range(points)}):
        here = replace(progress, step=step, fraction=step / steps)
        yield here.fraction, learning_rate(config, here)


def _ease(start: float, end: float, share: float) -> float:
    """Half a cosine from `start` to `end`."""
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * share))
