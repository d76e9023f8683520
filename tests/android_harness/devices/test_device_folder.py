"""The folder on a device: pushed once and proven, locked, rid of what dead hosts left, removed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from standin import Faults, StandIn

from android_harness.devices import Completed, Device
from android_harness.devices.adb import AdbDevice
from android_harness.devices.folder import MARKER, UNUSED_DAYS, DeviceFolder, Killed
from android_harness.devices.local import LocalDevice
from android_harness.devices.lock import take
from swipe.errors import MissingError, UsageError

Start = Callable[..., StandIn]
Reach = Callable[[StandIn], AdbDevice]
Eventually = Callable[[Callable[[], bool]], None]
NONCE = "5ca1ab1e5ca1ab1e"

HOST = """
import sys, time
from pathlib import Path
from android_harness.devices.adb import AdbDevice
from android_harness.devices.folder import DeviceFolder
serial, adb, folder, nonce, program = sys.argv[1:]
device = AdbDevice(serial, Path(adb), folder)
own = DeviceFolder(device)
with own.lock(stale_s=3):
    run = own.new_run(nonce)
    print("locked", flush=True)
    command = f"echo $$ >{run}/pid && exec sh -c '{program}' runner --nonce {nonce}"
    print(device.shell(command, timeout_s=60, tether=True), flush=True)
"""
"""A host that starts `program` as a runner is started."""

TETHERED = "while read -r line; do :; done"
DEAF = 'trap "" HUP; while :; do sleep 1; done'
"""A runner that neither looks at its stdin nor ends by itself."""


@pytest.fixture(params=["adb", "local"])
def device(request: pytest.FixtureRequest, tmp_path: Path) -> Device:
    """Each kind of device in turn, with a folder that is not there yet."""
    if request.param == "local":
        return LocalDevice(str(tmp_path / "cache" / "a device"))
    start, reach = request.getfixturevalue("standin"), request.getfixturevalue("reach")
    reached: AdbDevice = reach(start())
    return reached


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file to push."""
    path = tmp_path / "model.onnx"
    path.write_bytes(os.urandom(200_000))
    return path


def test_a_file_is_pushed_once_and_repaired_when_damaged(
    standin: Start, reach: Reach, model: Path
) -> None:
    phone = standin()
    folder = DeviceFolder(reach(phone))
    with folder.lock():
        remote = Path(folder.ensure_file(model))
        assert remote.read_bytes() == model.read_bytes()
        assert remote.parent.parent == Path(phone.folder, "files")
        assert len(phone.pushed) == 1
        assert folder.ensure_file(model) == str(remote)
        assert len(phone.pushed) == 1, "what is there is not pushed again"
        for damage in (b"", remote.read_bytes()[:-1], b"\0" + remote.read_bytes()[1:]):
            remote.write_bytes(damage)
            pushed = len(phone.pushed)
            assert folder.ensure_file(model) == str(remote)
            assert remote.read_bytes() == model.read_bytes()
            assert len(phone.pushed) == pushed + 1
        model.write_bytes(b"another")
        assert folder.ensure_file(model) != str(remote)


def test_a_set_holds_its_files_by_their_names_and_can_be_executed(
    device: Device, tmp_path: Path, model: Path
) -> None:
    program = tmp_path / "hello.sh"
    program.write_text("#!/bin/sh\ncat ./libmodel.so | wc -c\n")
    folder = DeviceFolder(device)
    with folder.lock():
        there = folder.ensure_set({"hello": program, "libmodel.so": model})
        assert sorted(os.listdir(there)) == ["hello", "libmodel.so"]
        assert device.shell(f"cd '{there}' && ./hello").stdout.strip() == "200000"
        assert folder.ensure_set({"libmodel.so": model, "hello": program}) == there
        assert folder.ensure_set({"hello": program}) != there
        Path(there, "libmodel.so").unlink()
        assert folder.ensure_set({"hello": program, "libmodel.so": model}) == there
        assert Path(there, "libmodel.so").read_bytes() == model.read_bytes()


@pytest.mark.parametrize("name", ["../up", "a b", "-rf", "", "a'b", "$(ls)"])
def test_a_name_that_the_shell_would_read_is_refused(
    device: Device, model: Path, name: str
) -> None:
    with pytest.raises(UsageError, match="cannot be pushed under its name"):
        DeviceFolder(device).ensure_set({name: model})


