"""The emulated phone itself: aarch64, on loopback only, obeys its knobs, leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import phone_rootfs as rootfs
import pytest
from emulated_phone import CORES, PROCESSORS, EmulatedPhone

from android_harness.devices.adb import AdbDevice

pytestmark = pytest.mark.slow

Shell = Callable[[str], str]
HERE = Path(__file__).parent
LISTENS = "0A"
"""TCP's state LISTEN in /proc/net/tcp."""


@pytest.fixture(scope="module")
def phone(start_phone: Callable[..., EmulatedPhone]) -> EmulatedPhone:
    return start_phone(space_kb=40_000)


@pytest.fixture(scope="module")
def shell(phone: EmulatedPhone, connect: Callable[[EmulatedPhone], AdbDevice]) -> Shell:
    """A shell command on the phone; what it printed, as adb brought it."""
    device = connect(phone)

    def run(command: str) -> str:
        words = [device.adb, "-s", device.serial, "shell", command]
        done = subprocess.run(words, capture_output=True, text=True, timeout=30)
        return done.stdout + done.stderr

    return run


def test_it_is_a_real_aarch64_adbd(shell: Shell) -> None:
    assert shell("uname -m") == "aarch64\n"
    assert shell("echo $(id -u) $QEMU_CPU; exit 3") == "0 cortex-a53\n"


def test_the_emulation_shows(shell: Shell) -> None:
    assert shell("cat /proc/sys/kernel/arch") != "aarch64\n"


@pytest.mark.parametrize("cpu", sorted(PROCESSORS))
def test_the_processor_is_arms(start_phone: Callable[..., EmulatedPhone], cpu: str) -> None:
    phone = start_phone(cpu=cpu)
    seen = Path(f"/proc/{phone.init}/root{phone.root}/proc/cpuinfo").read_text()
    assert seen.count(f"CPU part\t: {PROCESSORS[cpu].part}") == CORES
    assert "GenuineIntel" not in seen
    assert "AuthenticAMD" not in seen


def test_it_listens_on_loopback_only(phone: EmulatedPhone) -> None:
    sockets = _sockets(phone)
    assert sockets
    listening, known = set(), set(_numbers("unix")) | set(_numbers("netlink"))
    for family in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{family}").read_text().splitlines()[1:]:
            columns = line.split()
            known.add(columns[9])
            if columns[9] in sockets and columns[3] == LISTENS:
                listening.add(columns[1])
    loopback = f"0000000000000000FFFF00000100007F:{phone.port:04X}"
    assert listening == {loopback}
    assert sockets <= known, "a socket that is neither TCP nor local"


def _sockets(phone: EmulatedPhone) -> set[str]:
    """Inodes of the sockets that the phone's processes hold."""
    links = [
        os.readlink(opened)
        for pid in phone.processes()
        for opened in Path(f"/proc/{pid}/fd").iterdir()
    ]
    return {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}


def _numbers(family: str) -> Iterator[str]:
    lines = Path(f"/proc/net/{family}").read_text().splitlines()
    column = lines[0].split().index("Inode")
    return (line.split()[column] for line in lines[1:])


def test_knobs_are_seen_at_once(phone: EmulatedPhone, shell: Shell) -> None:
    assert "Thermal Status: 0" in shell("dumpsys thermalservice")
    phone.set_thermal_status(3)
    phone.set_battery(temperature_c=41.2, plugged=True)
    phone.set_zone(88_000)
    phone.set_max_khz(1_200_000)
    phone.set_sdk(23)
    phone.set_abi("armeabi-v7a")
    phone.set_property("ro.product.model", "One = two")
    assert "Thermal Status: 3" in shell("dumpsys thermalservice")
    assert "temperature: 412" in shell("dumpsys battery")
    assert "USB powered: true" in shell("dumpsys battery")
    assert shell("cat /sys/class/thermal/thermal_zone0/temp") == "88000\n"
    frequency = "/sys/devices/system/cpu/cpu*/cpufreq/scaling_max_freq"
    assert shell(f"cat {frequency}") == "1200000\n" * CORES
    assert shell("getprop ro.build.version.sdk") == "23\n"
    assert shell("getprop ro.product.cpu.abi") == "armeabi-v7a\n"
    assert shell("getprop ro.product.model") == "One = two\n"
    assert "[ro.product.model]: [One = two]" in shell("getprop")
    assert shell("getprop no.such.thing") == "\n"
    assert shell("getprop no.such.thing given") == "given\n"
    phone.remove_service("battery")
    assert "Can't find service: battery" in shell("dumpsys battery")
    phone.reset_knobs()
    assert "temperature: 305" in shell("dumpsys battery")


