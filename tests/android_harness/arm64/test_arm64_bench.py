"""A bundle measured on emulated aarch64: both engines, float and int8, over the real adbd.

Numbers are compared, and what the harness makes of heat; latency under emulation says nothing and
is compared with nothing.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from emulated_phone import PROCESSORS, TOP_KHZ, EmulatedPhone
from runner_builds import build_or_say

from android_harness.artefacts import Opened, open_bundle
from android_harness.bench import bench_devices, collect
from android_harness.devices.adb import AdbDevice
from android_harness.measurement import DevicePlan
from android_harness.pack import pack_calls
from android_harness.results import DeviceReport
from android_harness.runners.selection import runners_for
from android_harness.runners.sets import RunnerSet
from android_harness.thermal import Gate
from exporter.bundle import Request, export
from exporter.origins.requests import SwipeRequest
from exporter.policy import Policy
from exporter.targets import find_target
from swipe.errors import MissingError

pytestmark = pytest.mark.slow

SWIPES = 512
ENGINES = {"onnx": "onnxruntime", "executorch": "executorch"}
ARTEFACTS = [f"{engine} baked {rung}" for engine in ENGINES for rung in ("int8", "fp32")]
BRIEF = DevicePlan(rounds=1, iters=20, min_secs=0.0, warmup=2, gate=Gate(limit_s=6.0))
FLOAT_DELTA = 1e-4
"""Of logits up to about 40; x86 and ARM add in another order."""
INT8_DECISIONS = 0.995
"""Least share of equal decisions: a value on the edge between two steps may fall either way."""

SLOW_KHZ = 1_200_000

Connect = Callable[[EmulatedPhone], AdbDevice]
StartPhone = Callable[..., EmulatedPhone]


@pytest.fixture(scope="module")
def bundle(shared_data: Path, released: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The released nano model as ONNX and ExecuTorch, float and int8, judged by real swipes."""
    out = tmp_path_factory.mktemp("measured") / "bundle"
    asked = SwipeRequest(
        released,
        views=("baked",),
        data=str(shared_data / "how_we_swipe" / "dev.jsonl.gz"),
        lexicon="wordfreq:5000",
        samples=SWIPES,
    )
    targets = tuple(find_target(engine) for engine in ENGINES)
    # So few swipes cannot tell half a point; that int8 ships is not what is tested here.
    export(Request(targets, asked, out, Policy(budget=5.0)), lambda line: None)
    return out


@pytest.fixture(scope="module")
def opened(bundle: Path) -> Opened:
    return open_bundle(bundle, None, lambda line: None)


@pytest.fixture(scope="module")
def runners(phone_rootfs: Path) -> RunnerSet:
    """The runners for aarch64 with both engines; CI must be able to build them."""
    return build_or_say("glibc-aarch64", ())


@pytest.fixture(scope="module")
def phones(start_phone: StartPhone) -> dict[str, EmulatedPhone]:
    """One per processor."""
    return {cpu: start_phone(cpu=cpu) for cpu in PROCESSORS}


@pytest.fixture(scope="module")
def devices(phones: dict[str, EmulatedPhone], connect: Connect) -> dict[str, AdbDevice]:
    return {cpu: connect(phone) for cpu, phone in phones.items()}


@pytest.fixture(scope="module")
def reports(
    runners: RunnerSet,
    opened: Opened,
    phones: dict[str, EmulatedPhone],
    devices: dict[str, AdbDevice],
) -> dict[str, DeviceReport]:
    """Both phones side by side, in one run for all: starting a runner takes an emulator seconds.

    "max" is hot at first, and cools down while it is waited for. The battery of the other is hot
    and stays so, and when its calls are to be timed it slows down and warms up.
    """
    cooling, heating = phones["max"], phones["cortex-a53"]
    cooling.set_thermal_status(3)
    heating.set_battery(temperature_c=41.5)

    def say(line: str) -> None:
        if line.startswith(cooling.serial) and "waiting for it to cool down" in line:
            cooling.set_thermal_status(0)
        if line.startswith(heating.serial) and "round 1 of 1" in line:
            heating.set_max_khz(SLOW_KHZ)
            heating.set_thermal_status(2)

    found, lost = bench_devices(
        opened, list(devices.values()), lambda facts: runners_for(facts, None, say), BRIEF, say
    )
    heating.reset_knobs()
    assert lost == {}
    return dict(zip(devices, found, strict=True))


@pytest.mark.parametrize("cpu", PROCESSORS)
def test_every_artefact_passes_on_arm(cpu: str, reports: dict[str, DeviceReport]) -> None:
    report = reports[cpu]
    assert report.facts.emulated is not None
    assert sorted(row.name for row in report.rows) == sorted(ARTEFACTS)
    assert report.skipped == {}
    for row in report.rows:
        assert (row.verdict.status, row.verdict.level) == ("PASS", "arm64"), row.verdict.reasons
        assert row.engine is not None
        assert row.engine.name == ENGINES[str(row.format)]
        assert row.verdict.metrics is not None
        assert row.verdict.metrics["samples"] == SWIPES


