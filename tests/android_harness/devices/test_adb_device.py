"""A healthy device over the real adb: commands, files, facts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from standin import Faults, StandIn

from android_harness.devices.adb import AdbDevice
from swipe.errors import MissingError

Start = Callable[..., StandIn]
Reach = Callable[[StandIn], AdbDevice]


@pytest.mark.parametrize("shell_v2", [True, False])
@pytest.mark.parametrize("junk", [True, False])
def test_commands_keep_their_words_streams_and_exit_status(
    standin: Start, reach: Reach, shell_v2: bool, junk: bool
) -> None:
    device = reach(standin(Faults(shell_v2=shell_v2, junk=junk)))
    words = ["printf", "%s|", "a b", "it's", '"q"', "$HOME", "*", "", "back\\slash", "ü", "# no"]
    done = device.shell(words)
    assert (done.code, done.stdout) == (0, "".join(f"{word}|" for word in words[2:]))
    done = device.shell("echo out; echo err >&2; exit 7")
    assert done.code == 7
    assert (done.stdout, done.stderr) == (("out\n", "err\n") if shell_v2 else ("out\nerr\n", ""))
    assert device.shell("cat").stdout == "", "stdin is empty"
    assert device.shell("kill -9 $$").code == 137
    assert device.shell("this is (no command").code != 0


@pytest.mark.parametrize("shell_v2", [True, False])
def test_files_come_and_go_whole(
    standin: Start, reach: Reach, tmp_path: Path, shell_v2: bool
) -> None:
    device = reach(standin(Faults(shell_v2=shell_v2)))
    sent, back = tmp_path / "sent", tmp_path / "back"
    sent.write_bytes(os.urandom(300_001))
    remote = f"{device.folder}/new folder/it's"
    device.push(sent, remote)
    device.pull(remote, back)
    assert back.read_bytes() == sent.read_bytes()
    sent.write_bytes(b"")
    device.push(sent, remote)
    device.pull(remote, back)
    assert back.read_bytes() == b""
    with pytest.raises(MissingError, match="absent cannot be read"):
        device.pull(f"{device.folder}/absent", back)
    assert back.read_bytes() == b"", "what was there stays"


def test_facts_and_readings_are_the_devices(standin: Start, reach: Reach) -> None:
    phone = standin()
    device = reach(phone)
    facts = device.facts()
    assert (facts.kind, facts.serial, facts.model) == ("android", phone.serial, "Stand-in")
    assert (facts.abi, facts.sdk, facts.android) == ("x86_64", 34, False)
    assert facts.cpu_max_khz == (2_400_000, 2_400_000)
    assert facts.governors == ("schedutil",)
    free = os.statvfs(phone.root)
    assert facts.free_bytes == pytest.approx(free.f_bavail * free.f_frsize, rel=0.2)
    cool = device.thermal()
    assert (cool.status, cool.battery_c, cool.charging) == (0, 25.0, True)
    assert cool.zones_mc == {"cpu-0-0": 38_000}
    phone.knobs.thermal_status(3)
    phone.knobs.battery_c(41.7, charging=False)
    phone.knobs.zone_mc(91_500)
    phone.knobs.max_khz(1_100_000)
    hot = device.thermal()
    assert (hot.status, hot.battery_c, hot.charging) == (3, 41.7, False)
    assert hot.zones_mc == {"cpu-0-0": 91_500}
    assert hot.max_khz == {0: 1_100_000, 1: 1_100_000}
    assert all(len(command.encode()) < 4096 for command in phone.commands), "one message each"


def test_a_tethered_program_has_an_open_stdin_while_we_wait(standin: Start, reach: Reach) -> None:
    device = reach(standin())
    wait = "read -r line; echo over"
    assert device.shell(wait).stdout == "over\n"
    with pytest.raises(MissingError, match="the end of `read -r line; echo over` was not seen"):
        device.shell(wait, timeout_s=1, tether=True)
    assert device.shell("echo it goes on", tether=True).stdout == "it goes on\n"


def test_after_a_timeout_no_adb_of_ours_stays(
    standin: Start, reach: Reach, children: Callable[[], list[str]]
) -> None:
    device = reach(standin())
    before = children()
    start = time.monotonic()
    with pytest.raises(MissingError, match="was not seen within 1 s") as error:
        device.shell("sleep 60", timeout_s=1)
    assert "check the cable" in error.value.fix
    assert time.monotonic() - start < 50
    assert children() == before


def test_an_adb_that_cannot_be_started_is_named(reach: Reach, tmp_path: Path) -> None:
    program = tmp_path / "adb"
    program.write_bytes(b"\x7fELF of another machine")
    program.chmod(0o755)
    with pytest.raises(MissingError, match="cannot be started: Exec format error"):
        AdbDevice("serial", program).shell("true")
