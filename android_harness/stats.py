"""Latency samples -> the figures that are reported. Raw samples stay with the results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from swipe.errors import GateError

TRIMMED: Final = 0.1
"""Share of the samples left out of the trimmed mean, at either end."""

RESAMPLES: Final = 500
CONFIDENCE: Final = 95.0
PERCENTILES: Final = (50, 90, 99)


@dataclass(frozen=True, slots=True)
class Latency:
    """Order statistics of one implementation's calls, in milliseconds.

    Attributes:
        samples: number of timed calls.
        p50_ms: median.
        p90_ms: 90th percentile.
        p99_ms: 99th percentile.
        trimmed_mean_ms: mean without the `TRIMMED` fastest and slowest.
        intervals_ms: of p50, p90 and p99: what other rounds would have given, with `CONFIDENCE`;
            None with fewer than three rounds, from which nothing can be told about others.
    """

    samples: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    trimmed_mean_ms: float
    intervals_ms: tuple[tuple[float, float], ...] | None


def summarize(rounds: Sequence[Sequence[int]], *, seed: int = 0) -> Latency:
    """Figures of raw nanosecond samples, by round.

    Calls of one round share a clock frequency and a state of the caches, so they are not
    independent: the intervals resample whole rounds.

    Args:
        rounds: every timed call; rounds may differ in length.
        seed: of the resampling.

    Raises:
        GateError: a round has no samples, or one is not positive: a clock that was not read.
    """
    arrays = [np.asarray(samples, dtype=np.int64) for samples in rounds]
    everything = np.concatenate(arrays) if arrays else np.empty(0, dtype=np.int64)
    absent = sum(not array.size for array in arrays) or not arrays
    if absent or not (everything > 0).all():
        raise GateError(
            f"{everything.size} latency samples, of which {int((everything <= 0).sum())} not "
            f"positive, and {int(absent)} rounds without any",
            fix="measure again; figures are never made from missing samples",
        )
    p50, p90, p99 = np.percentile(everything, PERCENTILES) / 1e6
    cut = int(TRIMMED * everything.size)
    middle = np.sort(everything)[cut : everything.size - cut]
    return Latency(
        samples=int(everything.size),
        p50_ms=float(p50),
        p90_ms=float(p90),
        p99_ms=float(p99),
        trimmed_mean_ms=float(middle.mean()) / 1e6,
        intervals_ms=_intervals(arrays, seed) if len(arrays) >= 3 else None,
    )


def _intervals(rounds: list[NDArray[np.int64]], seed: int) -> tuple[tuple[float, float], ...]:
    """Percentile bootstrap over rounds."""
    generator = np.random.default_rng(seed)
    drawn = np.array(
        [
            np.percentile(
                np.concatenate(
                    [rounds[i] for i in generator.integers(len(rounds), size=len(rounds))]
                ),
                PERCENTILES,
            )
            for _ in range(RESAMPLES)
        ]
    )
    tail = (100 - CONFIDENCE) / 2
    low, high = np.percentile(drawn, [tail, 100 - tail], axis=0) / 1e6
    return tuple((float(a), float(b)) for a, b in zip(low, high, strict=True))
