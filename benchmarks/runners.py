"""The native runners against the Python runtimes: the same artefacts, engine and machine, one run.

    python benchmarks/runners.py bundle --repeats 7

Alternates between the two, and prints for every artefact both medians and the ratio of each pair:
what a call through Python costs on top of the engine, which a phone does not pay.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from android_harness.artefacts import open_bundle
from android_harness.bench import bench_devices
from android_harness.devices.local import LocalDevice
from android_harness.host import measure_host
from android_harness.interleaving import Plan
from android_harness.measurement import DevicePlan
from android_harness.runners.selection import runners_for

PYTHON = Plan(loads=1, blocks=5, block_calls=100)
NATIVE = DevicePlan(rounds=1, iters=500, min_secs=0)


def main(
    bundle: Annotated[Path, typer.Argument(help="A folder written by swipe-export.")],
    repeats: Annotated[int, typer.Option(min=3, help="Pairs of measurements.")] = 7,
    lexicon: Annotated[str | None, typer.Option(help="As for swipe-bench.")] = None,
) -> None:
    """Print medians and ratios of every artefact that both can execute."""
    opened = open_bundle(bundle, lexicon, print)
    device = LocalDevice()
    pairs: dict[str, list[tuple[float, float]]] = {}
    for repeat in range(repeats):
        print(f"pair {repeat + 1} of {repeats}")
        python = measure_host(opened, PYTHON, 1, lambda line: None)
        (native,), _ = bench_devices(
            opened,
            [device],
            lambda facts: runners_for(facts, None, print),
            NATIVE,
            lambda line: None,
        )
        here = {row.name: row.latency for row in python.rows}
        for row in native.rows:
            other = here.get(row.name)
            if row.latency is not None and other is not None:
                pairs.setdefault(row.name, []).append((row.latency.p50_ms, other.p50_ms))
    for name, measured in pairs.items():
        there, beside = np.array(measured).T
        ratios = there / beside
        print(
            f"{name:32} runner {np.median(there):.4f} ms, Python {np.median(beside):.4f} ms, "
            f"ratio {np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})"
        )


if __name__ == "__main__":
    typer.run(main)