def test_space_is_limited(shell: Shell) -> None:
    assert shell("df -k /data/local/tmp | tail -1").split()[1] == "40000"
    assert "No space left" in shell("head -c 60000000 /dev/zero >/data/local/tmp/big")
    assert shell("rm /data/local/tmp/big; df -k /data/local/tmp | tail -1").split()[3] == "40000"


def test_its_own_files_are_read_only(shell: Shell) -> None:
    assert "Read-only" in shell("touch /system/bin/new")


def test_stopped_it_is_gone(start_phone: Callable[..., EmulatedPhone]) -> None:
    phone = start_phone()
    assert len(phone.processes()) >= 2
    mounts = Path("/proc/self/mounts").read_text()
    phone.stop()
    assert phone.processes() == []
    assert Path("/proc/self/mounts").read_text() == mounts
    assert str(phone.root) not in mounts
    phone.stop()


HOST = """
import sys, time
from pathlib import Path
sys.path.insert(0, {here!r})
from emulated_phone import EmulatedPhone
with EmulatedPhone(Path({root!r}), Path({state!r}), own_entries={own}) as phone:
    print(phone.init, flush=True)
    time.sleep(60)
"""


def _host(root: Path, state: Path, own: bool) -> str:
    return HOST.format(here=str(HERE), root=str(root), state=str(state), own=own)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_it_ends_with_whoever_started_it(
    phone_rootfs: Path, own_entries: bool, tmp_path: Path, how: signal.Signals
) -> None:
    command = [sys.executable, "-c", _host(phone_rootfs, tmp_path, own_entries)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as host:
        assert host.stdout is not None
        init = int(host.stdout.readline())
        own = os.readlink(f"/proc/{init}/ns/pid")
        host.send_signal(how)
        host.wait(60)
    end = time.monotonic() + 60
    while _members(own) and time.monotonic() < end:
        time.sleep(0.05)
    assert _members(own) == []


def _members(namespace: str) -> list[str]:
    """Processes of the namespace; the dead that wait for their parent are none."""
    seen = EmulatedPhone(Path(), Path(), namespace=namespace)
    return [str(pid) for pid in seen.processes()]


@pytest.mark.parametrize("own", [True, False])
def test_entries_that_lead_elsewhere_do_no_harm(
    phone_rootfs: Path, own_entries: bool, tmp_path: Path, own: bool
) -> None:
    """A machine on which arm64 programs were already given to something, here to one that fails."""
    if not own_entries:
        pytest.skip("this kernel has one binfmt_misc for all: it is not tampered with")
    magic = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    script = (
        "cd /proc/sys/fs/binfmt_misc && mount -t binfmt_misc binfmt_misc $PWD && "
        f"printf '%s' ':qemu-aarch64:M::{magic}::/bin/false:' >$PWD/register && "
        f'! {phone_rootfs}/usr/bin/toybox && "$0" -c "$1"'
    )
    host = _host(phone_rootfs, tmp_path, own)
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    done = subprocess.run(
        [*command, sys.executable, host.replace("time.sleep(60)", "print(len(phone.processes()))")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[1]) >= 2


def test_a_dead_phone_says_why(phone_rootfs: Path, own_entries: bool, tmp_path: Path) -> None:
    phone = EmulatedPhone(tmp_path / "no-such-root", tmp_path, own_entries=own_entries)
    with pytest.raises(RuntimeError, match="no-such-root"):
        phone.start()
    assert phone.processes() == []


@pytest.mark.parametrize(("ci", "outcome"), [("true", "1 error"), ("", "1 skipped")])
def test_without_its_programs_ci_fails_and_others_skip_loudly(
    tmp_path: Path, ci: str, outcome: str
) -> None:
    case = f"{__file__}::test_the_processor_is_arms[max]"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", case]
    environment = {**os.environ, "PATH": str(tmp_path), "CI": ci}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert outcome in done.stdout
    assert "NOT TESTED: nothing is executed on aarch64" in done.stdout
    assert "qemu-aarch64-static" in done.stdout


def test_the_files_are_built_once(phone_rootfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert rootfs.ensure_rootfs() == phone_rootfs


def test_a_failed_build_leaves_nothing_to_be_used(
    phone_rootfs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    fails = tmp_path / "bin" / "mmdebstrap"
    fails.parent.mkdir()
    fails.write_text("#!/bin/sh\nfor folder; do mkdir -p /dev/null/$folder; done\nexit 4\n")
    fails.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fails.parent}:{os.environ['PATH']}")
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"mmdebstrap failed \(4\)"):
            rootfs.ensure_rootfs()
    assert not [entry for entry in tmp_path.rglob("arm64-*") if entry.is_dir()]


def test_a_folder_of_somebody_elses_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "other").mkdir()
    (tmp_path / f"swipe-export-phone-{os.getuid()}").symlink_to(tmp_path / "other")
    with pytest.raises(PermissionError, match="not ours"):
        rootfs.ensure_rootfs()
