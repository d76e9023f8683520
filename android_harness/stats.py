"""Latency samples -> the figures that are reported. Raw samples stay with the results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from swipe.errors import GateError


@dataclass(frozen=True, slots=True)
class Latency:
    """Order statistics of one implementation's calls, in milliseconds.

    Attributes:
        samples: number of timed calls.
        p50_ms: median.
        p90_ms: 90th percentile.
        p99_ms: 99th percentile.
    """

    samples: int
    p50_ms: float
    p90_ms: float
    p99_ms: float


def summarize(latency_ns: Sequence[int]) -> Latency:
    """Percentiles of raw nanosecond samples.

    Raises:
        GateError: there are no samples, or one is not positive: a clock that was not read.
    """
    samples = np.asarray(latency_ns, dtype=np.int64)
    if samples.size == 0 or not (samples > 0).all():
        raise GateError(
            f"{samples.size} latency samples, of which {int((samples <= 0).sum())} not positive",
            fix="measure again; figures are never made from missing samples",
        )
    p50, p90, p99 = np.percentile(samples, [50, 90, 99]) / 1e6
    return Latency(int(samples.size), float(p50), float(p90), float(p99))
