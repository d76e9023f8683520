"""``swipe-bench --device android`` from its command line to its file, over the real adb."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from standin import Faults, StandIn
from typer.testing import CliRunner, Result

from android_harness.cli import app
from android_harness.results import load_results
from swipe.errors import ExitCode, GateError, MissingError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("native_set")]

Start = Callable[..., StandIn]
BRIEF = ("--rounds", "1", "--calls", "10", "--min-secs", "0")
"""One round: of more, a busy machine may slow the last one down, and exit 4 is right then."""


def _bench(bundle: Path, out: Path, *phones: StandIn, options: tuple[str, ...] = ()) -> Result:
    arguments = ["run", str(bundle), "--device", "android", "--json", str(out), *BRIEF, *options]
    for phone in phones:
        arguments += ["--serial", phone.serial]
    # All of them have one folder, on one machine.
    arguments += ["--device-dir", phones[0].folder]
    return CliRunner().invoke(app, arguments)


def test_a_bundle_is_measured_over_adb(standin: Start, published: Path, tmp_path: Path) -> None:
    phone, out = standin(), tmp_path / "bench.json"
    done = _bench(published, out, phone)
    assert done.exit_code == ExitCode.OK, (done.output, done.exception)
    results = load_results(out)
    (device,) = results.devices
    assert device.facts.model == "Stand-in"
    assert [row.name for row in device.rows] == ["onnx baked fp32", "onnx agnostic fp32"]
    for row in device.rows:
        # A Linux machine behind adb is no phone, whatever it says of itself.
        assert (row.verdict.status, row.verdict.level) == ("PASS", "host")
        assert row.from_host is not None
        assert row.from_host.identical == 1.0
        assert row.latency is not None
    assert "onnx baked fp32" in done.output


def test_nothing_is_pushed_twice_and_clean_removes_all(
    standin: Start, published: Path, tmp_path: Path
) -> None:
    phone = standin()
    assert _bench(published, tmp_path / "first.json", phone).exit_code == ExitCode.OK
    pushed = len(phone.pushed)
    assert pushed > 3
    assert _bench(published, tmp_path / "second.json", phone).exit_code == ExitCode.OK
    assert len(phone.pushed) == pushed
    cleaned = _bench(published, tmp_path / "third.json", phone, options=("--clean",))
    assert cleaned.exit_code == ExitCode.OK
    assert f"removed {phone.folder}" in cleaned.output
    assert not Path(phone.folder).exists()
    assert not (tmp_path / "third.json").exists()


def test_heat_is_waited_for_and_then_makes_latency_invalid(
    standin: Start, published: Path, tmp_path: Path
) -> None:
    phone, out = standin(), tmp_path / "bench.json"
    phone.knobs.thermal_status(3)
    done = _bench(published, out, phone, options=("--cool-secs", "0"))
    assert done.exit_code == ExitCode.UNVERIFIED
    for row in load_results(out).rows:
        assert "started hot: thermal status 3 (severe)" in row.invalid
        assert row.verdict.status == "PASS", "its answers are as right as ever"


@pytest.mark.parametrize(
    "faults",
    [
        Faults(drop_in_command="runner_ort", drop_after_s=0.1),
        Faults(drop_in_command="runner_ort", drop_after_s=0.1, shell_v2=False, gone=True),
        Faults(cut_command="runner_ort"),
        Faults(drop_after_pulled=10_000),
        Faults(full_after=100_000),
        Faults(corrupt=".onnx"),
        Faults(corrupt="runner_ort"),
    ],
    ids=["dropped", "gone", "cut", "pull", "disk", "artefact", "runner"],
)
def test_a_faulty_link_ends_with_an_error_and_leaves_no_file(
    standin: Start, published: Path, tmp_path: Path, faults: Faults
) -> None:
    phone, out = standin(faults), tmp_path / "bench.json"
    done = _bench(published, out, phone)
    assert isinstance(done.exception, MissingError | GateError), (done.output, done.exception)
    assert not out.exists()


def test_a_phone_that_is_lost_does_not_spoil_the_other(
    standin: Start, published: Path, tmp_path: Path
) -> None:
    good, bad, out = standin(), standin(), tmp_path / "bench.json"
    bad.knobs.property("ro.product.cpu.abi", "armeabi-v7a")
    done = _bench(published, out, good, bad)
    assert isinstance(done.exception, MissingError)
    assert bad.serial in str(done.exception)
    results = load_results(out)
    assert list(results.lost) == [bad.serial]
    assert "armeabi-v7a" in results.lost[bad.serial]
    assert [device.facts.serial for device in results.devices] == [good.serial]
