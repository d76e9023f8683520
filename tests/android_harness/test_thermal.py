"""Heat: the wait before a measurement, and what gives away that a device slowed down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from recorded_runs import PHONE, record

from android_harness.devices import Completed, Facts, Thermal
from android_harness.thermal import Gate, drifting, limited, limiting, throttling, wait_until_cool

COOL = Thermal(status=0, battery_c=30.0, max_khz={0: 2_400_000, 1: 2_400_000})


@dataclass
class Heater:
    """A device of which only the temperature is known, reading by reading; the last one stays."""

    readings: list[Thermal]
    name: str = "heater"
    folder: str = "/nowhere"
    seen: list[Thermal] = field(default_factory=list)

    def thermal(self) -> Thermal:
        self.seen.append(self.readings.pop(0) if len(self.readings) > 1 else self.readings[0])
        return self.seen[-1]

    def shell(
        self, argv: Sequence[str] | str, timeout_s: float = 60, *, tether: bool = False
    ) -> Completed:
        raise AssertionError("waiting only reads temperatures")

    def push(self, path: Path, remote: str) -> None:
        raise AssertionError("waiting only reads temperatures")

    def pull(self, remote: str, path: Path) -> None:
        raise AssertionError("waiting only reads temperatures")

    def facts(self) -> Facts:
        raise AssertionError("waiting only reads temperatures")


@dataclass
class Clock:
    """Time that passes while somebody sleeps."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_cool_device_is_measured_at_once(clock: Clock) -> None:
    cooled = wait_until_cool(
        Heater([COOL]), Gate(), lambda line: None, sleep=clock.sleep, clock=clock
    )
    assert (cooled.reasons, cooled.waited_s) == ((), 0.0)


def test_a_hot_device_is_waited_for(clock: Clock) -> None:
    said: list[str] = []
    hot = [Thermal(status=3), Thermal(status=1), Thermal(status=0, battery_c=37.4), COOL]
    heater = Heater(hot)
    cooled = wait_until_cool(heater, Gate(), said.append, sleep=clock.sleep, clock=clock)
    assert cooled.reasons == ()
    assert cooled.thermal is COOL
    assert len(heater.seen) == 4
    assert cooled.waited_s == clock.now > 0
    assert "thermal status 3 (severe)" in said[0]
    assert "battery at 37.4 C, more than 37 C" in said[2]


def test_the_wait_has_an_end_and_the_reason_stays(clock: Clock) -> None:
    heater = Heater([Thermal(status=3)])
    cooled = wait_until_cool(
        heater, Gate(limit_s=12), lambda line: None, sleep=clock.sleep, clock=clock
    )
    assert cooled.reasons == ("thermal status 3 (severe)",)
    assert cooled.waited_s == pytest.approx(12)


def test_not_a_number_is_not_cool() -> None:
    assert Gate().reasons(Thermal(battery_c=float("nan")))


def test_what_a_device_does_not_say_is_no_reason() -> None:
    assert Gate().reasons(Thermal()) == ()
    assert list(throttling(Thermal(), COOL)) == []
    assert list(throttling(COOL, Thermal())) == []


def test_a_rising_status_and_a_falling_limit_are_throttling() -> None:
    after = Thermal(status=2, max_khz={0: 2_400_000, 1: 1_100_000})
    assert list(throttling(COOL, after)) == [
        "thermal status rose from 0 (none) to 2 (moderate)",
        "CPU 1 was limited from 2400 to 1100 MHz",
    ]
    assert list(throttling(after, COOL)) == []
    one_is_off = Thermal(status=0, max_khz={1: 2_400_000})
    assert list(throttling(COOL, one_is_off)) == list(throttling(one_is_off, COOL)) == []


def test_a_battery_saver_is_seen() -> None:
    facts = replace(PHONE, cpu_max_khz=(1_800_000, 2_400_000))
    assert list(limited(facts, COOL)) == []
    saving = Thermal(max_khz={0: 1_800_000, 1: 1_400_000})
    assert list(limited(facts, saving)) == ["its fastest CPU was limited to 1800 of 2400 MHz"]
    assert list(limited(PHONE, saving)) == list(limited(facts, Thermal())) == []


@pytest.mark.parametrize(
    ("medians", "slower"),
    [((100, 100, 109), False), ((100, 100, 111), True), ((100,), False), ((200, 100, 100), False)],
)
def test_a_last_round_a_tenth_slower_than_the_first(medians: tuple[int, ...], slower: bool) -> None:
    runs = [record(latency_ns=(median, median, median * 9)) for median in medians]
    reasons = list(drifting(runs))
    assert bool(reasons) == slower
    if slower:
        assert reasons == ["the last round took 1.11 times the first"]


def test_a_frequency_that_falls_between_blocks_is_seen() -> None:
    calm = record(khz_max=(2_400_000, 2_400_000))
    limited = record(khz_max=(2_400_000, 1_800_000))
    assert list(limiting([calm, calm])) == []
    assert list(limiting([calm, limited, calm])) == ["its CPUs were limited from 2400 to 1800 MHz"]
    assert list(limiting([record(khz_max=(None, None))])) == []
