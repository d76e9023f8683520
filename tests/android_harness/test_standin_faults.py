"""``swipe-bench --device android`` with a device that is not well: what a user sees, and what not.

A fault gives an exit code that says so and not a single number on the screen; a killed host leaves
no program behind.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from standin import Faults, StandIn

from android_harness.cli import app
from android_harness.devices.local import LocalDevice
from android_harness.results import load_results
from android_harness.runners.sets import RunnerSet
from swipe.errors import ExitCode, SwipeError

pytestmark = pytest.mark.slow

Start = Callable[..., StandIn]
Bench = Callable[[StandIn], tuple[int, str]]

BRIEF = ("--rounds", "1", "--calls", "20", "--min-secs", "0", "--cool-secs", "0")
SIDE_BY_SIDE = str(Path(__file__).with_name("side_by_side.py"))
NUMBER = re.compile(r"[0-9]+\.[0-9]+ *(ms|x)|p50|PASS")
"""What only a result shows."""


def command(phone: StandIn, bundle: Path, adb: Path, out: Path) -> list[str]:
    """The arguments of one run on `phone`."""
    where = ("--device", "android", "--serial", phone.serial, "--device-dir", phone.folder)
    return ["run", str(bundle), *where, "--adb", str(adb), "--json", str(out), *BRIEF]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where results go."""
    return tmp_path / "bench.json"


@pytest.fixture
def bench(
    published: Path,
    native_set: RunnerSet,
    adb: Path,
    out: Path,
    capsys: pytest.CaptureFixture[str],
) -> Bench:
    """One run of swipe-bench: its exit code, and all that it said."""
    assert native_set.program("onnx")

    def run(phone: StandIn) -> tuple[int, str]:
        said = ""
        try:
            app(args=command(phone, published, adb, out))
        except SystemExit as end:
            code = int(end.code or 0)
        except SwipeError as error:
            code, said = int(error.exit_code), f"{error}; {error.fix}"
        printed = capsys.readouterr()
        return code, printed.out + printed.err + said

    return run


def test_an_old_and_noisy_shell_gives_results(standin: Start, bench: Bench, out: Path) -> None:
    code, said = bench(standin(Faults(junk=True, shell_v2=False)))
    assert code == ExitCode.OK, said
    assert NUMBER.search(said), "what shows a result is seen"
    (device,) = load_results(out).devices
    assert {row.verdict.status for row in device.rows} == {"PASS"}


@pytest.mark.parametrize(
    ("faults", "code", "told"),
    [
        (Faults(unauthorized=True), ExitCode.MISSING, "unauthorized"),
        (Faults(offline=True), ExitCode.MISSING, "offline"),
        (Faults(recovery=True), ExitCode.MISSING, "recovery"),
        (Faults(drop_in_command="--nonce", drop_after_s=0.1), ExitCode.MISSING, "was not seen"),
        (
            Faults(hidden=("sha256sum", "sha1sum", "md5sum")),
            ExitCode.MISSING,
            "cannot be verified",
        ),
    ],
)
def test_a_fault_gives_an_exit_code_and_no_number(
    standin: Start, bench: Bench, out: Path, faults: Faults, code: ExitCode, told: str
) -> None:
    ended, said = bench(standin(faults))
    assert (ended, told in said) == (code, True), said
    assert not NUMBER.search(said)
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("ro.product.cpu.abi", "armeabi-v7a", "executes armeabi-v7a"),
        ("ro.build.version.sdk", "23", "API level 23"),
    ],
)
def test_a_device_that_will_not_do_is_refused(
    standin: Start, bench: Bench, out: Path, name: str, value: str, told: str
) -> None:
    phone = standin()
    phone.knobs.property(name, value)
    ended, said = bench(phone)
    assert (ended, told in said) == (ExitCode.MISSING, True), said
    assert phone.pushed == []
    assert not out.exists()


def runners_of(phone: StandIn) -> list[int]:
    """Native runners that execute on `phone`."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
        except psutil.Error:
            continue  # it ended meanwhile
        if words and "runner_" in words[0] and any(phone.folder in word for word in words):
            found.append(process.pid)
    return found


def wait_until(holds: Callable[[], bool], seconds: float) -> None:
    """Wait for something that is to come soon."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_host_that_is_killed_leaves_no_runner_and_no_result(
    standin: Start, published: Path, native_set: RunnerSet, adb: Path, out: Path
) -> None:
    phone = standin()
    words = [*command(phone, published, adb, out), "--min-secs", "50"]
    with subprocess.Popen([sys.executable, "-m", "android_harness.cli", *words]) as host:
        try:
            wait_until(lambda: bool(runners_of(phone)) and "min-secs 50" in phone.commands[-1], 60)
        finally:
            host.kill()
    wait_until(lambda: not runners_of(phone), 5)
    assert not out.exists()
    assert Path(phone.folder, "lock").is_dir()


@pytest.mark.parametrize(
    ("beside", "phase"),
    [(False, "--min-secs 50"), (True, "--outputs"), (True, "--min-secs 50")],
    ids=["alone", "outputs side by side", "rounds side by side"],
)
def test_an_interrupt_ends_all_in_seconds_and_gives_every_lock_back(
    standin: Start,
    published: Path,
    native_set: RunnerSet,
    adb: Path,
    out: Path,
    beside: bool,
    phase: str,
) -> None:
    phone = standin()
    words = ["-m", "android_harness.cli", *command(phone, published, adb, out), "--min-secs", "50"]
    if beside:
        words = [SIDE_BY_SIDE, str(published), phone.serial, phone.folder, str(adb)]
    folders = [phone.folder, *([LocalDevice().folder] if beside else [])]
    locks = [Path(folder, "lock") for folder in folders]
    with subprocess.Popen([sys.executable, *words]) as host:
        try:
            wait_until(lambda: any(phase in line for line in phone.commands), 90)
            wait_until(lambda: all(lock.is_dir() for lock in locks), 9)
            # What Ctrl-C does; a shell's background jobs do not heed that one.
            host.send_signal(signal.SIGTERM)
            assert host.wait(timeout=15) == 130
        finally:
            host.kill()
    wait_until(lambda: not runners_of(phone), 5)
    assert not out.exists()
    assert [lock for lock in locks if lock.exists()] == []
