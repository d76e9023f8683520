"""This machine as a device, and programs of this machine that end with us."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from standin import StandIn

from android_harness.devices.local import LocalDevice
from android_harness.devices.process import run
from exporter.cache import default_folder
from exporter.parity import Level
from swipe.errors import MissingError, UsageError

Eventually = Callable[[Callable[[], bool]], None]
Processes = Callable[..., list[int]]

WAIT = """
import sys
from pathlib import Path
from android_harness.devices.adb import AdbDevice
from android_harness.devices.local import LocalDevice
from android_harness.devices.process import run
device = AdbDevice(sys.argv[2], Path(sys.argv[3])) if sys.argv[2:] else LocalDevice()
device.shell(sys.argv[1], tether=True)
"""
"""A host that waits for a command."""

TETHERED = ": {}; while read -r line; do :; done"
DEAF = ": {}; sleep 20; true"


def test_commands_keep_their_words_streams_and_exit_status() -> None:
    device = LocalDevice()
    assert device.name == "local"
    words = ["a b", "it's", '"q"', "$HOME", "*", "", "ü"]
    assert device.shell(["printf", "%s|", *words]).stdout == "".join(f"{w}|" for w in words)
    done = device.shell("echo out; echo err >&2; exit 7")
    assert (done.code, done.stdout, done.stderr) == (7, "out\n", "err\n")
    assert device.shell("cat").stdout == ""
    assert device.shell("kill -9 $$").code == 137
    assert device.shell("printf '\\377'").stdout == "\N{REPLACEMENT CHARACTER}"


def test_its_folder_is_in_the_cache_unless_named(tmp_path: Path) -> None:
    assert LocalDevice().folder == str(default_folder() / "device")
    assert LocalDevice(str(tmp_path)).folder == str(tmp_path)


def test_files_are_copied_and_what_cannot_be_is_told(tmp_path: Path) -> None:
    device = LocalDevice(str(tmp_path / "device"))
    sent, back = tmp_path / "sent", tmp_path / "back"
    sent.write_bytes(os.urandom(100_001))
    remote = f"{device.folder}/files/it's"
    device.push(sent, remote)
    device.pull(remote, back)
    assert back.read_bytes() == sent.read_bytes()
    with pytest.raises(MissingError, match="absent is not there"):
        device.pull(f"{device.folder}/absent", back)
    with pytest.raises(MissingError, match="was not copied"):
        device.push(sent, f"{sent}/below a file")
    with pytest.raises(UsageError, match="cannot write"):
        device.pull(remote, sent / "below a file")


def test_it_says_what_this_machine_is() -> None:
    device = LocalDevice()
    facts, thermal = device.facts(), device.thermal()
    assert (facts.kind, facts.serial, facts.sdk, facts.android) == ("local", "local", None, False)
    machine = {"x86_64": "x86_64", "aarch64": "arm64-v8a", "arm64": "arm64-v8a"}
    assert facts.abi == machine[os.uname().machine]
    disk = os.statvfs("/" if not default_folder().exists() else default_folder())
    assert facts.free_bytes == pytest.approx(disk.f_bavail * disk.f_frsize, rel=0.2)
    assert facts.level is Level.HOST
    assert (thermal.status, thermal.battery_c) == (None, None)


def test_a_tethered_program_has_an_open_stdin_while_we_wait() -> None:
    device = LocalDevice()
    wait = "read -r line; echo over"
    assert device.shell(wait).stdout == "over\n"
    with pytest.raises(MissingError, match="did not end within 0 s"):
        device.shell(wait, timeout_s=0.3, tether=True)


def test_a_timeout_ends_all_that_was_started(processes: Processes, eventually: Eventually) -> None:
    tag = f"sleep 61.{os.getpid()}"
    with pytest.raises(MissingError, match="did not end"):
        LocalDevice().shell(f"{tag} & {tag}; true", timeout_s=0.5)
    eventually(lambda: not processes(tag))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whatever_ends_a_host_ends_its_adb_and_a_program_that_watches_its_tether(
    standin: Callable[..., StandIn],
    adb: Path,
    host: Callable[..., subprocess.Popen[str]],
    processes: Processes,
    eventually: Eventually,
    how: signal.Signals,
) -> None:
    phone = standin()
    tag = f"swipe{how}x{os.getpid()}"
    process = host(WAIT, TETHERED.format(tag), phone.serial, adb)
    eventually(lambda: len(processes(tag)) == 4)  # the host, adb, the device's shell, its command
    process.send_signal(how)
    assert process.wait(timeout=10) != 0
    eventually(lambda: not processes(tag))


def test_an_interrupt_ends_adb_though_the_command_goes_on(
    standin: Callable[..., StandIn],
    adb: Path,
    host: Callable[..., subprocess.Popen[str]],
    processes: Processes,
    eventually: Eventually,
) -> None:
    phone = standin()
    tag = f"swipedeaf{os.getpid()}"
    process = host(WAIT, DEAF.format(tag), phone.serial, adb)
    eventually(lambda: len(processes(tag)) == 4)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) != 0
    assert not processes(tag, "adb")


def test_an_interrupt_ends_what_a_local_host_started(
    host: Callable[..., subprocess.Popen[str]], processes: Processes, eventually: Eventually
) -> None:
    tag = f"swipelocal{os.getpid()}"
    process = host(WAIT, DEAF.format(tag))
    eventually(lambda: len(processes(tag)) >= 2)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) != 0
    eventually(lambda: not processes(tag))


def test_an_interrupt_while_a_program_is_started_ends_it(
    monkeypatch: pytest.MonkeyPatch, processes: Processes
) -> None:
    tag = f"62.{os.getpid()}"

    class Interrupted(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(["sleep", tag], 60)
    assert not processes(f"sleep {tag}")
