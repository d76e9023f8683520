"""A private adb server for this session, and stand-in devices that it sees."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from standin import Faults, StandIn

from android_harness.devices.adb import AdbDevice


@pytest.fixture(scope="session")
def adb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The adb program, with a server and keys of this session; CI must have it, a user may not."""
    found = shutil.which("adb")
    if found is None:
        message = "adb is not on this machine: everything over adb stays untested here"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
        patch.delenv("ANDROID_SERIAL", raising=False)
        # Keys are the server's business: only it is given another home.
        away = {**os.environ, "HOME": str(tmp_path_factory.mktemp("adb-home"))}
        starting = [found, "start-server"]
        subprocess.run(starting, check=True, capture_output=True, timeout=60, env=away)
        yield Path(found)
        subprocess.run([found, "kill-server"], check=True, capture_output=True, timeout=60)


@pytest.fixture
def standin(adb: Path, tmp_path: Path) -> Iterator[Callable[..., StandIn]]:
    """Start stand-ins that adb is connected to; all are stopped at the end of the test."""
    with ExitStack() as running:

        def start(faults: Faults | None = None) -> StandIn:
            name = f"device{len(list(tmp_path.glob('device*')))}"
            device = running.enter_context(StandIn(tmp_path / name, faults))
            running.callback(_adb, adb, "disconnect", device.serial)
            with suppress(subprocess.TimeoutExpired):  # adb waits 10 s for one that is offline
                _adb(adb, "connect", device.serial, timeout_s=1 if device.faults.offline else 60)
            return device

        yield start


@pytest.fixture
def reach(adb: Path) -> Callable[[StandIn], AdbDevice]:
    """The device that a stand-in is to the harness."""
    return lambda device: AdbDevice(device.serial, adb, device.folder, device.sysfs)


def _adb(adb: Path, *arguments: str, timeout_s: float = 60) -> None:
    subprocess.run([adb, *arguments], check=True, capture_output=True, timeout=timeout_s)
