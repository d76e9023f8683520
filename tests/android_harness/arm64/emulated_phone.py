"""An aarch64 "phone" on loopback: Debian's real adbd under qemu, and knobs to turn on it.

It lives in mount and process namespaces of its own: all of it is gone when its first process is,
which the kernel kills with `stop`, with this process and with the thread that started it, whatever
ends them. Its /sys, properties and services are files in `state`, which the knobs rewrite.

What it is not: a phone. adbd runs as root without SELinux; programs are glibc's; latency is that of
an emulator; ``/proc/sys/kernel/arch`` is the host's, which is how the harness sees the emulation.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final

_BOOT: Final = Path(__file__).parent / "phone" / "boot"
CORES: Final = 2
TOP_KHZ: Final = 2_400_000
START_SECONDS: Final = 20.0
STOP_SECONDS: Final = 10.0
ADB_SCANS: Final = range(5555, 5586)
"""Ports where an adb server looks for emulators by itself: a device there is listed twice."""


@dataclass(frozen=True, slots=True)
class Processor:
    """What executes the phone's programs.

    Attributes:
        qemu: what qemu calls it.
        part: number of the part, for /proc/cpuinfo.
        features: for /proc/cpuinfo; libraries choose their kernels by them.
    """

    qemu: str
    part: str
    features: str


PROCESSORS: Final = {
    "cortex-a53": Processor("cortex-a53", "0xd03", "fp asimd evtstrm aes pmull sha1 sha2 crc32"),
    # Without SME, which qemu 7.2 gets wrong: XNNPACK's int8 kernels gave nonsense with it, and the
    # right numbers under qemu 10. Pointer authentication as Arm defines it takes most of the time.
    "max": Processor(
        "max,sme=off,pauth-impdef=on",
        "0xd0b",
        "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc "
        "dcpop asimddp",
    ),
}
"""The oldest that matters, and all that qemu has, which says that it is a Cortex-A76."""


@dataclass(slots=True)
class EmulatedPhone:
    """One device. A context: started on entry, gone on exit.

    Attributes:
        root: from `phone_rootfs.ensure_rootfs`; only read.
        state: an empty folder for what this device writes and for its knobs.
        cpu: one of `PROCESSORS`.
        space_kb: size of /data/local/tmp; 0: as much as the host has.
        own_entries: see `has_own_binfmt`.
        port: where adbd listens on 127.0.0.1.
        init: the host's number of the process that all others end with.
        namespace: the kernel's name of the process namespace.
    """

    root: Path
    state: Path
    cpu: str = "cortex-a53"
    space_kb: int = 0
    own_entries: bool = True
    port: int = 0
    init: int = 0
    namespace: str = ""
    _process: subprocess.Popen[bytes] | None = None
    _properties: dict[str, str] = field(default_factory=dict)

    @property
    def serial(self) -> str:
        """What to `adb connect` to, and what adb calls it then."""
        return f"127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What adbd wrote."""
        return (self.state / "log").read_text(errors="replace")

    def __enter__(self) -> EmulatedPhone:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and wait until it accepts connections.

        Raises:
            RuntimeError: it ended or did not answer in time, with what it said.
        """
        self._write_defaults()
        self.port = _free_port()
        namespaces = ["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]
        if self.own_entries:
            namespaces = ["--user", "--map-root-user", *namespaces]
        with (self.state / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "KILL", "unshare", *namespaces, str(_BOOT)),
                    *("own" if self.own_entries else "machine", str(self.root), str(self.state)),
                    *(str(self.port), PROCESSORS[self.cpu].qemu, str(self.space_kb)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._wait_until_it_answers(self._process)
        except BaseException:
            self.stop()
            raise

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if process.poll() is not None:
                raise RuntimeError(f"the phone ended while starting: {self.log[-600:]}")
            self._find_init(process.pid)
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise RuntimeError(f"the phone did not answer in {START_SECONDS:.0f} s: {self.log[-600:]}")

    def _find_init(self, unshare: int) -> None:
        children = Path(f"/proc/{unshare}/task/{unshare}/children").read_text().split()
        if children and not self.init:
            self.init = int(children[0])
            self.namespace = _namespace(self.init)

    def stop(self) -> None:
        """Kill it with all that runs on it; returns when nothing of it is left.

        Raises:
            RuntimeError: something of it outlived its first process.
        """
        if self._process is None:
            return
        if self._process.poll() is None:
            os.kill(self.init or self._process.pid, signal.SIGKILL)
        self._process.wait(STOP_SECONDS)
        self._process, self.init = None, 0
        if left := self.processes():
            raise RuntimeError(f"processes {left} outlived the phone")

    def processes(self) -> list[int]:
        """Process numbers, on the host, of all that runs on it now."""
        pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
        return sorted(pid for pid in pids if _namespace(pid) == self.namespace)

    def programs(self) -> list[str]:
        """Command lines of what runs on it besides its init and adbd."""
        lines = [_command_line(pid) for pid in self.processes() if pid != self.init]
        return [line for line in lines if line and not line.endswith("/usr/sbin/adbd")]

    # Knobs: each takes effect at once, also while something runs.

    def set_thermal_status(self, status: int) -> None:
        """What `dumpsys thermalservice` says: 0 (none) to 6 (shutdown)."""
        self._knob("thermalservice", _THERMAL_SERVICE.format(status=status))

    def set_battery(self, *, temperature_c: float = 30.5, plugged: bool = False) -> None:
        """What `dumpsys battery` says."""
        self._knob(
            "battery",
            _BATTERY.format(tenths=round(temperature_c * 10), plugged=str(plugged).lower()),
        )

    def set_zone(self, temperature_mc: int) -> None:
        """Temperature of the only CPU zone, in thousandths of a degree."""
        self._sys("class/thermal/thermal_zone0/temp", temperature_mc)

    def set_max_khz(self, khz: int, cpus: range = range(CORES)) -> None:
        """The most that the governor allows now; a lower one is what throttling looks like."""
        for cpu in cpus:
            self._sys(f"devices/system/cpu/cpu{cpu}/cpufreq/scaling_max_freq", khz)
            self._sys(f"devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq", khz)

    def set_property(self, name: str, value: str) -> None:
        """A property that `getprop` shows."""
        self._properties[name] = value
        lines = (f"{name}={value}\n" for name, value in self._properties.items())
        self._knob("props", "".join(lines))

    def set_sdk(self, level: int) -> None:
        """Android's API level."""
        self.set_property("ro.build.version.sdk", str(level))

    def set_abi(self, abi: str) -> None:
        """What the device says its programs are."""
        self.set_property("ro.product.cpu.abi", abi)

    def remove_service(self, name: str) -> None:
        """Make `dumpsys` know nothing of thermalservice or battery."""
        (self.state / "knobs" / name).unlink()

    def reset_knobs(self) -> None:
        """Cool, unthrottled, SDK 34."""
        self._properties = {}
        for name, value in _PROPERTIES.items():
            self.set_property(name, value)
        self.set_thermal_status(0)
        self.set_battery()
        self.set_zone(38_000)
        self.set_max_khz(TOP_KHZ)

    def _write_defaults(self) -> None:
        for name in ("knobs", "sys", "data/local/tmp"):
            (self.state / name).mkdir(parents=True)
        processor = PROCESSORS[self.cpu]
        self._knob(
            "cpuinfo",
            "".join(
                _CPUINFO.format(number=n, part=processor.part, features=processor.features)
                for n in range(CORES)
            ),
        )
        for name, value in _cpu_files():
            self._sys(f"devices/system/cpu/{name}", value)
        self._sys("class/thermal/thermal_zone0/type", "cpu-0")
        self.reset_knobs()

    def _knob(self, name: str, text: str) -> None:
        """In one rename: a program on the device reads the old text or the new."""
        path = self.state / "knobs" / name
        fresh = path.with_name(f".{name}.new")
        fresh.write_text(text)
        fresh.rename(path)

    def _sys(self, name: str, value: int | str) -> None:
        path = self.state / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.new")
        fresh.write_text(f"{value}\n")
        fresh.rename(path)