@pytest.mark.parametrize("cpu", PROCESSORS)
def test_float_is_what_this_machine_computes(cpu: str, reports: dict[str, DeviceReport]) -> None:
    for row in reports[cpu].rows:
        if row.rung == "fp32":
            assert row.from_host is not None
            assert row.from_host.max_abs_delta <= FLOAT_DELTA, row.name
            assert row.from_host.decisions == 1.0, row.name
            assert row.from_host.words == 1.0, row.name


@pytest.mark.parametrize("cpu", PROCESSORS)
def test_int8_decides_as_on_this_machine(cpu: str, reports: dict[str, DeviceReport]) -> None:
    for row in reports[cpu].rows:
        if row.rung == "int8":
            assert row.from_host is not None
            assert row.from_host.decisions is not None
            assert row.from_host.decisions >= INT8_DECISIONS, row.name


@pytest.mark.parametrize("cpu", PROCESSORS)
def test_all_that_a_run_reads_is_there(cpu: str, reports: dict[str, DeviceReport]) -> None:
    for row in reports[cpu].rows:
        assert [len(samples) >= BRIEF.iters for samples in row.latency_ns] == [True]
        assert min(row.load_ms) > 0
        assert row.memory is not None
        assert row.memory.rss.peak is not None
        khz = TOP_KHZ if cpu == "max" else SLOW_KHZ
        for block in row.blocks[0]:
            assert (block.temp_mc, block.khz_cur, block.khz_max) == (38_000, khz, khz)


def test_a_hot_phone_is_waited_for(opened: Opened, reports: dict[str, DeviceReport]) -> None:
    report = reports["max"]
    assert report.waited_s >= 1.0
    assert report.throttled == ()
    assert [row.invalid for row in report.rows] == [()] * len(ARTEFACTS)
    assert not collect(opened, [report], threads=1, plan=BRIEF).unverified


def test_a_phone_that_gets_hot_is_not_believed(
    opened: Opened, reports: dict[str, DeviceReport]
) -> None:
    report = reports["cortex-a53"]
    assert collect(opened, [report], threads=1, plan=BRIEF).unverified
    for row in report.rows:
        invalid = "; ".join(row.invalid)
        assert "started hot: battery at 41.5 C" in invalid
        assert "thermal status rose from 0 (none) to 2 (moderate)" in invalid
        assert "CPU 1 was limited from 2400 to 1200 MHz" in invalid


def test_a_phone_of_another_kind_is_refused_before_anything_is_copied(
    runners: RunnerSet,
    opened: Opened,
    phones: dict[str, EmulatedPhone],
    devices: dict[str, AdbDevice],
) -> None:
    phones["max"].set_sdk(21)
    try:
        with pytest.raises(MissingError, match="API level 21"):
            bench_devices(opened, [devices["max"]], lambda facts: runners, BRIEF, lambda line: None)
    finally:
        phones["max"].reset_knobs()


HOST = """
import sys
from pathlib import Path
from android_harness.devices.adb import AdbDevice
from android_harness.devices.folder import DeviceFolder
from android_harness.runners.launch import Launcher
from android_harness.runners.record import Asked
from android_harness.runners.sets import find_set

serial, adb, model, pack = sys.argv[1:]
folder, runners = DeviceFolder(AdbDevice(serial, Path(adb))), find_set("glibc-aarch64")
with folder.lock():
    launcher = Launcher(folder.device, folder, runners, folder.ensure_set(runners.paths))
    there = folder.ensure_file(Path(model)), folder.ensure_file(Path(pack))
    asked = Asked(timed=1, iters=1, min_secs=50.0)
    launcher.run("onnx", there[0], "", there[1], asked, outputs=False)
"""


def test_a_killed_host_leaves_nothing_running(
    runners: RunnerSet,
    opened: Opened,
    phones: dict[str, EmulatedPhone],
    devices: dict[str, AdbDevice],
    tmp_path: Path,
) -> None:
    phone, device, pack = phones["cortex-a53"], devices["cortex-a53"], tmp_path / "calls"
    model = next(artefact for artefact in opened.artefacts if artefact.target.name == "onnx")
    pack.write_bytes(pack_calls(model.evidence.calls[:1]))
    given = [device.serial, str(device.adb), str(model.path), str(pack)]
    with subprocess.Popen([sys.executable, "-c", HOST, *given]) as host:
        _wait_for(lambda: _runners(phone) != [], 60.0)
        host.send_signal(signal.SIGKILL)
    _wait_for(lambda: _runners(phone) == [], 5.0)
    _wait_for(lambda: phone.programs() == [], 20.0)


def _runners(phone: EmulatedPhone) -> list[str]:
    return [line for line in phone.programs() if "/runner_ort" in line]


def _wait_for(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.05)
