"""A phone, through the ``adb`` program.

adb's own exit status is worth nothing: adb 29 leaves with 0 when the link drops in the middle of a
command, and so does every adb for a device without ``shell_v2``. So each command is framed by a
random tag that the device's shell prints before it, and again with the exit status after it; what
comes without the second tag did not happen. Files are compared by size on both sides; whether
their bytes are right is `folder`'s to see.

What it leaves out: which devices there are (`discovery`), what they say of themselves (`readings`).
"""

from __future__ import annotations

import re
import secrets
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from android_harness.devices import Completed, Facts, Thermal
from android_harness.devices.discovery import list_devices, mend
from android_harness.devices.process import run
from android_harness.devices.readings import (
    facts_script,
    parse_facts,
    parse_thermal,
    thermal_script,
)
from swipe.errors import MissingError
from swipe.files import replacing

FOLDER: Final = "/data/local/tmp/swipe-bench"
READINGS_SECONDS: Final = 60.0
"""``dumpsys`` of a busy phone takes seconds."""
LEAST_TRANSFER_SECONDS: Final = 60.0
LEAST_BYTES_PER_SECOND: Final = 100_000
"""A slower link than this counts as lost."""


@dataclass(frozen=True, slots=True)
class AdbDevice:
    """A device that adb knows; see `devices.Device` for the methods.

    Attributes:
        serial: what adb calls it.
        adb: the program.
        folder: the folder that is ours there.
        sysfs: where its kernel shows itself.
    """

    serial: str
    adb: Path
    folder: str = FOLDER
    sysfs: str = "/sys"

    @property
    def name(self) -> str:
        """The serial number."""
        return self.serial

    def shell(
        self, argv: Sequence[str] | str, timeout_s: float = 60, *, tether: bool = False
    ) -> Completed:
        """Run a program to its end, see `devices.Device.shell`.

        A device without ``shell_v2`` prints both streams into one: stdout.
        """
        command = argv if isinstance(argv, str) else shlex.join(argv)
        tag = secrets.token_hex(8)
        stdin = "" if tether else " </dev/null"
        framed = f"echo {tag}; sh -c {shlex.quote(command)}{stdin}; echo {tag}:$?"
        missed = f"the end of `{_brief(command)}` was not seen"
        done = self._adb(["shell", framed], timeout_s, missed, tether=tether)
        match = re.search(rf"{tag}\n(.*){tag}:([0-9]+)\n", done.stdout, re.DOTALL)
        if match is None:
            raise self._lost(missed, done)
        return Completed(int(match[2]), match[1], done.stderr)

    def push(self, path: Path, remote: str) -> None:
        """Copy a file there, and compare sizes."""
        size = path.stat().st_size
        missed = f"{path.name} was not pushed"
        done = self._adb(["push", str(path), remote], _transfer_seconds(size), missed)
        if done.code != 0:
            raise self._lost(missed, done)
        arrived = self._size(remote)
        if arrived != size:
            raise MissingError(
                f"{self.serial}: of {size} bytes of {path.name} {arrived} arrived",
                fix="free some space there, check the cable, and run this again",
            )

    def pull(self, remote: str, path: Path) -> None:
        """Copy a file from there, and compare sizes; `path` is replaced whole or not at all."""
        size = self._size(remote)
        missed = f"{remote} was not pulled"
        with replacing(path) as temporary:
            done = self._adb(["pull", remote, str(temporary)], _transfer_seconds(size), missed)
            if done.code != 0:
                raise self._lost(missed, done)
            arrived = temporary.stat().st_size
            if arrived != size:
                raise MissingError(
                    f"{self.serial}: of {size} bytes of {remote} {arrived} arrived",
                    fix="check the cable or the Wi-Fi, and run this again",
                )

    def facts(self) -> Facts:
        """What it is."""
        done = self.shell(facts_script(self.folder, self.sysfs), READINGS_SECONDS)
        return parse_facts(done.stdout, "android", self.serial)

    def thermal(self) -> Thermal:
        """How hot it is now."""
        return parse_thermal(self.shell(thermal_script(self.sysfs), READINGS_SECONDS).stdout)

    def _size(self, remote: str) -> int:
        done = self.shell(f"wc -c <{shlex.quote(remote)}")
        if done.code != 0 or not re.fullmatch(r"\s*[0-9]+\s*", done.stdout):
            said = (done.stderr or done.stdout).strip()
            raise MissingError(
                f"{self.serial}: {remote} cannot be read: {said}",
                fix="run this again; nothing of it was used",
            )
        return int(done.stdout)

    def _adb(
        self, arguments: Sequence[str], timeout_s: float, missed: str, *, tether: bool = False
    ) -> Completed:
        """One start of adb; `missed` says what did not happen when it takes too long."""
        try:
            done = run([self.adb, "-s", self.serial, *arguments], timeout_s, tether=tether)
        except OSError as error:
            raise MissingError(
                f"{self.adb} cannot be started: {error.strerror}", fix="name another with --adb"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise MissingError(
                f"{self.serial}: {missed} within {timeout_s:.0f} s",
                fix="wake it up, check the cable or the Wi-Fi, and run this again",
            ) from error
        # A device without shell_v2 has a terminal's line ends.
        return replace(done, stdout=done.stdout.replace("\r\n", "\n"))

    def _lost(self, missed: str, done: Completed) -> MissingError:
        """What to tell when something did not happen; the state of the device says what helps."""
        states = [device.state for device in list_devices(self.adb) if device.serial == self.serial]
        reason = _reason(done.stderr) or _reason(done.stdout)
        return MissingError(
            f"{self.serial}: {missed}" + (f" ({reason})" if reason else ""),
            fix=f"{mend(states[0] if states else None)}; nothing of this run is used",
        )


def _brief(command: str) -> str:
    """A command in so many words as fit into a message."""
    words = " ".join(command.split())
    return words if len(words) <= 80 else words[:77] + "..."


def _reason(said: str) -> str:
    """The line of adb's output that says why; a summary of what it did may come after it."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line or "failed" in line]
    return (errors or lines or [""])[-1]


def _transfer_seconds(size_bytes: int) -> float:
    return LEAST_TRANSFER_SECONDS + size_bytes / LEAST_BYTES_PER_SECOND
