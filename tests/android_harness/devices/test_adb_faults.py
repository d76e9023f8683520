"""Every fault of a device or its link ends in an error that says what to do, and in no result."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from standin import Faults, StandIn

from android_harness.devices.adb import AdbDevice
from android_harness.devices.discovery import choose
from android_harness.devices.folder import DeviceFolder
from swipe.errors import GateError, MissingError, SwipeError

Start = Callable[..., StandIn]
Reach = Callable[[StandIn], AdbDevice]

SIZE = 2_000_000
RUN = "echo swiping; sleep 1; echo done"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Something of a few packets to push."""
    path = tmp_path / "model.onnx"
    path.write_bytes(os.urandom(SIZE))
    return path


@pytest.mark.parametrize(
    ("faults", "state", "fix"),
    [
        (Faults(unauthorized=True), "unauthorized", "accept this computer's key"),
        (Faults(offline=True), "offline", "plug it in again"),
        (Faults(recovery=True), "recovery", "start Android on it"),
    ],
)
def test_a_device_that_takes_no_commands_is_refused(
    standin: Start, reach: Reach, adb: Path, faults: Faults, state: str, fix: str
) -> None:
    phone = standin(faults)
    with pytest.raises(MissingError, match=f"it cannot be used: {state}") as error:
        choose(adb, [phone.serial])
    assert fix in error.value.fix
    if not faults.recovery:
        with pytest.raises(MissingError, match="was not seen") as error:
            reach(phone).shell("echo hello")
        assert fix in error.value.fix


@pytest.mark.parametrize("shell_v2", [True, False])
@pytest.mark.parametrize("gone", [True, False])
def test_a_link_that_drops_in_a_command_gives_no_result(
    standin: Start, reach: Reach, shell_v2: bool, gone: bool
) -> None:
    phone = standin(
        Faults(shell_v2=shell_v2, drop_in_command="swiping", drop_after_s=0.3, gone=gone)
    )
    device = reach(phone)
    with pytest.raises(MissingError, match=r"the end of `echo swiping; .* was not seen"):
        device.shell(RUN)


@pytest.mark.parametrize("shell_v2", [True, False])
@pytest.mark.parametrize("after", [0, 17, 28, 43])
def test_output_that_is_cut_is_no_result_though_adb_says_success(
    standin: Start, reach: Reach, shell_v2: bool, after: int
) -> None:
    whole = len("0123456789abcdef\nswiping\n0123456789abcdef:0\n")
    assert after < whole
    device = reach(standin(Faults(shell_v2=shell_v2, cut_command="swiping", cut_after=after)))
    with pytest.raises(MissingError, match="was not seen"):
        device.shell("echo swiping")
    assert device.shell("echo whole").stdout == "whole\n"


