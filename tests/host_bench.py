"""A bundle measured on this machine in one call, for tests of what bundles are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from android_harness.artefacts import open_bundle
from android_harness.bench import collect
from android_harness.host import measure_host
from android_harness.interleaving import Plan
from android_harness.results import Results


def bench_host(
    folder: Path, plan: Plan, threads: int, lexicon: str | None, observe: Callable[[str], None]
) -> Results:
    """What ``swipe-bench FOLDER`` measures, without printing or keeping it."""
    opened = open_bundle(folder, lexicon, observe)
    return collect(opened, (measure_host(opened, plan, threads, observe),), threads=threads)
