"""Find the adb program, and the devices that it sees; each obstacle says what to do next.

The program: the one that was named (``--adb``), ``$ADB``, the PATH, ``$ANDROID_HOME``'s
platform-tools, and last the one that the ``adbutils`` wheel carries (extra ``android``). A program
that was named and is not there is an error: no other one takes its place unasked.

What it leaves out: connecting over Wi-Fi (``adb pair`` and ``adb connect`` are the user's), and
what a device is (`readings`).
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from android_harness.devices.process import run
from swipe.errors import MissingError, UsageError

READY: Final = "device"
LIST_SECONDS: Final = 30.0
"""Starting adb's server takes a few seconds on a slow machine."""

_STATES: Final = (
    "device|offline|unauthorized|authorizing|connecting|bootloader|recovery|sideload|rescue|host"
    "|detached|unknown|no permissions|no device"
)
_LINE: Final = re.compile(rf"(?P<serial>\S.*?)\s+(?P<state>{_STATES})(?P<rest>[\s(;].*)?")
_PLUG: Final = (
    "plug in a phone with USB debugging on (Settings > Developer options), or reach one by Wi-Fi "
    "with `adb pair` and `adb connect`; `adb devices -l` then lists it"
)
_UNREADY: Final = {
    "unauthorized": "unlock its screen and accept this computer's key; when nothing is asked there,"
    " `adb kill-server` and plug it in again",
    "authorizing": "wait a moment and run this again",
    "connecting": "wait a moment and run this again",
    "offline": "plug it in again or switch it on; `adb reconnect offline` helps by Wi-Fi",
    "no permissions": "give your user access to USB devices (Debian: package "
    "android-sdk-platform-tools-common, then log in again), and `adb kill-server`",
}
_NOT_STARTED: Final = "start Android on it (`adb reboot`), and run this again"


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of ``adb devices -l``.

    Attributes:
        serial: what adb calls it.
        state: "device" when it can be used.
        model: as adb spells it, e.g. "Pixel_9"; None where it does not know.
    """

    serial: str
    state: str
    model: str | None

    def __str__(self) -> str:
        return f"{self.serial} ({self.model if self.model and self.state == READY else self.state})"


def find_adb(asked: str | None = None) -> Path:
    """The adb program.

    Args:
        asked: a path or name that the user gave.

    Raises:
        MissingError: there is none, or not where it was said to be.
    """
    for origin, named in (("--adb", asked), ("$ADB", os.environ.get("ADB"))):
        if named:
            found = shutil.which(named)
            if found is None:
                raise MissingError(
                    f"{origin} names {named}, and no such program is there",
                    fix="name the adb program itself, or leave that away to have it looked for",
                )
            return Path(found)
    for candidate in _candidates():
        found = shutil.which(candidate)
        if found is not None:
            return Path(found)
    raise MissingError(
        "the adb program is not on this machine",
        fix="install Android's platform-tools (Debian and Ubuntu: apt install adb; macOS: brew "
        "install android-platform-tools), or pip install 'swipe-export[android]'",
    )


def _candidates() -> list[str | Path]:
    """Where adb may be when nobody says so, best first."""
    homes = [os.environ.get(name) for name in ("ANDROID_HOME", "ANDROID_SDK_ROOT")]
    candidates: list[str | Path] = ["adb"]
    candidates += [Path(home, "platform-tools", "adb") for home in homes if home]
    wheel = importlib.util.find_spec("adbutils")
    if wheel is not None and wheel.origin is not None:
        candidates.append(Path(wheel.origin).parent / "binaries" / "adb")
    return candidates


def list_devices(adb: Path) -> list[Listed]:
    """What adb sees, ready or not; starts its server where none runs.

    Raises:
        MissingError: the program cannot be started, fails, or does not answer.
    """
    try:
        done = run([adb, "devices", "-l"], LIST_SECONDS)
    except OSError as error:
        raise MissingError(
            f"{adb} cannot be started: {error.strerror}", fix="name another one with --adb"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise MissingError(
            f"{adb} gave no list of devices within {LIST_SECONDS:.0f} s",
            fix="`adb kill-server`, and run this again",
        ) from error
    if done.code != 0:
        said = (done.stderr or done.stdout).strip()
        raise MissingError(
            f"{adb} cannot list devices: {said.splitlines()[-1] if said else 'it says nothing'}",
            fix="`adb kill-server` and `adb devices` show what is wrong",
        )
    return parse_devices(done.stdout)


def parse_devices(text: str) -> list[Listed]:
    """The devices in the output of ``adb devices -l``; lines of another form say nothing of any."""
    listed = []
    for line in text.splitlines():
        if line.startswith(("*", "List of devices", "adb server")):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is not None:
            model = re.search(r"\bmodel:(\S+)", match["rest"] or "")
            listed.append(Listed(match["serial"], match["state"], model and model[1]))
    return listed


def choose(adb: Path, serials: Sequence[str] = ()) -> list[Listed]:
    """The devices to use: those named, or the only one there is.

    Raises:
        UsageError: one was named twice.
        MissingError: there is none, or several and none was named, or one is not there or not
            ready.
    """
    twice = sorted({serial for serial in serials if serials.count(serial) > 1})
    if twice:
        raise UsageError(f"--serial {twice[0]} was given twice", fix="name each device once")
    listed = list_devices(adb)
    if not listed:
        raise MissingError("adb sees no device", fix=_PLUG)
    if not serials and len(listed) > 1:
        raise MissingError(
            f"adb sees {len(listed)} devices: {', '.join(map(str, listed))}",
            fix=f"say which: --serial {listed[0].serial}; several may be named",
        )
    chosen = [_named(serial, listed) for serial in serials] or listed
    for device in chosen:
        require_ready(device)
    return chosen


def _named(serial: str, listed: Sequence[Listed]) -> Listed:
    for device in listed:
        if device.serial == serial:
            return device
    raise MissingError(
        f"adb sees no device {serial}, only {', '.join(map(str, listed))}",
        fix="name one of these with --serial, or plug that one in",
    )


def require_ready(device: Listed) -> None:
    """Check that `device` takes commands.

    Raises:
        MissingError: it does not; the mend is its state's.
    """
    if device.state != READY:
        raise MissingError(
            f"adb sees {device.serial}, but it cannot be used: {device.state}",
            fix=mend(device.state),
        )


def mend(state: str | None) -> str:
    """What helps a device that does not do what it was told, in this state; None: not listed."""
    if state is None:
        return _PLUG
    if state == READY:
        return "see what adb said, check the cable or the Wi-Fi, and run this again"
    return _UNREADY.get(state, _NOT_STARTED)
