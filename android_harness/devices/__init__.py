"""Where artefacts are measured: a phone over adb, or this machine, behind one interface.

`Device` is the little that both can do; everything above it is shared and neither knows nor asks
which one it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from exporter.parity import Level


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that ran to its end on the device.

    Attributes:
        code: its exit status, as the device's shell saw it.
        stdout, stderr: what it printed.
    """

    code: int
    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What a device is. None: it does not say.

    Attributes:
        kind: "android"; "local", this machine with the native runners; "host", it with the Python
            runtimes.
        serial: what adb calls it; `kind` for this machine.
        model: e.g. "Pixel 9".
        abi: in Android's words: arm64-v8a, armeabi-v7a, x86_64, x86.
        sdk: Android's API level; None on what is not Android.
        android: whether programs are bionic's.
        soc: the chip.
        build: fingerprint of the system.
        governors: of the CPUs, without repeats.
        cpu_max_khz: highest frequency of each CPU.
        free_bytes: where files go.
        emulated: why its latency says nothing about hardware; None: nothing speaks for that.
    """

    kind: str
    serial: str
    model: str | None
    abi: str
    sdk: int | None
    android: bool
    soc: str | None = None
    build: str | None = None
    governors: tuple[str, ...] = ()
    cpu_max_khz: tuple[int, ...] = ()
    free_bytes: int | None = None
    emulated: str | None = None

    @property
    def level(self) -> Level:
        """How far an artefact is checked by executing it there.

        What answers adb is a phone when its programs are Android's and nothing emulates it.
        """
        if self.kind != "android":
            return Level.HOST
        if self.android and self.emulated is None:
            return Level.DEVICE
        return Level.ARM64 if self.abi == "arm64-v8a" else Level.HOST


@dataclass(frozen=True, slots=True)
class Thermal:
    """How hot a device is. None: it does not say.

    Attributes:
        status: Android's thermal status, 0 (none) to 6 (shutdown).
        battery_c: temperature of the battery.
        zones_mc: temperatures of the CPU zones in thousandths of a degree, by name.
        max_khz: the most that the governor of each CPU allows now, by the CPU's number; those that
            are off are left out.
        charging: whether it is plugged in.
    """

    status: int | None = None
    battery_c: float | None = None
    zones_mc: dict[str, int] = field(default_factory=dict)
    max_khz: dict[int, int] = field(default_factory=dict)
    charging: bool | None = None


class Device(Protocol):
    """One machine that can execute a runner.

    Every method raises `MissingError` when the device is not there or not there any more, and
    never reports as done what it cannot know to be done.
    """

    @property
    def name(self) -> str:
        """The serial number, or "local"."""

    @property
    def folder(self) -> str:
        """The folder that is ours on the device, an absolute path; see `folder.DeviceFolder`."""

    def shell(
        self, argv: Sequence[str] | str, timeout_s: float = 60, *, tether: bool = False
    ) -> Completed:
        """Run a program to its end; a string is a shell command as it stands.

        Args:
            argv: the program and its arguments, quoted for the device's shell.
            timeout_s: after this long the device counts as lost.
            tether: keep the program's stdin open for as long as this process lives, so that it can
                see when this process is gone. Otherwise stdin is empty.

        Raises:
            MissingError: the end of the program was not seen: link dropped, device gone, timeout.
        """

    def push(self, path: Path, remote: str) -> None:
        """Copy the file `path` to `remote`; whoever asks verifies it there.

        Raises:
            MissingError: it was not copied: no space, link dropped.
        """

    def pull(self, remote: str, path: Path) -> None:
        """Copy the device's file `remote` to `path`.

        Raises:
            MissingError: it was not copied.
        """

    def facts(self) -> Facts:
        """What it is."""

    def thermal(self) -> Thermal:
        """How hot it is now."""
