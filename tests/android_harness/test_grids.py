"""The tables of results: figures in the units that their headings say."""

from __future__ import annotations

from recorded_runs import results, row

from android_harness.grids import device_grids
from android_harness.results import Memory
from android_harness.runners.record import Rss


def test_kilobytes_of_the_kernel_are_shown_in_the_megabytes_of_files() -> None:
    memory = Memory(rss=Rss(start=1, loaded=2, peak=1_000_000), pss_kb=None)
    found = results(row(size_bytes=1_024_000_000, memory=memory))
    latency, *_ = device_grids(found.devices[0], found)
    cells = dict(zip(latency.headings, latency.rows[0], strict=True))
    assert (cells["kB"], cells["MB"]) == ("1024000", "1024")
