"""What follows from steps that could not be taken, as a table."""

from __future__ import annotations

import pytest

from train.config import Guard
from train.policy import FEWEST, Decision, decide
from train.progress import Progress
from train.step import Kind, Problem

GUARD = Guard(max_skips_in_a_row=4, max_skip_share=0.1, max_rollbacks=2)


@pytest.mark.parametrize(
    ("in_a_row", "in_epoch", "rollbacks", "taken", "kind", "expected", "says"),
    [
        (1, 1, 0, 50, "not finite", Decision.GO_ON, ""),
        (3, 3, 0, 50, "does not fit", Decision.GO_ON, ""),
        (4, 4, 0, 50, "not finite", Decision.GO_BACK, "4 steps in a row"),
        (1, 10, 0, 50, "not finite", Decision.GO_ON, ""),
        (1, 11, 0, 50, "not finite", Decision.GO_BACK, "11 of an epoch's 100 steps"),
        (4, 4, 1, 50, "not finite", Decision.GO_BACK, "4 steps in a row"),
        (4, 4, 2, 50, "not finite", Decision.STOP, "after 2 rollbacks"),
        # Nothing was learned since: the same weights would meet the same end.
        (4, 4, 0, 40, "not finite", Decision.STOP, "no step was taken since"),
        # Other weights do not make a batch fit.
        (4, 4, 0, 50, "does not fit", Decision.STOP, "4 steps in a row"),
        (1, 11, 0, 50, "out of memory", Decision.STOP, "11 of an epoch's"),
    ],
)
def test_decisions(
    in_a_row: int,
    in_epoch: int,
    rollbacks: int,
    taken: int,
    kind: Kind,
    expected: Decision,
    says: str,
) -> None:
    progress = Progress(
        step=60,
        taken=taken,
        taken_at_good=40,
        skipped_in_a_row=in_a_row,
        skipped_in_epoch=in_epoch,
        rollbacks=rollbacks,
    )
    decision, reason = decide(GUARD, progress, Problem(kind, "the cause"), 100)
    assert decision is expected
    assert says in reason
    if decision is not Decision.GO_ON:
        assert reason.count("at step 60") == 1
        assert f"{kind}: the cause" in reason


@pytest.mark.parametrize(("steps", "allowed"), [(1, FEWEST), (20, FEWEST), (1000, 100)])
def test_a_few_bad_steps_are_allowed_in_an_epoch_however_short(steps: int, allowed: int) -> None:
    for skips, expected in ((allowed, Decision.GO_ON), (allowed + 1, Decision.GO_BACK)):
        progress = Progress(taken=1, skipped_in_epoch=skips)
        assert decide(GUARD, progress, Problem("not finite", "-"), steps)[0] is expected
