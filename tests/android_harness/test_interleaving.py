"""Every implementation measured alike, interleaved, in rotating order."""

from __future__ import annotations

import time

import numpy as np
import pytest
from numpy.typing import NDArray

from android_harness.interleaving import Plan, measure, rotated
from exporter.formats import Runner, calls_of
from swipe.errors import LoweringError

INPUTS = np.arange(3 * 2 * 64, dtype=np.float32).reshape(3, 2, 64)


def test_blocks_are_interleaved_in_rotating_order() -> None:
    calls: list[tuple[str, float]] = []
    keyboard = np.ones((1, 64), dtype=np.float32)

    def loader(name: str) -> Runner:
        def run(row: NDArray[np.float32], *context: NDArray[np.float32]) -> NDArray[np.float32]:
            assert row.shape == (1, 2, 64)
            assert [value is keyboard for value in context] == ([True] if name == "b" else [])
            calls.append((name, float(row[0, 0, 0])))
            return row

        return run

    loads: list[str] = []

    def opening(name: str) -> Runner:
        loads.append(name)
        return loader(name)

    names = ("a", "b", "c")
    context = {"b": {"layout_mask": keyboard}}
    plan = Plan(loads=2, warmup=1, blocks=3, block_calls=2)
    measured = measure(
        {name: (lambda name=name: opening(name)) for name in names},  # type: ignore[misc]
        {name: calls_of(INPUTS, context.get(name, {})) for name in names},
        plan,
        lambda line: None,
    )
    assert loads == ["a", "a", "b", "b", "c", "c"]
    assert list(measured.runners) == list(names)
    timed = [name for name, _ in calls[2 * len(names) :]]
    assert timed == [*"aabbcc", *"bbccaa", *"ccaabb"]
    for name in names:
        timing = measured.timings[name]
        assert [len(samples) for samples in timing.latency_ns] == [2, 2, 2]
        assert len(timing.load_ms) == 2
        rows = [value for called, value in calls[2 * len(names) :] if called == name]
        assert len(set(rows)) == len(INPUTS), "inputs rotate through the swipes"


def test_closing_a_runner_is_no_part_of_loading_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = [0]
    monkeypatch.setattr(time, "perf_counter_ns", lambda: now_ns[0])

    class Lingering:
        def __call__(self, row: NDArray[np.float32]) -> NDArray[np.float32]:
            return row

        def __del__(self) -> None:
            now_ns[0] += 10**9

    measured = measure(
        {"one": Lingering},
        {"one": calls_of(INPUTS)},
        Plan(loads=3, warmup=1, blocks=1, block_calls=1),
        lambda line: None,
    )
    assert measured.timings["one"].load_ms == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("refused", [1, 3, 5], ids=["warm-up", "first round", "second round"])
def test_what_refuses_a_later_call_fails_alone(refused: int) -> None:
    """The first call is the one after loading, two warm up, and two are timed in each round."""
    made: list[str] = []

    def loader(name: str) -> Runner:
        def run(row: NDArray[np.float32]) -> NDArray[np.float32]:
            made.append(name)
            if name == "bad" and made.count("bad") > refused:
                raise LoweringError("it takes no such call", fix="export again")
            return row

        return run

    measured = measure(
        {name: (lambda name=name: loader(name)) for name in ("bad", "good")},  # type: ignore[misc]
        {name: calls_of(INPUTS) for name in ("bad", "good")},
        Plan(loads=1, warmup=2, blocks=2, block_calls=2),
        lambda line: None,
    )
    assert measured.failed == {"bad": "it takes no such call"}
    assert made.count("bad") == refused + 1
    assert list(measured.runners) == list(measured.timings) == ["good"]
    assert [len(samples) for samples in measured.timings["good"].latency_ns] == [2, 2]


def test_nothing_rotates_to_nothing() -> None:
    assert rotated([], 3) == []
