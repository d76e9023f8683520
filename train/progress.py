"""Progress: where a run stands; updated by the loop, kept by the state file, shown to the user."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from train.task import Score


@dataclass(slots=True)
class Progress:
    """Where a run stands; updated by the loop, read by whoever shows it.

    Attributes:
        step: optimizer steps taken, skipped ones included.
        fraction: share of the run that is done, in [0, 1].
        loss: exponential average over the steps that were finite; NaN before the first.
        skipped: steps that were not finite.
        samples: samples seen.
        seconds: training time, evaluation included.
        learning_rate: of the last step.
        gradient_norm: of the last finite step, before clipping.
        score: the last evaluation.
        best: the best evaluation value so far.
    """

    step: int = 0
    fraction: float = 0.0
    loss: float = math.nan
    skipped: int = 0
    samples: int = 0
    seconds: float = 0.0
    learning_rate: float = 0.0
    gradient_norm: float = math.nan
    score: Score | None = None
    best: float = -math.inf
    history: list[dict[str, Any]] = field(default_factory=list)
