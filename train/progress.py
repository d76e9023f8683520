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
        step: steps tried, skipped ones included.
        fraction: share of the run that is done, in [0, 1].
        loss: exponential average over the steps taken since the start or the last rollback; NaN
            before the first.
        taken: steps that changed the model.
        skipped: steps that were not taken, because something was not finite or did not fit.
        skipped_in_a_row: of those, the ones since the last step that was taken.
        skipped_in_epoch: of those, the ones of the epoch under way.
        rollbacks: how often the run went back to its last good state; each halves the rate.
        taken_at_good: steps taken before the last good state.
        explosions: steps whose gradient norm was far beyond the clip.
        samples: samples seen.
        seconds: training time, evaluation included.
        learning_rate: of the last step.
        gradient_norm: of the last step that was taken, before clipping.
        score: the last evaluation.
        best: the best evaluation value so far.
        history: one record per evaluation: step, loss, score (None: not
            finite, or absurd), summary.
        batches_per_step: batches that make up a step: processes times accumulation.
    """

    step: int = 0
    fraction: float = 0.0
    loss: float = math.nan
    taken: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    skipped_in_epoch: int = 0
    rollbacks: int = 0
    taken_at_good: int = 0
    explosions: int = 0
    samples: int = 0
    seconds: float = 0.0
    learning_rate: float = 0.0
    gradient_norm: float = math.nan
    score: Score | None = None
    best: float = -math.inf
    history: list[dict[str, Any]] = field(default_factory=list)
    batches_per_step: int = 1

    @property
    def skipped_share(self) -> float:
        """Share of the steps so far that were not taken; 0 before the first."""
        return self.skipped / self.step if self.step else 0.0
