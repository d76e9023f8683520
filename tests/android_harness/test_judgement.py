"""What makes a latency of a device one that is not to be used."""

from __future__ import annotations

import pytest
from recorded_runs import record

from android_harness.judgement import _short_of
from android_harness.measurement import DevicePlan
from android_harness.runners.record import Cpus


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
