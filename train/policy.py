"""What follows from steps that could not be taken: go on, go back, or stop.

One bad step is skipped. Too many in a row, or too large a share of an epoch, and the run goes back
to its last good state with half the learning rate; the batch numbers go on, so that other samples
come. Going back is pointless when nothing was learned since, when the batches are what is wrong,
or after it was tried often enough: then the run stops.
"""

from __future__ import annotations

import math
from enum import Enum, auto
from typing import Final

from train.config import Guard
from train.progress import Progress
from train.step import Problem

FEWEST: Final = 5
"""Skips per epoch that are always allowed: a few bad batches are no trend in a short epoch."""


class Decision(Enum):
    """What the loop does after a step that was not taken."""

    GO_ON = auto()
    GO_BACK = auto()
    STOP = auto()


def decide(
    guard: Guard, progress: Progress, problem: Problem, steps_per_epoch: int
) -> tuple[Decision, str]:
    """What to do after `problem`, and why.

    Args:
        guard: the limits.
        progress: with the step's skip counted already.
        problem: why the step was not taken.
        steps_per_epoch: how many steps show every sample once.
    """
    in_a_row, in_epoch = progress.skipped_in_a_row, progress.skipped_in_epoch
    allowed = max(FEWEST, math.ceil(guard.max_skip_share * steps_per_epoch))
    if in_a_row >= guard.max_skips_in_a_row:
        reason = f"{in_a_row} steps in a row could not be taken"
    elif in_epoch > allowed:
        reason = f"{in_epoch} of an epoch's {steps_per_epoch} steps could not be taken"
    else:
        return Decision.GO_ON, ""
    reason = f"{reason}; at step {progress.step}, {problem.kind}: {problem.cause}"
    if problem.kind != "not finite":
        return Decision.STOP, reason
    if progress.rollbacks >= guard.max_rollbacks:
        tried = f", after {progress.rollbacks} rollbacks" if progress.rollbacks else ""
        return Decision.STOP, reason + tried
    if progress.taken == progress.taken_at_good:
        return Decision.STOP, f"{reason}, and no step was taken since the last good state"
    return Decision.GO_BACK, reason
