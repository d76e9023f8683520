"""Latency figures come from samples that exist."""

from __future__ import annotations

import pytest

from android_harness.stats import summarize
from swipe.errors import GateError


def test_percentiles_are_in_milliseconds() -> None:
    latency = summarize([n * 1_000_000 for n in range(1, 102)])
    assert latency.samples == 101
    assert latency.p50_ms == pytest.approx(51)
    assert latency.p90_ms == pytest.approx(91)
    assert latency.p99_ms == pytest.approx(100)


@pytest.mark.parametrize("samples", [[], [0], [5, -1], [3, 0, 4]])
def test_missing_or_impossible_samples_give_no_figure(samples: list[int]) -> None:
    with pytest.raises(GateError, match="latency samples"):
        summarize(samples)
