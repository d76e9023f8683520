"""Finding adb and choosing devices: every obstacle has an error and a mend of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standin import Faults, StandIn

from android_harness.devices.discovery import (
    Listed,
    choose,
    find_adb,
    list_devices,
    parse_devices,
)
from swipe.errors import MissingError, UsageError

Script = Callable[[str], Path]

LISTING = """\
* daemon not running; starting now at tcp:5037
* daemon started successfully
adb server version (40) doesn't match this client (41); killing...
List of devices attached
R5CT20XYZAB            device usb:1-4 product:a52qnsxx model:SM_A525F device:a52q transport_id:2
emulator-5554          device product:sdk_gphone64_x86_64 model:sdk_gphone64_x86_64 transport_id:1
192.168.1.7:5555       offline transport_id:7
0A041FDD40012X         unauthorized usb:3-1 transport_id:9
0A041FDD40013X         authorizing transport_id:10
adb-0A04-Qd5cxl (2)._adb-tls-connect._tcp device product:husky model:Pixel_8_Pro device:husky
????????????           no permissions (user in plugdev group; are your udev rules wrong?); \
see [http://developer.android.com/tools/device.html] usb:1-2 transport_id:3
082f59270073e1e3       no permissions; see [http://developer.android.com/tools/device.html]
HT7A1                  recovery usb:1-5 product:marlin model:Pixel_XL device:marlin
FA6B                   sideload

"""


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """A program that prints what an adb prints, for states that need a cable."""

    def write(body: str) -> Path:
        program = tmp_path / "adb"
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
        return program

    return write


def listing(script: Script, *lines: str) -> Path:
    """An adb whose list of devices is `lines`."""
    body = "\n".join(("List of devices attached", *lines, ""))
    return script(f"[ \"$*\" = 'devices -l' ] || exit 9\ncat <<'E'\n{body}\nE")


def test_every_form_of_a_line_is_read() -> None:
    assert parse_devices(LISTING) == [
        Listed("R5CT20XYZAB", "device", "SM_A525F"),
        Listed("emulator-5554", "device", "sdk_gphone64_x86_64"),
        Listed("192.168.1.7:5555", "offline", None),
        Listed("0A041FDD40012X", "unauthorized", None),
        Listed("0A041FDD40013X", "authorizing", None),
        Listed("adb-0A04-Qd5cxl (2)._adb-tls-connect._tcp", "device", "Pixel_8_Pro"),
        Listed("????????????", "no permissions", None),
        Listed("082f59270073e1e3", "no permissions", None),
        Listed("HT7A1", "recovery", "Pixel_XL"),
        Listed("FA6B", "sideload", None),
    ]


@given(st.text())
def test_no_text_breaks_the_list(text: str) -> None:
    for device in parse_devices(text):
        assert device.serial
        assert device.state


def test_what_the_user_names_comes_first(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = script("true")
    on_path = tmp_path / "bin" / "adb"
    in_sdk = tmp_path / "sdk" / "platform-tools" / "adb"
    for program in (on_path, in_sdk):
        program.parent.mkdir(parents=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(on_path.parent))
    monkeypatch.setenv("ANDROID_HOME", str(tmp_path / "sdk"))
    monkeypatch.setenv("ADB", str(in_sdk))
    assert find_adb(str(named)) == named
    assert find_adb() == in_sdk
    monkeypatch.delenv("ADB")
    assert find_adb() == on_path
    monkeypatch.setenv("PATH", str(tmp_path))
    named.unlink()
    assert find_adb() == in_sdk
    monkeypatch.delenv("ANDROID_HOME")
    monkeypatch.setenv("ANDROID_SDK_ROOT", str(tmp_path / "sdk"))
    assert find_adb() == in_sdk


@pytest.mark.parametrize("variable", [None, "ADB"])
def test_an_adb_that_is_named_and_not_there_is_not_replaced(
    script: Script, monkeypatch: pytest.MonkeyPatch, variable: str | None
) -> None:
    monkeypatch.setenv("PATH", str(script("true").parent))
    if variable is not None:
        monkeypatch.setenv(variable, "/nowhere/adb")
    origin = rf"\${variable}" if variable else "--adb"
    with pytest.raises(MissingError, match=f"{origin} names /nowhere/adb"):
        find_adb(None if variable else "/nowhere/adb")


def test_the_wheel_is_the_last_resort_and_without_it_the_mend_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ADB", "ANDROID_HOME", "ANDROID_SDK_ROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(
        sys, "path", [folder for folder in sys.path if not Path(folder, "adbutils").is_dir()]
    )
    with pytest.raises(MissingError, match="not on this machine") as error:
        find_adb()
    assert "swipe-export[android]" in error.value.fix
    program = tmp_path / "site" / "adbutils" / "binaries" / "adb"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    (tmp_path / "site" / "adbutils" / "__init__.py").write_text("raise ImportError('too heavy')\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert find_adb() == program


def test_no_device_says_how_to_get_one(script: Script) -> None:
    with pytest.raises(MissingError, match="adb sees no device") as error:
        choose(listing(script))
    assert "USB debugging" in error.value.fix


def test_several_devices_must_be_told_apart(script: Script) -> None:
    adb = listing(script, "A  device model:One", "B  unauthorized", "C  device")
    told = r"3 devices: A \(One\), B \(unauthorized\), C \(device\)"
    with pytest.raises(MissingError, match=told) as error:
        choose(adb)
    assert "--serial A" in error.value.fix
    assert [device.serial for device in choose(adb, ["C", "A"])] == ["C", "A"]
    with pytest.raises(UsageError, match="--serial A was given twice"):
        choose(adb, ["A", "C", "A"])


def test_a_device_that_is_not_there_is_told_with_those_that_are(script: Script) -> None:
    with pytest.raises(MissingError, match=r"no device B, only A \(One\)") as error:
        choose(listing(script, "A  device model:One"), ["B"])
    assert "--serial" in error.value.fix
    with pytest.raises(MissingError, match="no device"):
        choose(listing(script), ["B"])


def test_each_state_has_its_own_mend(script: Script) -> None:
    mends = set()
    for state, mend in (
        ("unauthorized", "accept this computer's key"),
        ("authorizing", "wait a moment"),
        ("offline", "plug it in again"),
        ("no permissions (udev rules); see [page]", "access to USB devices"),
        ("sideload", "start Android on it"),
    ):
        with pytest.raises(MissingError, match=r"cannot be used: (\w+ ?)+$") as error:
            choose(listing(script, f"A  {state} usb:1-1"))
        assert mend in error.value.fix
        mends.add(error.value.fix)
    assert len(mends) == 5


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("echo 'cannot bind: Address in use' >&2; exit 1", "cannot bind: Address in use"),
        ("exit 1", "it says nothing"),
    ],
)
def test_an_adb_that_fails_is_told(script: Script, body: str, told: str) -> None:
    with pytest.raises(MissingError, match=told) as error:
        list_devices(script(body))
    assert "adb kill-server" in error.value.fix


def test_an_adb_that_hangs_is_left(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("android_harness.devices.discovery.LIST_SECONDS", 0.3)
    with pytest.raises(MissingError, match="gave no list"):
        list_devices(script("exec sleep 60"))


def test_an_adb_of_another_machine_is_told(script: Script) -> None:
    program = script("true")
    program.write_bytes(b"\x7fELF")
    with pytest.raises(MissingError, match="cannot be started"):
        list_devices(program)
    os.remove(program)
    with pytest.raises(MissingError, match="cannot be started"):
        list_devices(program)


def test_the_real_adb_lists_real_devices(standin: Callable[..., StandIn], adb: Path) -> None:
    phone, silent = standin(), standin(Faults(unauthorized=True))
    assert choose(adb, [phone.serial]) == [Listed(phone.serial, "device", "Stand_in")]
    found = {device.serial: device.state for device in list_devices(adb)}
    assert (found[phone.serial], found[silent.serial]) == ("device", "unauthorized")
    with pytest.raises(MissingError, match=r"adb sees [2-9] devices"):
        choose(adb)
