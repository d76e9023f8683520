"""Measuring in this process: every implementation under the same conditions, in one run.

Load (median of three) and first call of each implementation; then a warm-up; then blocks of
calls, the implementations interleaved block by block in rotating order, because a fixed order is
what a drifting clock or a warming chip punishes. Inputs rotate through real swipes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from exporter.formats import Inputs, Runner
from swipe.errors import LoweringError, MissingError
from swipe.progress import Say

Loader = Callable[[], Runner]


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure.

    Attributes:
        loads: how often each implementation is opened.
        warmup: calls per implementation before anything is timed.
        blocks: rounds over all implementations.
        block_calls: timed calls per implementation and round.
    """

    loads: int = 3
    warmup: int = 20
    blocks: int = 20
    block_calls: int = 25


@dataclass(slots=True)
class Timing:
    """What was measured of one implementation.

    Attributes:
        load_ms: from file to a runner that is ready to be called, of every load; the first also
            imports the library, which a median leaves out.
        first_ms: the first call of a fresh runner.
        latency_ns: every timed call, by round.
    """

    load_ms: tuple[float, ...]
    first_ms: float
    latency_ns: list[list[int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Interleaved:
    """What became of every implementation, by its name.

    Attributes:
        runners: those that were executed to the end.
        timings: of these.
        missing: of some others, the library that is not here, and how to install it.
        failed: of the rest, why they cannot be loaded or executed.
    """

    runners: dict[str, Runner]
    timings: dict[str, Timing]
    missing: dict[str, str]
    failed: dict[str, str]


def measure(
    loaders: Mapping[str, Loader],
    calls: Mapping[str, Sequence[Inputs]],
    plan: Plan,
    say: Say,
) -> Interleaved:
    """Load and time every implementation that can be executed here.

    Args:
        loaders: how to open each implementation, by name.
        calls: the calls of each implementation, by its name; they rotate.
        plan: how long to measure.
        say: told the name of what is being measured.
    """
    runners: dict[str, Runner] = {}
    timings: dict[str, Timing] = {}
    missing: dict[str, str] = {}
    failed: dict[str, str] = {}
    values = {name: [tuple(call.values()) for call in calls[name]] for name in loaders}
    for name, load in loaders.items():
        say(f"loading {name}")
        try:
            with _own_failure(name, failed):
                runners[name], timings[name] = _opened(load, values[name][0], plan.loads)
        except MissingError as error:
            missing[name] = f"{error}; {error.fix}"
    names = list(runners)
    for name in names:
        with _own_failure(name, failed):
            for call in range(plan.warmup):
                runners[name](*values[name][call % len(values[name])])
    for block in range(plan.blocks):
        say(f"measuring, round {block + 1} of {plan.blocks}")
        for name in rotated(names, block):
            if name in failed:
                continue
            samples = []
            with _own_failure(name, failed):
                for call in range(plan.block_calls):
                    number = block * plan.block_calls + call
                    given = values[name][number % len(values[name])]
                    started = time.perf_counter_ns()
                    runners[name](*given)
                    samples.append(time.perf_counter_ns() - started)
            timings[name].latency_ns.append(samples)
    executed = [name for name in names if name not in failed]
    return Interleaved(
        {name: runners[name] for name in executed},
        {name: timings[name] for name in executed},
        missing,
        failed,
    )


@contextmanager
def _own_failure(name: str, failed: dict[str, str]) -> Iterator[None]:
    """What an implementation cannot execute is no reason to stop with the others."""
    try:
        yield
    except LoweringError as error:
        failed[name] = str(error)


def _opened(load: Loader, values: tuple[Any, ...], loads: int) -> tuple[Runner, Timing]:
    load_ms = []
    for _ in range(loads):
        runner, taken_ms = _loaded(load)
        load_ms.append(taken_ms)
    started = time.perf_counter_ns()
    runner(*values)
    first_ns = time.perf_counter_ns() - started
    return runner, Timing(tuple(load_ms), first_ns / 1e6)


def _loaded(load: Loader) -> tuple[Runner, float]:
    """A runner, and the milliseconds that opening it took: closing an earlier one is no part."""
    started = time.perf_counter_ns()
    runner = load()
    return runner, (time.perf_counter_ns() - started) / 1e6


def rotated(names: Sequence[str], by: int) -> list[str]:
    """`names`, starting elsewhere in each round: a fixed order is what drift punishes."""
    shift = by % len(names) if names else 0
    return [*names[shift:], *names[:shift]]