@pytest.mark.parametrize("path", ["", "/", "/data", "data/x", "/data/../x", "/data/x/", "/a/b\nc"])
def test_a_folder_that_cannot_be_ours_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match="cannot be our folder"):
        DeviceFolder(LocalDevice(path))


def test_runs_are_made_once_and_pruned(device: Device, model: Path) -> None:
    folder = DeviceFolder(device)
    with folder.lock():
        first, second = folder.new_run(NONCE), folder.new_run("0" * 16)
        Path(first, "result.json").write_text("{}")
        with pytest.raises(MissingError, match="File exists"):
            folder.new_run(NONCE)
        remote = Path(folder.ensure_file(model))
        part = remote.with_name("model.onnx.part-12345678")
        part.write_bytes(b"half")
        folder.prune(keep=["0" * 16])
        assert not Path(first).exists()
        assert Path(second).is_dir()
        assert not part.exists()
        assert remote.is_file()


def test_what_nobody_used_for_long_is_removed_and_what_is_used_stays(
    device: Device, model: Path, tmp_path: Path
) -> None:
    folder = DeviceFolder(device)
    forgotten = tmp_path / "forgotten.onnx"
    forgotten.write_bytes(b"of a model long gone")
    with folder.lock():
        kept, gone = Path(folder.ensure_file(model)), Path(folder.ensure_file(forgotten))
        runner = Path(folder.ensure_set({"runner": model}), "runner")
        for path in (kept, gone, runner):
            long_ago = path.stat().st_mtime - (UNUSED_DAYS + 2) * 86_400
            os.utime(path.parent, (long_ago, long_ago))
        folder.ensure_file(model)
        folder.prune()
    assert kept.read_bytes() == model.read_bytes()
    assert not gone.parent.exists()
    assert not runner.parent.exists()


def test_clean_removes_the_folder_and_only_that(device: Device, model: Path) -> None:
    folder = DeviceFolder(device)
    neighbour = Path(device.folder).parent / "neighbour"
    with folder.lock():
        folder.ensure_file(model)
    neighbour.write_text("not ours")
    assert folder.clean()
    assert not Path(device.folder).exists()
    assert neighbour.read_text() == "not ours"
    assert not folder.clean(), "there is none any more"


def test_a_removal_that_was_cut_can_be_repeated(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows in which order a folder's entries are removed: here hidden ones go first."""
    device = LocalDevice(str(tmp_path / "device"))
    folder = DeviceFolder(device)
    with folder.lock():
        pushed = Path(folder.ensure_file(model))
    cut = tmp_path / "bin" / "rm"
    cut.parent.mkdir()
    cut.write_text('#!/bin/sh\nfor last; do :; done\n/bin/rm -f "$last"/.[!.]*\nexit 1\n')
    cut.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(cut.parent), prepend=":")
        with pytest.raises(MissingError, match="cannot be used"):
            folder.clean()
    assert pushed.is_file()
    shutil.rmtree(Path(device.folder, "lock"))
    assert folder.clean()
    assert not Path(device.folder).exists()


def test_a_folder_of_something_else_is_neither_used_nor_removed(device: Device) -> None:
    photos = Path(device.folder, "photos")
    photos.mkdir(parents=True)
    folder = DeviceFolder(device)
    with pytest.raises(UsageError, match="not a folder of ours"):
        folder.clean()
    with pytest.raises(UsageError, match="not a folder of ours"), folder.lock():
        pytest.fail("it was taken")
    assert photos.is_dir()
    photos.rmdir()
    with folder.lock():
        assert Path(device.folder, MARKER).is_file()


def test_the_second_host_is_told_who_holds_the_lock(
    standin: Start, reach: Reach, host: Callable[..., subprocess.Popen[str]], adb: Path
) -> None:
    phone = standin()
    other = host(HOST, phone.serial, adb, phone.folder, NONCE, TETHERED)
    assert other.stdout is not None
    assert other.stdout.readline() == "locked\n"
    folder = DeviceFolder(reach(phone))
    told = rf"in use by another run \(host \S+, process {other.pid}, seen [0-9]+ s ago\)"
    with pytest.raises(MissingError, match=told) as error, folder.lock():
        pytest.fail("two hosted it")
    assert "taken over after 120 s" in error.value.fix
    with pytest.raises(MissingError, match=told):
        folder.clean()
    assert Path(phone.folder, MARKER).is_file()


