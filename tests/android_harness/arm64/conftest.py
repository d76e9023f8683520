"""The emulated phone as fixtures; where it cannot be had, CI fails and others skip loudly."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import pytest
from emulated_phone import EmulatedPhone, has_own_binfmt
from phone_rootfs import PROGRAMS, ensure_rootfs

from android_harness.devices.adb import AdbDevice

StartPhone = Callable[..., EmulatedPhone]


@pytest.fixture(scope="session")
def phone_rootfs() -> Path:
    """The device's files, shared by all test processes."""
    needed = (*PROGRAMS, "adb", "mount", "setpriv", "unshare")
    missing = [name for name in needed if not shutil.which(name)]
    if missing:
        _unavailable(f"these programs are missing: {', '.join(missing)}")
    if os.getuid() != 0:
        _unavailable("it needs root")
    tried = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True, text=True
    )
    if tried.returncode != 0:
        _unavailable(f"this root may not have namespaces of its own: {tried.stderr.strip()}")
    try:
        return ensure_rootfs()
    except RuntimeError as error:
        _unavailable(str(error))


def _unavailable(reason: str) -> NoReturn:
    message = f"NOT TESTED: nothing is executed on aarch64. No emulated phone: {reason}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def own_entries(phone_rootfs: Path) -> bool:
    """Whether phones leave the machine's binfmt_misc alone."""
    return has_own_binfmt()


@pytest.fixture(scope="module")
def start_phone(
    phone_rootfs: Path, own_entries: bool, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StartPhone]:
    """Starts a phone, with the options of `EmulatedPhone`, that ends with the module."""
    with ExitStack() as phones:

        def start(**options: object) -> EmulatedPhone:
            given = {"own_entries": own_entries, **options}
            state = tmp_path_factory.mktemp("phone")
            return phones.enter_context(EmulatedPhone(phone_rootfs, state, **given))

        yield start


@pytest.fixture(scope="module")
def connect(adb: Path) -> Iterator[Callable[[EmulatedPhone], AdbDevice]]:
    """Make a phone known to adb, until the module's end."""
    serials = []

    def connected(phone: EmulatedPhone) -> AdbDevice:
        done = subprocess.run(
            [adb, "connect", phone.serial], capture_output=True, text=True, timeout=30, check=True
        )
        assert done.stdout.startswith("connected to"), done.stdout
        serials.append(phone.serial)
        return AdbDevice(phone.serial, adb)

    yield connected
    for serial in serials:
        subprocess.run([adb, "disconnect", serial], capture_output=True, timeout=30, check=True)
