"""How sure a figure is: intervals over writers, and the exact test between two models.

Swipes of one writer are alike (same finger, same phone), so treating 8,152 swipes of 126 writers as
8,152 independent ones makes intervals too narrow. Whole writers are resampled instead: the cluster
bootstrap with percentile intervals (B. Efron, R. Tibshirani, "An Introduction to the Bootstrap",
1993; C. Field, A. Welsh, "Bootstrapping clustered data", JRSS B 69, 2007).

What it leaves out: what is counted as right (`swipe.scoring`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from swipe.errors import DataError

RESAMPLES: Final = 2000
SEED: Final = 0
LEVEL: Final = 0.95

_CELLS: Final = 4_000_000
"""Resampling weights held at once (32 MB), so that memory does not grow with the writers."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A percentile interval of `LEVEL`, in the unit of what it was made of."""

    low: float
    high: float

    def scaled(self, factor: float) -> Interval:
        """Both ends times a positive `factor`."""
        return Interval(self.low * factor, self.high * factor)


def writer_intervals(
    values: NDArray[np.integer],
    members: NDArray[np.bool_],
    writers: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> list[Interval | None]:
    """Interval of the mean of each column of `values` over its members, resampling writers.

    All columns share the resamples. One that has members of fewer than two writers has no
    interval: nothing is known then of how writers differ. Resamples that leave a column without
    members do not count for it.

    Args:
        values: int[N, M], a figure of each swipe, e.g. 1 where it was right.
        members: bool[N, M], the swipes that each column is about.
        writers: who made each of the N swipes.
        resamples: how many sets of writers are drawn.
        seed: equal seeds, equal intervals.

    Raises:
        DataError: the shapes contradict each other.
    """
    if values.shape != members.shape or values.ndim != 2 or len(values) != len(writers):
        raise DataError(
            f"values {values.shape}, members {members.shape} and {len(writers)} writers",
            fix="give one row of each per swipe",
        )
    names, codes = np.unique(np.asarray(writers, dtype=object), return_inverse=True)
    sums = _per_writer(np.where(members, values, 0), codes, len(names))
    counts = _per_writer(members, codes, len(names))
    means = _resampled_means(sums, counts, resamples, seed)
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    intervals: list[Interval | None] = []
    for column, present in zip(means.T, (counts > 0).sum(axis=0), strict=True):
        if present < 2:
            intervals.append(None)
            continue
        low, high = np.quantile(column[~np.isnan(column)], tails)
        intervals.append(Interval(float(low), float(high)))
    return intervals


def writer_upper_bound(
    values: NDArray[np.floating],
    writers: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> float:
    """One-sided `LEVEL` upper bound of the mean of ``values [N]``, resampling writers.

    With swipes of one writer only, which says nothing of others, it is the largest value.

    Raises:
        DataError: there are no values, or not one writer for each.
    """
    if len(values) == 0 or len(values) != len(writers):
        raise DataError(
            f"{len(values)} values and {len(writers)} writers", fix="give one writer per swipe"
        )
    names, codes = np.unique(np.asarray(writers, dtype=object), return_inverse=True)
    if len(names) < 2:
        return float(values.max())
    sums = _per_writer(values[:, None], codes, len(names))
    counts = _per_writer(np.ones((len(values), 1)), codes, len(names))
    means = _resampled_means(sums, counts, resamples, seed)
    return float(np.quantile(means, LEVEL))


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided McNemar p: twice the smaller binomial tail at one half, 1 at most.

    Computed from logarithms of factorials, so that thousands of disagreements neither overflow nor
    cancel (Q. McNemar, Psychometrika 12, 1947; the exact form is the sign test).

    Args:
        only_first: swipes that only the first model has right.
        only_second: swipes that only the second model has right.

    Raises:
        DataError: a count is negative.
    """
    if min(only_first, only_second) < 0:
        raise DataError(
            f"{only_first} and {only_second} disagreements", fix="give counts of at least 0"
        )
    n = only_first + only_second
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    tail = np.arange(min(only_first, only_second) + 1)
    log_terms = log_factorial[n] - log_factorial[tail] - log_factorial[n - tail] - n * np.log(2.0)
    return min(1.0, 2.0 * float(np.exp(log_terms).sum()))


def _per_writer(
    rows: NDArray[np.generic], codes: NDArray[np.integer], count: int
) -> NDArray[np.float64]:
    """Sums of ``rows [N, M]`` over the swipes of each writer: float64[count, M]."""
    columns = [np.bincount(codes, weights=column, minlength=count) for column in rows.T]
    return np.stack(columns, axis=1)


def _resampled_means(
    sums: NDArray[np.float64], counts: NDArray[np.float64], resamples: int, seed: int
) -> NDArray[np.float64]:
    """Means of each resample and column: float64[resamples, M], NaN where nobody was drawn."""
    rng = np.random.default_rng(seed)
    writers = len(sums)
    chunk = max(1, _CELLS // writers)
    means = []
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        times = rng.multinomial(writers, np.full(writers, 1 / writers), size=size).astype(float)
        with np.errstate(invalid="ignore"):
            means.append((times @ sums) / (times @ counts))
    return np.concatenate(means)
