"""What an artefact costs in accuracy, and how sure that is.

Both sides answer the same samples, so the loss of each sample is known: the score that PyTorch got
minus the artefact's. The bound of the mean loss resamples writers (`swipe.statistics`). Where
hardly anything differs, resampling finds no spread at all, and 50 samples would look as good as
5,000: the bound is never below 3 / n, what n samples without a loss still allow (J. Hanley, A.
Lippman-Hand, "If nothing goes wrong, is everything all right?", JAMA 249, 1983).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.parity.verdict import Status
from swipe.statistics import writer_upper_bound

RULE_OF_THREE: Final = 3.0


@dataclass(frozen=True, slots=True)
class Cost:
    """Points lost to PyTorch on the same samples.

    Attributes:
        samples: how many there were.
        drop: mean loss in points; negative where the artefact is better.
        spread: how far above `drop` resampled losses go with 95 % certainty; falls with the root of
            the samples.
        worst_stratum: the part of the samples that lost most; empty where there are no parts.
        worst_drop: what it lost, in points.
    """

    samples: int
    drop: float
    spread: float
    worst_stratum: str
    worst_drop: float

    @property
    def bound(self) -> float:
        """The loss in points is below it with 95 % certainty."""
        return max(self.drop + self.spread, 100 * RULE_OF_THREE / self.samples)

    def samples_needed(self, budget: float) -> int | None:
        """How many samples would bring `bound` to `budget`, if they lost alike; None if none do."""
        if not (self.drop < budget):
            return None
        width = self.spread / (budget - self.drop)
        return math.ceil(max(self.samples * width**2, 100 * RULE_OF_THREE / budget))

    def to_dict(self) -> dict[str, float | str]:
        """JSON-ready fields, with the bound."""
        return {**asdict(self), "bound": self.bound}

    def judge(self, budget: float) -> tuple[Status, str]:
        """Whether no more than `budget` points are lost, and what to say if that is not sure."""
        if not (self.drop <= budget):
            return Status.FAIL, (
                f"accuracy falls {self.drop:.2f} points, the budget is {budget:.2f}"
            )
        if not (self.bound <= budget):
            needed = self.samples_needed(budget)
            more = "" if needed is None else f"; about {needed:,} samples would tell"
            return Status.UNVERIFIED, (
                f"accuracy falls {self.drop:.2f} points, but on {self.samples:,} samples "
                f"{self.bound:.2f} cannot be ruled out and the budget is {budget:.2f}{more}"
            )
        return Status.PASS, ""


def accuracy_cost(
    reference: NDArray[np.float64],
    candidate: NDArray[np.float64],
    writers: Sequence[str],
    strata: Mapping[str, NDArray[np.bool_]],
) -> Cost:
    """The cost of `candidate`, whose scores in [0, 1] are for the same samples as `reference`'s.

    Raises:
        DataError: the lengths contradict each other.
    """
    losses = 100.0 * (reference - candidate)
    drop = float(losses.mean())
    drops = {name: float(losses[members].mean()) for name, members in strata.items()}
    worst = max(drops, key=drops.__getitem__, default="")
    spread = writer_upper_bound(losses, writers) - drop
    return Cost(len(losses), drop, spread, worst, drops.get(worst, 0.0))