@pytest.mark.parametrize("after", [1, SIZE // 2, SIZE])
def test_a_link_that_drops_in_a_push_leaves_nothing_that_counts(
    standin: Start, reach: Reach, file: Path, after: int
) -> None:
    phone = standin(Faults(drop_after_pushed=after))
    folder = DeviceFolder(reach(phone))
    with pytest.raises(SwipeError), folder.lock():
        folder.ensure_file(file)
    left = list(Path(phone.folder, "files").rglob("*"))
    assert not any(path.name == file.name for path in left)


def test_after_a_drop_the_next_run_is_whole(
    standin: Start, reach: Reach, file: Path, eventually: Callable[..., None]
) -> None:
    phone = standin(Faults(drop_after_pushed=SIZE // 2))
    folder = DeviceFolder(reach(phone))
    with pytest.raises(MissingError, match=r"model\.onnx was not pushed"), folder.lock():
        folder.ensure_file(file)
    phone.faults = Faults()
    eventually(lambda: ready(folder.device))
    eventually(lambda: age_s(phone, "lock/owner") > 1)
    with folder.lock(stale_s=1):
        remote = folder.ensure_file(file)
        folder.prune()
    assert Path(remote).read_bytes() == file.read_bytes()
    assert [path.name for path in Path(remote).parent.iterdir()] == [file.name]


def ready(device: AdbDevice) -> bool:
    """Whether a device answers, after its link was cut: adb connects again by itself."""
    try:
        return device.shell("echo hello").stdout == "hello\n"
    except MissingError:
        return False


def age_s(phone: StandIn, name: str) -> int:
    """Age of a file of the device's folder in seconds of its clock, which counts whole ones."""
    return int(time.time()) - int(Path(phone.folder, name).stat().st_mtime)


@pytest.mark.parametrize("after", [1, SIZE // 2])
def test_a_link_that_drops_in_a_pull_leaves_no_file(
    standin: Start, reach: Reach, file: Path, tmp_path: Path, after: int
) -> None:
    phone = standin(Faults(drop_after_pulled=after))
    device = reach(phone)
    device.push(file, f"{device.folder}/outputs")
    with pytest.raises(MissingError, match="outputs was not pulled"):
        device.pull(f"{device.folder}/outputs", tmp_path / "outputs")
    assert not (tmp_path / "outputs").exists()
    assert not list(tmp_path.glob(".outputs*"))


def test_a_full_disk_is_told(standin: Start, reach: Reach, file: Path) -> None:
    phone = standin(Faults(full_after=SIZE // 3))
    folder = DeviceFolder(reach(phone))
    with pytest.raises(MissingError, match="No space left on device"), folder.lock():
        folder.ensure_file(file)


def test_a_flipped_byte_is_found(standin: Start, reach: Reach, file: Path) -> None:
    phone = standin(Faults(corrupt="model.onnx"))
    folder = DeviceFolder(reach(phone))
    with pytest.raises(GateError, match=r"model\.onnx arrived damaged"), folder.lock():
        folder.ensure_file(file)
    assert not [path for path in Path(phone.folder, "files").rglob("*") if path.is_file()]


@pytest.mark.parametrize("hidden", [("sha256sum",), ("sha256sum", "sha1sum")])
def test_without_sha256sum_a_flipped_byte_is_found_by_another_digest(
    standin: Start, reach: Reach, file: Path, hidden: tuple[str, ...]
) -> None:
    phone = standin(Faults(hidden=hidden))
    folder = DeviceFolder(reach(phone))
    with folder.lock():
        remote = folder.ensure_file(file)
        assert Path(remote).read_bytes() == file.read_bytes()
        Path(remote).unlink()
        phone.faults = Faults(hidden=hidden, corrupt="model.onnx")
        with pytest.raises(GateError, match="arrived damaged"):
            folder.ensure_file(file)


def test_without_any_digest_nothing_is_pushed(standin: Start, reach: Reach, file: Path) -> None:
    phone = standin(Faults(hidden=("sha256sum", "sha1sum", "md5sum")))
    folder = DeviceFolder(reach(phone))
    with pytest.raises(MissingError, match="cannot be verified"), folder.lock():
        folder.ensure_file(file)
    assert phone.pushed == []


@pytest.mark.slow
def test_a_slow_link_is_waited_for(standin: Start, reach: Reach, file: Path) -> None:
    phone = standin(Faults(bytes_per_s=SIZE / 1.5))
    folder = DeviceFolder(reach(phone))
    with folder.lock():
        remote = folder.ensure_file(file)
    assert Path(remote).read_bytes() == file.read_bytes()


@pytest.mark.slow
def test_a_link_that_is_too_slow_is_lost(
    standin: Start, reach: Reach, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("android_harness.devices.adb.LEAST_TRANSFER_SECONDS", 0.5)
    monkeypatch.setattr("android_harness.devices.adb.LEAST_BYTES_PER_SECOND", SIZE)
    phone = standin(Faults(bytes_per_s=SIZE / 60))
    with pytest.raises(MissingError, match=r"model\.onnx was not pushed within"):
        reach(phone).push(file, f"{phone.folder}/model.onnx")
