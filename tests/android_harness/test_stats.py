"""Latency figures come from samples that exist, and say how sure they are."""

from __future__ import annotations

import numpy as np
import pytest

from android_harness.stats import summarize
from swipe.errors import GateError


def test_percentiles_are_in_milliseconds() -> None:
    latency = summarize([[n * 1_000_000 for n in range(1, 102)]])
    assert latency.samples == 101
    assert latency.p50_ms == pytest.approx(51)
    assert latency.p90_ms == pytest.approx(91)
    assert latency.p99_ms == pytest.approx(100)
    assert latency.trimmed_mean_ms == pytest.approx(51)
    assert latency.intervals_ms is None, "one round says nothing about others"


def test_a_few_outliers_do_not_move_the_trimmed_mean() -> None:
    calm = [1_000_000] * 97
    assert summarize([[*calm, 9_000_000_000, 9_000_000_000]]).trimmed_mean_ms == pytest.approx(1)


def test_intervals_are_as_wide_as_rounds_differ() -> None:
    generator = np.random.default_rng(1)
    noise = [[int(n) for n in generator.normal(1e6, 1e4, 200)] for _ in range(8)]
    drifting = [[n + 100_000 * round_ for n in samples] for round_, samples in enumerate(noise)]
    widths = []
    for rounds in (noise, drifting):
        latency = summarize(rounds)
        assert latency.intervals_ms is not None
        low, high = latency.intervals_ms[0]
        assert low <= latency.p50_ms <= high
        widths.append(high - low)
    assert widths[1] > 20 * widths[0], "calls of one round are not independent"


@pytest.mark.parametrize("rounds", [[], [[]], [[5], []], [[5, -1]], [[3, 0, 4]], [[3], [0]]])
def test_missing_or_impossible_samples_give_no_figure(rounds: list[list[int]]) -> None:
    with pytest.raises(GateError, match="latency samples"):
        summarize(rounds)
