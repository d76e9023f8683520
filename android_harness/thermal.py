"""Heat: when a measurement may start, and what says that it was slowed down.

A phone that was warm at the start, or got warm on the way, gives figures that nobody repeats.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from android_harness.devices import Device, Facts, Thermal
from android_harness.runners.record import RunRecord
from swipe.progress import Say

DRIFT: Final = 1.10
"""The last round's median over the first's, above which the device counts as throttled."""

POLL_SECONDS: Final = 5.0

STATUSES: Final = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
"""Android's thermal status."""


@dataclass(frozen=True, slots=True)
class Gate:
    """When a device is cool enough.

    Attributes:
        status: highest thermal status.
        battery_c: highest temperature of the battery.
        limit_s: how long to wait for that.
    """

    status: int = 0
    battery_c: float = 37.0
    limit_s: float = 300.0

    def reasons(self, thermal: Thermal) -> tuple[str, ...]:
        """Why the device is too hot; empty if it is not. What it does not say is no reason."""
        return tuple(self._reasons(thermal))

    def _reasons(self, thermal: Thermal) -> Iterator[str]:
        if thermal.status is not None and not (thermal.status <= self.status):
            yield f"thermal status {_spell(thermal.status)}"
        if thermal.battery_c is not None and not (thermal.battery_c <= self.battery_c):
            yield f"battery at {thermal.battery_c:.1f} C, more than {self.battery_c:g} C"


@dataclass(frozen=True, slots=True)
class Cooled:
    """The end of a wait.

    Attributes:
        thermal: the last reading.
        waited_s: how long it took.
        reasons: why it is still too hot; empty if it is not.
    """

    thermal: Thermal
    waited_s: float
    reasons: tuple[str, ...]


def wait_until_cool(
    device: Device,
    gate: Gate,
    say: Say,
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Cooled:
    """Wait for `device` to be cool enough, as long as `gate` allows.

    Raises:
        MissingError: the device is gone.
    """
    started = clock()
    while True:
        thermal = device.thermal()
        reasons = gate.reasons(thermal)
        waited = clock() - started
        if not reasons or waited >= gate.limit_s:
            return Cooled(thermal, waited, reasons)
        say(f"{device.name}: waiting for it to cool down ({', '.join(reasons)}), {waited:.0f} s")
        sleep(min(POLL_SECONDS, gate.limit_s - waited))


def limited(facts: Facts, before: Thermal) -> Iterator[str]:
    """What says that a device was held back from the start, as by a battery saver."""
    if facts.cpu_max_khz and before.max_khz:
        able, allowed = max(facts.cpu_max_khz), max(before.max_khz.values())
        if allowed < able:
            yield f"its fastest CPU was limited to {allowed / 1000:.0f} of {able / 1000:.0f} MHz"


def throttling(before: Thermal, after: Thermal) -> Iterator[str]:
    """What two readings say of the time between them."""
    if before.status is not None and after.status is not None and after.status > before.status:
        yield f"thermal status rose from {_spell(before.status)} to {_spell(after.status)}"
    for cpu, was in before.max_khz.items():
        now = after.max_khz.get(cpu, was)
        if now < was:
            yield f"CPU {cpu} was limited from {was / 1000:.0f} to {now / 1000:.0f} MHz"


def drifting(runs: Sequence[RunRecord]) -> Iterator[str]:
    """What the latencies of one artefact's timed runs, in order, say."""
    medians = [float(np.median(run.latency_ns)) for run in runs if run.latency_ns]
    if len(medians) > 1 and not (medians[-1] <= DRIFT * medians[0]):
        yield f"the last round took {medians[-1] / medians[0]:.2f} times the first"


def limiting(runs: Sequence[RunRecord]) -> Iterator[str]:
    """What the governor's limits during one artefact's timed runs, in order, say."""
    limits = [block.khz_max for run in runs for block in run.blocks if block.khz_max is not None]
    if limits and min(limits) < limits[0]:
        yield f"its CPUs were limited from {limits[0] / 1000:.0f} to {min(limits) / 1000:.0f} MHz"


def _spell(status: int) -> str:
    name = STATUSES[status] if 0 <= status < len(STATUSES) else "unknown"
    return f"{status} ({name})"
