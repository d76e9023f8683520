"""Whether a device is good enough to be measured at all: version, processor, space."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from android_harness.devices import Facts
from swipe.errors import MissingError

LEAST_SDK: Final = 24
"""Android 7: from there on adb's shell tells the streams and the exit status apart."""
ABIS: Final = ("arm64-v8a", "x86_64")


def require_usable(facts: Facts, *, need_bytes: int = 0, abis: Collection[str] = ABIS) -> None:
    """Check that a runner can be placed and started on a device.

    Args:
        facts: of the device.
        need_bytes: what will be pushed. A device that does not tell its free space is not refused:
            the push itself fails when there is too little.
        abis: those that there are runners for.

    Raises:
        MissingError: its Android is too old, its processor is another, or its space is too small.
    """
    name = f"{facts.model or 'the device'} ({facts.serial})"
    if facts.abi not in abis:
        raise MissingError(
            f"{name} executes {facts.abi}, and runners are there for {', '.join(abis)}",
            fix="use a device with one of these; 32-bit phones are not supported",
        )
    if facts.android and facts.sdk is None:
        raise MissingError(
            f"{name} does not say its version of Android",
            fix="see what `adb shell getprop ro.build.version.sdk` prints",
        )
    if facts.sdk is not None and not (facts.sdk >= LEAST_SDK):
        raise MissingError(
            f"{name} has Android's API level {facts.sdk}, at least {LEAST_SDK} (Android 7) is "
            "needed",
            fix="use a device with Android 7 or newer",
        )
    if facts.free_bytes is not None and not (need_bytes <= facts.free_bytes):
        raise MissingError(
            f"{name} has {facts.free_bytes / 1e6:.0f} MB free, {need_bytes / 1e6:.0f} MB are "
            "needed",
            fix="free some space; `swipe-bench --device android --clean` removes our own folder",
        )
