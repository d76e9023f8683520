"""The learning rate as a function of progress: bounded, warm at first, falling in the end."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.config import LoopConfig
from train.progress import Progress
from train.schedule import WARMUP_SHARE, learning_rate, stale_evaluations, trace

PEAK = 0.02
NAMES = ("cosine", "plateau", "one-cycle")


def config(name: str = "cosine", steps: int = 1000, **schedule: Any) -> LoopConfig:
    return LoopConfig.model_validate(
        {
            "optimizer": {"learning_rate": PEAK},
            "schedule": {"name": name, "warmup_steps": 50, **schedule},
            "length": {"steps": steps},
        }
    )


@given(
    name=st.sampled_from(NAMES),
    fraction=st.floats(0, 1),
    step=st.integers(0, 10**6),
    rollbacks=st.integers(0, 5),
    scores=st.lists(st.one_of(st.none(), st.floats(-10, 10)), max_size=12),
)
def test_the_rate_lies_between_zero_and_the_peak(
    name: str, fraction: float, step: int, rollbacks: int, scores: list[float | None]
) -> None:
    history = [{"score": score} for score in scores]
    here = Progress(step=step, fraction=fraction, rollbacks=rollbacks, history=history)
    rate = learning_rate(config(name), here)
    assert 0.0 <= rate <= PEAK * 0.5**rollbacks * (1 + 1e-12)
    assert learning_rate(config(name), here) == rate
    assert learning_rate(config(name), Progress(
        step=step, fraction=fraction, rollbacks=rollbacks + 1, history=history
    )) == pytest.approx(rate / 2)  # fmt: skip


@given(st.sampled_from(["cosine", "plateau"]), st.integers(1, 400))
def test_a_warm_up_rises_and_ends_within_a_tenth_of_the_run(name: str, warmup: int) -> None:
    steps = 2000
    rates = [
        learning_rate(
            config(name, steps, warmup_steps=warmup), Progress(step=s, fraction=s / steps)
        )
        for s in range(steps)
    ]
    top = rates.index(max(rates))
    assert rates[0] <= PEAK / min(warmup, 50) + 1e-12 or warmup < 50
    assert rates[0] == pytest.approx(PEAK / warmup)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert top <= WARMUP_SHARE * steps
    assert max(rates) > 0.9 * PEAK


@pytest.mark.parametrize("name", ["cosine", "one-cycle"])
def test_the_run_ends_at_the_bottom(name: str) -> None:
    assert learning_rate(config(name), Progress(step=999, fraction=0.999)) < 1e-4 * PEAK * 10
    assert learning_rate(config(name), Progress(step=999, fraction=1.0)) == pytest.approx(0.0)


def test_one_cycle_peaks_where_it_is_told_to() -> None:
    rates = dict(trace(config("one-cycle", rise=0.25)))
    assert min(rates, key=lambda at: abs(at - 0.25)) == pytest.approx(
        max(rates, key=lambda at: rates[at]), abs=0.01
    )
    assert rates[0.0] == pytest.approx(PEAK / 25)


def test_a_plateau_halves_the_rate_after_its_patience() -> None:
    scores = [1.0, 2.0, 1.9, 1.8, 2.5, None, 2.5, 2.4, 2.3]
    seen = []
    for count in range(len(scores) + 1):
        history = [{"score": score} for score in scores[:count]]
        here = Progress(step=500, fraction=0.5, history=history)
        seen.append(round(math.log(learning_rate(config("plateau"), here) / PEAK, 0.5)))
    assert seen == [0, 0, 0, 0, 1, 1, 1, 2, 2, 3]


@given(st.lists(st.floats(-5, 5), max_size=30), st.integers(1, 5))
def test_scores_that_always_rise_are_never_stale(scores: list[float], every: int) -> None:
    rising = [{"score": score} for score in sorted(set(scores))]
    assert stale_evaluations(rising, every=every) == 0
    flat = [{"score": 1.0}] * (1 + 3 * every)
    assert stale_evaluations(flat, every=every) == 3


@pytest.mark.parametrize("name", NAMES)
def test_a_trace_is_what_the_run_will_see(name: str) -> None:
    made = config(name, steps=40)
    expected = [learning_rate(made, Progress(step=s, fraction=s / 40)) for s in range(40)]
    assert [rate for _, rate in trace(made)] == expected
