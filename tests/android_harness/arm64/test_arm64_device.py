"""`AdbDevice` and `DeviceFolder` over a real adbd, on a device that is aarch64."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from emulated_phone import CORES, TOP_KHZ, EmulatedPhone

from android_harness.devices.adb import AdbDevice
from android_harness.devices.discovery import choose, list_devices
from android_harness.devices.folder import DeviceFolder
from android_harness.devices.requirements import require_usable
from exporter.parity import Level
from swipe.errors import MissingError

pytestmark = pytest.mark.slow

SPACE_KB = 30_000


@pytest.fixture(scope="module")
def phone(start_phone: Callable[..., EmulatedPhone]) -> EmulatedPhone:
    return start_phone(space_kb=SPACE_KB)


@pytest.fixture(scope="module")
def device(phone: EmulatedPhone, connect: Callable[[EmulatedPhone], AdbDevice]) -> AdbDevice:
    return connect(phone)


@pytest.fixture
def folder(device: AdbDevice) -> DeviceFolder:
    return DeviceFolder(device)


def test_adb_lists_it_once(device: AdbDevice) -> None:
    assert [listed.serial for listed in list_devices(device.adb)].count(device.serial) == 1
    (chosen,) = choose(device.adb, [device.serial])
    assert chosen.state == "device"


def test_facts_are_the_phones_and_the_emulation_is_seen(device: AdbDevice) -> None:
    facts = device.facts()
    assert (facts.kind, facts.abi, facts.sdk) == ("android", "arm64-v8a", 34)
    assert facts.model == "Emulated arm64"
    assert not facts.android
    assert facts.emulated is not None
    assert facts.level is Level.ARM64
    assert facts.governors == ("schedutil",)
    assert facts.cpu_max_khz == (TOP_KHZ,) * CORES
    assert facts.free_bytes is not None
    assert 0 < facts.free_bytes <= SPACE_KB * 1024
    require_usable(facts, need_bytes=facts.free_bytes)


@pytest.mark.parametrize(
    ("lacking", "said"),
    [("android", "API level 23"), ("processor", "executes armeabi-v7a"), ("space", "MB free")],
)
def test_a_phone_that_cannot_be_used_is_refused(
    phone: EmulatedPhone, device: AdbDevice, lacking: str, said: str
) -> None:
    if lacking == "android":
        phone.set_sdk(23)
    if lacking == "processor":
        phone.set_abi("armeabi-v7a")
    need_bytes = SPACE_KB * 1024 + 1 if lacking == "space" else 0
    try:
        with pytest.raises(MissingError, match=said):
            require_usable(device.facts(), need_bytes=need_bytes)
    finally:
        phone.reset_knobs()


def test_heat_is_seen(phone: EmulatedPhone, device: AdbDevice) -> None:
    cool = device.thermal()
    assert (cool.status, cool.battery_c, cool.charging) == (0, 30.5, False)
    assert dict(cool.zones_mc) == {"cpu-0": 38_000}
    assert cool.max_khz == dict.fromkeys(range(CORES), TOP_KHZ)
    phone.set_thermal_status(3)
    phone.set_battery(temperature_c=41.2, plugged=True)
    phone.set_zone(91_500)
    phone.set_max_khz(1_200_000, range(1, CORES))
    hot = device.thermal()
    assert (hot.status, hot.battery_c, hot.charging) == (3, 41.2, True)
    assert dict(hot.zones_mc) == {"cpu-0": 91_500}
    assert hot.max_khz == {0: TOP_KHZ, 1: 1_200_000}
    phone.remove_service("thermalservice")
    phone.remove_service("battery")
    silent = device.thermal()
    assert (silent.status, silent.battery_c, silent.charging) == (None, None, None)
    phone.reset_knobs()
    assert device.thermal() == cool


def test_files_arrive_whole_and_once(folder: DeviceFolder, tmp_path: Path) -> None:
    content = os.urandom(3_000_001)
    source, back = tmp_path / "model.onnx", tmp_path / "back"
    source.write_bytes(content)
    with folder.lock():
        remote = folder.ensure_file(source)
        stamp = folder.device.shell(["stat", "-c", "%Y.%i", remote]).stdout
        assert folder.ensure_file(source) == remote
        assert folder.device.shell(["stat", "-c", "%Y.%i", remote]).stdout == stamp
        folder.device.shell(f"echo x >>{remote}")
        assert folder.ensure_file(source) == remote
        folder.device.pull(remote, back)
    assert back.read_bytes() == content


def test_a_full_disk_leaves_no_file_that_counts(folder: DeviceFolder, tmp_path: Path) -> None:
    big = tmp_path / "big.onnx"
    big.write_bytes(os.urandom(1000 * (SPACE_KB + 5_000)))
    with folder.lock():
        with pytest.raises(MissingError):
            folder.ensure_file(big)
        left = folder.device.shell(f"find {folder.path}/files -name big.onnx").stdout
        assert left == ""
        folder.prune()
    facts = folder.device.facts()
    require_usable(facts, need_bytes=(SPACE_KB - 8_000) * 1024)


def test_the_second_host_is_told_who_holds_the_lock(folder: DeviceFolder) -> None:
    with (
        folder.lock(),
        pytest.raises(MissingError, match=f"in use.*process {os.getpid()}"),
        folder.lock(),
    ):
        pytest.fail("two hosts hold it")
    with folder.lock():
        pass


def test_our_folder_is_removed_and_nothing_else(folder: DeviceFolder) -> None:
    with folder.lock():
        folder.device.shell("touch /data/local/tmp/others")
    assert folder.clean()
    assert not folder.clean()
    assert folder.device.shell("ls -A /data/local/tmp").stdout.split() == ["others"]


def test_a_program_is_gone_with_the_host_that_tethered_it(
    phone: EmulatedPhone, device: AdbDevice
) -> None:
    """A program that reads its stdin, as the runners do, ends when the host is killed."""
    source = (
        "from pathlib import Path\n"
        "from android_harness.devices.adb import AdbDevice\n"
        f"device = AdbDevice({device.serial!r}, Path({str(device.adb)!r}))\n"
        "device.shell('exec cat', tether=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", source]) as host:
        _wait_for(lambda: any(" cat" in line for line in phone.programs()))
        host.send_signal(signal.SIGKILL)
    _wait_for(lambda: phone.programs() == [])


def _wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.05)


def test_a_phone_that_dies_in_mid_command_is_an_error(
    start_phone: Callable[..., EmulatedPhone], connect: Callable[[EmulatedPhone], AdbDevice]
) -> None:
    phone = start_phone()
    device = connect(phone)
    assert device.shell(["true"]).code == 0
    with (
        subprocess.Popen(["sh", "-c", f"sleep 1; kill -9 {phone.init}"]),
        pytest.raises(MissingError, match="was not seen"),
    ):
        device.shell("echo begun; sleep 60")
    with pytest.raises(MissingError):
        device.facts()
