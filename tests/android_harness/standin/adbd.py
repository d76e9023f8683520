"""The stand-in itself: it listens on loopback, and has a small Android around its shell.

Commands run on this machine, with a PATH that holds only `TOOLS` and scripts for ``getprop`` and
``dumpsys``, whose answers are the files of its `Knobs`.
"""

from __future__ import annotations

import shutil
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from standin.faults import Faults
from standin.shell import Shell
from standin.sync import Sync
from standin.wire import CLSE, OKAY, Connection, Stream

TOOLS: Final = (
    "cat chmod cp cut date df echo env false find grep head id kill ln ls md5sum mkdir mv nproc "
    "printf ps pwd readlink rm rmdir sed sh sha1sum sha256sum sleep sort stat tail test touch "
    "tr true uname wc xargs"
)
_GETPROP: Final = """#!/bin/sh
exec 2>/dev/null
cat "{knobs}/props/$1" || echo
"""
_DUMPSYS: Final = """#!/bin/sh
cat "{knobs}/dumpsys/$1" 2>/dev/null || echo "Can't find service: $1"
"""


class Knobs:
    """What the stand-in says of itself; each can be turned while it runs.

    Args:
        folder: where the answers are kept; ``sys`` in it is a small sysfs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.property("ro.product.model", "Stand-in")
        self.property("ro.product.cpu.abi", "x86_64")
        self.property("ro.build.version.sdk", "34")
        self.thermal_status(0)
        self.battery_c(25.0)
        for cpu in range(2):
            self._write(f"sys/devices/system/cpu/cpu{cpu}/cpufreq/cpuinfo_max_freq", "2400000")
            self._write(f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor", "schedutil")
        self.max_khz(2_400_000)
        self._write("sys/class/thermal/thermal_zone0/type", "cpu-0-0")
        self.zone_mc(38_000)

    def property(self, name: str, value: str) -> None:
        """What getprop says."""
        self._write(f"props/{name}", value)

    def dumpsys(self, service: str, text: str) -> None:
        """What ``dumpsys service`` prints."""
        self._write(f"dumpsys/{service}", text)

    def thermal_status(self, status: int) -> None:
        """Android's thermal status."""
        self.dumpsys("thermalservice", f"IsStatusOverride: false\nThermal Status: {status}")

    def battery_c(self, degrees: float, *, charging: bool = True) -> None:
        """Temperature of the battery, and whether it is plugged in."""
        self.dumpsys(
            "battery",
            "Current Battery Service state:\n  AC powered: false\n"
            f"  USB powered: {str(charging).lower()}\n  present: true\n"
            f"  level: 80\n  temperature: {round(degrees * 10)}",
        )

    def zone_mc(self, thousandths: int) -> None:
        """Temperature of the CPU."""
        self._write("sys/class/thermal/thermal_zone0/temp", str(thousandths))

    def max_khz(self, khz: int) -> None:
        """The most that the governor allows, on both CPUs."""
        for cpu in range(2):
            self._write(f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_max_freq", str(khz))

    def _write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


class StandIn:
    """A device on loopback; a context manager that listens while it is entered.

    Args:
        root: an empty folder of its own.
        faults: what goes wrong; may be replaced at any time.
    """

    def __init__(self, root: Path, faults: Faults | None = None) -> None:
        self.root = root
        self.faults = faults or Faults()
        self.knobs = Knobs(root / "knobs")
        self.pushed: list[str] = []
        self.commands: list[str] = []
        self._connections: list[Connection] = []
        self._shells: list[tuple[Shell, threading.Thread]] = []
        self._fill_path()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]

    @property
    def serial(self) -> str:
        """What adb calls it."""
        return f"127.0.0.1:{self.port}"

    @property
    def folder(self) -> str:
        """A folder on it that is not there yet."""
        return str(self.root / "data" / "swipe-bench")

    @property
    def sysfs(self) -> str:
        """Where its own sysfs is."""
        return str(self.knobs.folder / "sys")

    def __enter__(self) -> Self:
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for connection in self._connections:
            connection.drop()
        for shell, thread in self._shells:
            shell.kill()
            thread.join()

    def _fill_path(self) -> None:
        (self.root / "bin").mkdir(parents=True)
        (self.root / "data").mkdir()
        for name, text in (("getprop", _GETPROP), ("dumpsys", _DUMPSYS)):
            script = self.root / "bin" / name
            script.write_text(text.format(knobs=self.knobs.folder))
            script.chmod(0o755)
        for tool in TOOLS.split():
            there = shutil.which(tool)
            if there is None:
                raise AssertionError(f"{tool} is not on this machine")
            if tool not in self.faults.hidden:
                (self.root / "bin" / tool).symlink_to(there)

    def _listen(self) -> None:
        while True:
            try:
                link, _ = self._server.accept()
            except OSError:
                return
            if self.faults.gone and self._connections:
                link.close()
                continue
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(link, self._banner(), not self.faults.unauthorized, self._serve)
            self._connections.append(connection)
            threading.Thread(target=connection.run, daemon=True).start()

    def _banner(self) -> bytes | None:
        if self.faults.offline:
            return None
        kind = "recovery" if self.faults.recovery else "device"
        features = "shell_v2" if self.faults.shell_v2 else ""
        return f"{kind}::ro.product.model=Stand-in;features={features}".encode()

    def _serve(self, stream: Stream, service: str) -> None:
        name, _, argument = service.partition(":")
        kind, *flags = name.split(",")
        if kind == "shell":
            stream.connection.send(OKAY, stream.here, stream.there)
            self.commands.append(argument)
            environment = {"PATH": str(self.root / "bin"), "HOME": str(self.root / "data")}
            packets = "v2" in flags
            folder = self.root / "data"
            shell = Shell(stream, argument, packets, self.faults, environment, folder)
            self._shells.append((shell, threading.current_thread()))
            shell.run()
        elif kind == "sync":
            stream.connection.send(OKAY, stream.here, stream.there)
            Sync(stream, self.faults, self.pushed.append).run()
        else:
            stream.connection.send(CLSE, 0, stream.there)
