"""A program that measures two devices side by side: one over adb, and this machine.

The command does not put these two beside each other, and one machine has no two stand-ins with
folders of their own to offer it.

    python side_by_side.py BUNDLE SERIAL FOLDER ADB
"""

from __future__ import annotations

from pathlib import Path

from android_harness.artefacts import open_bundle
from android_harness.bench import bench_devices
from android_harness.devices.adb import AdbDevice
from android_harness.devices.local import LocalDevice
from android_harness.measurement import DevicePlan
from android_harness.runners.selection import runners_for
from swipe.console import console, make_app, run

app = make_app("Measure two devices.")


@app.command()
def measure(bundle: Path, serial: str, folder: str, adb: Path) -> None:
    """With rounds so long that they have to be interrupted."""
    bench_devices(
        open_bundle(bundle, None, console.print),
        [AdbDevice(serial, adb, folder), LocalDevice()],
        lambda facts: runners_for(facts, None, console.print),
        DevicePlan(rounds=1, min_secs=50.0),
        console.print,
    )


if __name__ == "__main__":
    run(app)