@pytest.mark.slow
def test_a_killed_host_leaves_nothing_running_and_its_lock_is_taken_over(
    standin: Start,
    reach: Reach,
    host: Callable[..., subprocess.Popen[str]],
    adb: Path,
    processes: Callable[[str], list[int]],
    eventually: Eventually,
) -> None:
    phone = standin()
    other = host(HOST, phone.serial, adb, phone.folder, NONCE, TETHERED)
    pid = Path(phone.folder, "runs", NONCE, "pid")
    eventually(lambda: pid.is_file() and pid.read_text().strip().isdigit())
    runner = int(pid.read_text())
    assert runner in processes(f"--nonce {NONCE}")
    other.kill()
    other.wait()
    folder = DeviceFolder(reach(phone))
    with pytest.raises(MissingError, match=f"process {other.pid}"), folder.lock(stale_s=3):
        pytest.fail("it is not stale yet")
    eventually(lambda: not processes(f"--nonce {NONCE}"))
    taken = take_over(folder, 3, eventually)
    assert f" {other.pid}" in taken
    with folder.lock():
        assert folder.stale_run_cleanup() == [], "its runner had seen its end"
        folder.prune()
        assert not pid.parent.exists()


def take_over(folder: DeviceFolder, stale_s: int, eventually: Eventually) -> str:
    """Wait until the lock can be had; whose it was."""
    owners: list[str | None] = []

    def can_be_had() -> bool:
        try:
            with folder.lock(stale_s) as lock:
                owners.append(lock.taken_from)
        except MissingError:
            return False
        return True

    eventually(can_be_had)
    assert owners[0] is not None, "it was not free"
    return owners[0]


@pytest.mark.slow
def test_a_runner_that_outlives_its_host_is_killed_by_the_next(
    standin: Start,
    reach: Reach,
    host: Callable[..., subprocess.Popen[str]],
    adb: Path,
    processes: Callable[[str], list[int]],
    eventually: Eventually,
) -> None:
    phone = standin()
    other = host(HOST, phone.serial, adb, phone.folder, NONCE, DEAF.replace('"', '\\"'))
    pid = Path(phone.folder, "runs", NONCE, "pid")
    eventually(lambda: pid.is_file() and pid.read_text().strip().isdigit())
    runner = int(pid.read_text())
    other.kill()
    other.wait()
    folder = DeviceFolder(reach(phone))
    take_over(folder, 1, eventually)
    assert runner in processes(f"--nonce {NONCE}")
    bystander = folder.device.folder + "/runs/0000000000000000"
    Path(bystander).mkdir()
    Path(bystander, "pid").write_text(f"{os.getpid()}\n")
    Path(phone.folder, "runs", "1111111111111111").mkdir()
    Path(phone.folder, "runs", "1111111111111111", "pid").write_text("1; rm -rf /\n")
    with folder.lock(stale_s=1):
        assert folder.stale_run_cleanup() == [Killed(runner, NONCE)]
        assert runner not in processes(f"--nonce {NONCE}")
        assert folder.stale_run_cleanup() == []


def steal(device: Device) -> None:
    """Do to our lock what another host does after our link was down for long."""
    Path(device.folder, "lock", "owner").write_text("feedfacefeedface another-host 1\n")


def hold_and_lose(device: Device) -> None:
    """Hold the lock well beyond its age, then lose it."""
    folder = DeviceFolder(device)
    with folder.lock(stale_s=2) as lock:
        device.shell("sleep 3.2")
        with pytest.raises(MissingError, match="in use by"), folder.lock(stale_s=2):
            pytest.fail("it was kept fresh")
        lock.require()
        steal(device)
        with pytest.raises(MissingError, match="no more ours"):
            lock.require()


@pytest.mark.slow
def test_a_lock_is_kept_fresh_and_loss_is_told(standin: Start, reach: Reach) -> None:
    device = reach(standin())
    with pytest.raises(MissingError, match="no more ours"):
        hold_and_lose(device)
    assert Path(device.folder, "lock").is_dir(), "another host's lock is left alone"


@dataclass(frozen=True, slots=True)
class Hiccup(LocalDevice):
    """This machine, but its first touch of the lock is not answered in time."""

    touched: list[str] = field(default_factory=list)

    def shell(
        self, argv: Sequence[str] | str, timeout_s: float = 60, *, tether: bool = False
    ) -> Completed:
        if "touch lock/owner" in argv:
            self.touched.append("")
            if len(self.touched) == 1:
                raise MissingError("its end was not seen", fix="run this again")
        return LocalDevice.shell(self, argv, timeout_s, tether=tether)