def has_own_binfmt() -> bool:
    """Whether a user namespace has binfmt_misc entries of its own, so that none is added to the
    machine's: Linux 6.7 and later, where user namespaces are allowed."""
    probe = "mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc"
    asked = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", probe]
    return subprocess.run(asked, capture_output=True, timeout=10, check=False).returncode == 0


def _cpu_files() -> Iterator[tuple[str, int | str]]:
    """What XNNPACK and the harness read under /sys/devices/system/cpu."""
    everyone = f"0-{CORES - 1}"
    for name in ("possible", "present", "online"):
        yield name, everyone
    yield "kernel_max", CORES - 1
    for cpu in range(CORES):
        yield f"cpu{cpu}/topology/physical_package_id", 0
        yield f"cpu{cpu}/topology/core_id", cpu
        yield f"cpu{cpu}/topology/core_siblings_list", everyone
        yield f"cpu{cpu}/topology/thread_siblings_list", cpu
        yield f"cpu{cpu}/cpufreq/cpuinfo_max_freq", TOP_KHZ
        yield f"cpu{cpu}/cpufreq/cpuinfo_min_freq", 600_000
        yield f"cpu{cpu}/cpufreq/scaling_governor", "schedutil"


def _free_port() -> int:
    """A port that no adb server scans by itself."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port not in ADB_SCANS:
            return port


def _namespace(pid: int) -> str:
    """What tells its process namespace from others; "unseen" where that is not to be seen."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return "unseen"


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


_PROPERTIES: Final = {
    "ro.product.model": "Emulated arm64",
    "ro.product.cpu.abi": "arm64-v8a",
    "ro.build.version.sdk": "34",
    "ro.build.fingerprint": "swipe/emulated/arm64:34/test",
    "ro.soc.model": "qemu-user",
}

_CPUINFO: Final = (
    "processor\t: {number}\nBogoMIPS\t: 38.40\nFeatures\t: {features}\n"
    "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: {part}\n"
    "CPU revision\t: 4\n\n"
)

_THERMAL_SERVICE: Final = """\
IsStatusOverride: false
ThermalEventListeners:
\tcallbacks: 1
\tkilled: false
\tbroadcasts count: -1
ThermalStatusListeners:
\tcallbacks: 1
\tkilled: false
\tbroadcasts count: -1
Thermal Status: {status}
Cached temperatures:
\tTemperature{{mValue=31.4, mType=3, mName=skin, mStatus={status}}}
HAL Ready: true
HAL connection:
\tThermalHAL 2.0 connected: yes
Current temperatures from HAL:
\tTemperature{{mValue=38.0, mType=0, mName=cpu-0, mStatus=0}}
\tTemperature{{mValue=31.4, mType=3, mName=skin, mStatus={status}}}
Current cooling devices from HAL:
\tCoolingDevice{{mValue=0, mType=2, mName=cpu-throttle}}
"""

_BATTERY: Final = """\
Current Battery Service state:
  AC powered: false
  USB powered: {plugged}
  Wireless powered: false
  Max charging current: 500000
  Max charging voltage: 5000000
  Charge counter: 2871000
  status: 3
  health: 2
  present: true
  level: 83
  scale: 100
  voltage: 4105
  temperature: {tenths}
  technology: Li-ion
"""
