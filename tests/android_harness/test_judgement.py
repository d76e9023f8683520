"""What makes a latency of a device one that is not to be used."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from recorded_runs import EMULATED, PHONE, record

from android_harness.devices import Facts, Thermal
from android_harness.judgement import _invalid, _short_of
from android_harness.measurement import DevicePlan, Measured, Runs
from android_harness.runners.record import Cpus, RunRecord

ABLE = replace(PHONE, cpu_max_khz=(2_400_000,))
COOL = Thermal(max_khz={0: 2_400_000})
HELD_BACK = Thermal(max_khz={0: 1_800_000})


def _reasons(*rounds: RunRecord, facts: Facts = ABLE, **changes: Any) -> list[str]:
    fields: dict[str, Any] = {
        "before": COOL, "after": COOL, "waited_s": 0.0, "hot": (), "throttled": (), "runs": {},
        "skipped": {}, "elsewhere": (),
    }  # fmt: skip
    measured = Measured(facts=facts, **(fields | changes))
    return list(_invalid(Runs(rounds=list(rounds)), measured, DevicePlan(iters=2)))


def test_rounds_that_went_well_on_a_cool_phone_are_valid() -> None:
    assert _reasons(record(), record()) == []


@pytest.mark.parametrize(
    ("rounds", "changes", "reason"),
    [
        ((record(),), {"hot": ("battery at 41 C",)}, "started hot: battery at 41 C"),
        ((record(),), {"before": HELD_BACK}, "its fastest CPU was limited to 1800 of 2400 MHz"),
        ((record(),), {"throttled": ("CPU 0 was limited",)}, "CPU 0 was limited"),
        (
            (record(), record(khz_max=(2_400_000, 1_800_000))),
            {},
            "its CPUs were limited from 2400 to 1800 MHz",
        ),
        ((record(), record((2000, 2200))), {}, "the last round took 2.00 times the first"),
        ((record(), record((1000,))), {}, "only 1 of 2 calls in 60 s"),
        ((record(), record(threads=4)), {}, "4 threads instead of 1"),
    ],
    ids=["hot", "held back", "throttled", "limited", "drifting", "short", "threads"],
)
def test_whatever_slowed_a_phone_down_makes_its_latency_invalid(
    rounds: tuple[RunRecord, ...], changes: dict[str, Any], reason: str
) -> None:
    assert _reasons(*rounds, **changes) == [reason]


def test_what_a_machine_is_set_to_and_the_drift_of_an_emulator_are_no_reason() -> None:
    host = replace(ABLE, kind="host")
    assert _reasons(record(), facts=host, before=HELD_BACK) == []
    drifted = record(), record((2000, 2200))
    assert _reasons(*drifted, facts=EMULATED) == []
    assert _reasons(*drifted, facts=host) != []


def test_as_many_calls_as_asked_for_are_enough_and_threads_may_be_untold() -> None:
    plan = DevicePlan(iters=2, threads=2)
    assert list(_short_of(record((1000, 1100), threads=None), plan)) == []
    assert list(_short_of(record((1000,), threads=1), plan)) == [
        "only 1 of 2 calls in 60 s", "1 threads instead of 2"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "got", "reasons"),
    [
        ("0,1", "0-1", []),
        ("4,5,7,6,0", "0,4-7", []),
        ("2-2", "2", []),
        ("0-3", "0-1", ["CPUs 0-1 instead of 0-3"]),
        ("4-7", "0-7", ["CPUs 0-7 instead of 4-7"]),
        ("4-7", "", ["CPUs  instead of 4-7"]),
    ],
)
def test_cpus_are_compared_and_not_how_their_list_is_written(
    asked: str, got: str, reasons: list[str]
) -> None:
    run = record(cpus=Cpus(asked=asked, got=got))
    assert list(_short_of(run, DevicePlan(iters=1, cpus=asked))) == reasons