def test_a_touch_that_is_not_answered_is_repeated(tmp_path: Path, eventually: Eventually) -> None:
    device = Hiccup(str(tmp_path / "device"))
    with DeviceFolder(device).lock(stale_s=1) as lock:
        eventually(lambda: len(device.touched) > 2)
        lock.require()
    assert not Path(device.folder, "lock").exists()


def lose_and_fail(device: Device) -> None:
    """Lose the lock, and fail for another reason."""
    with DeviceFolder(device).lock():
        steal(device)
        raise ZeroDivisionError


def test_a_lost_lock_does_not_hide_why_the_run_ended(device: Device) -> None:
    with pytest.raises(ZeroDivisionError) as error:
        lose_and_fail(device)
    assert "is not given back" in error.value.__notes__[0]


def test_a_lock_without_owner_or_of_the_future_is_stale(device: Device) -> None:
    folder = DeviceFolder(device)
    with folder.lock():
        pass
    lock = Path(device.folder, "lock")
    for touched in (1e9, 4e9):  # the clock of a phone may be set back
        lock.mkdir()
        os.utime(lock, (touched, touched))
        with folder.lock() as taken:
            assert taken.taken_from == "", "its owner was killed before it said who it was"
            with pytest.raises(MissingError, match="in use by"), folder.lock():
                pytest.fail("two hold it")


@pytest.mark.parametrize("left_behind", [True, False])
def test_of_many_at_once_one_gets_the_lock(tmp_path: Path, left_behind: bool) -> None:
    device = LocalDevice(str(tmp_path / "device"))
    with DeviceFolder(device).lock():
        pass
    for _ in range(3):
        lock = Path(device.folder, "lock")
        if left_behind:
            lock.mkdir()
            Path(lock, "owner").write_text("deadbeefdeadbeef dead-host 1\n")
            os.utime(lock / "owner", (1e9, 1e9))
        with ThreadPoolExecutor(8) as hosts:
            tries = [hosts.submit(take, device, device.folder) for _ in range(8)]
        held = [attempt.result() for attempt in tries if attempt.exception() is None]
        lost = [attempt.exception() for attempt in tries if attempt.exception() is not None]
        assert all(isinstance(error, MissingError) for error in lost)
        owner = Path(lock, "owner").read_text().strip()
        assert [one.owner for one in held] == [owner]
        shutil.rmtree(lock)


@pytest.fixture
def meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Have something happen when the device executes a program: what another host does then."""
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs), prepend=":")

    def happens(program: str, script: str) -> None:
        path = programs / program
        path.write_text(f'#!/bin/sh\n{script}\nexec /bin/{program} "$@"\n')
        path.chmod(0o755)

    return happens


def test_a_folder_that_another_host_makes_at_the_same_time_is_ours(
    tmp_path: Path, meanwhile: Callable[[str, str], None]
) -> None:
    device = LocalDevice(str(tmp_path / "device"))
    meanwhile("ls", f"mkdir -p {device.folder} && echo 1 >{device.folder}/{MARKER}")
    with DeviceFolder(device).lock():
        pass


def test_a_lock_that_was_given_back_since_it_was_tried_is_taken(
    tmp_path: Path, meanwhile: Callable[[str, str], None]
) -> None:
    device = LocalDevice(str(tmp_path / "device"))
    folder = DeviceFolder(device)
    with folder.lock():
        pass
    meanwhile("mkdir", '[ "$*" != lock ] || [ -e tried ] || { touch tried; exit 1; }')
    assert take(device, device.folder).taken_from is None
    assert Path(device.folder, "tried").exists()


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    folder = DeviceFolder(LocalDevice(f"{blocked}/device"))
    with pytest.raises(MissingError, match="cannot be used") as error, folder.lock():
        pytest.fail("it was made")
    assert "can be written" in error.value.fix


def test_a_host_whose_link_goes_while_it_holds_the_lock_is_told(
    standin: Start, reach: Reach
) -> None:
    phone = standin(Faults(drop_in_command="touch lock/owner", gone=True))
    folder = DeviceFolder(reach(phone))
    with pytest.raises(MissingError), folder.lock(stale_s=1) as lock:
        lock.require()
