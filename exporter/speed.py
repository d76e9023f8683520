"""How long an artefact takes beside its float baseline: a ratio, measured in turns.

Milliseconds of a machine that does other things as well are not worth writing down; the ratio of
two that took turns is. `swipe-bench` measures latency properly.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from exporter.formats import Inputs, Runner

WARM_UP: Final = 20
ROUNDS: Final = 150


@dataclass(frozen=True, slots=True)
class Speed:
    """Medians of calls that took turns.

    Attributes:
        ratio: this artefact's time over the baseline's; below 1 is faster.
        calls: timed calls of each.
    """

    ratio: float
    calls: int


def compare_speed(runner: Runner, baseline: Runner, calls: Sequence[Inputs]) -> Speed:
    """Time `runner` and `baseline` on the same `calls`, one after the other."""
    times: list[list[int]] = []
    for number in range(WARM_UP + ROUNDS):
        values = tuple(calls[number % len(calls)].values())
        pair = []
        # Whoever goes second finds the caches warm, so the order alternates.
        for one in (runner, baseline) if number % 2 else (baseline, runner):
            started = time.perf_counter_ns()
            one(*values)
            pair.append(time.perf_counter_ns() - started)
        times.append(pair if number % 2 else pair[::-1])
    own, others = np.median(np.array(times[WARM_UP:]), axis=0)
    return Speed(float(own / others), ROUNDS)
