"""A runner that lies, fails or is cut off: no figure of it is believed, and none is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from android_harness import measurement
from android_harness.artefacts import Opened, open_bundle
from android_harness.bench import bench_devices, collect
from android_harness.devices import Completed, Thermal
from android_harness.devices.local import LocalDevice
from android_harness.measurement import DevicePlan
from android_harness.results import DeviceReport, Results
from android_harness.runners.sets import File, Program, RunnerSet
from android_harness.thermal import Gate
from exporter.parity import Level
from swipe.errors import GateError, MissingError

pytestmark = pytest.mark.slow

BRIEF = DevicePlan(rounds=2, iters=10, min_secs=0.0, warmup=1)
SLICE = 0.125
WRAPPER = """#!/bin/sh
asked="$*"
value() {{ echo "$asked" | sed -n "s/.*$1 \\([^ ]*\\).*/\\1/p"; }}
result=$(value --result) outputs=$(value --outputs) model=$(value --model)
{before}
"$(dirname "$0")/runner_ort" "$@"
code=$?
{after}
exit $code
"""


@pytest.fixture(scope="module")
def opened(published: Path) -> Opened:
    """The released nano model as float ONNX in two views."""
    return open_bundle(published, None, lambda line: None)


Measure = Callable[[str, str], DeviceReport]


@pytest.fixture
def measure(native_set: RunnerSet, opened: Opened, tmp_path: Path) -> Measure:
    """Measure with a runner that does something before and after the real one's work."""

    def measured(before: str = "", after: str = "") -> DeviceReport:
        folder = tmp_path / "set"
        folder.mkdir()
        for name, path in native_set.paths.items():
            (folder / name).symlink_to(path)
        wrapper = folder / "wrapper"
        wrapper.write_text(WRAPPER.format(before=before, after=after))
        wrapper.chmod(0o755)
        files = native_set.manifest.files | {
            "wrapper": File(sha256="0" * 64, size_bytes=wrapper.stat().st_size, executable=True)
        }
        program = native_set.program("onnx")
        lying = Program(file="wrapper", library=program.library, version=program.version)
        changes = {"files": files, "programs": native_set.manifest.programs | {"onnx": lying}}
        runners = RunnerSet(folder, native_set.manifest.model_copy(update=changes))
        device = LocalDevice(folder=str(tmp_path / "device"))
        (report,), lost = bench_devices(
            opened, [device], lambda facts: runners, BRIEF, lambda line: None
        )
        assert lost == {}
        return report

    return measured


def test_an_honest_runner_passes_with_a_latency_and_the_same_bits(
    measure: Measure, opened: Opened, tmp_path: Path
) -> None:
    report = measure("", "")
    assert [row.name for row in report.rows] == ["onnx baked fp32", "onnx agnostic fp32"]
    for row in report.rows:
        assert (row.verdict.status, row.verdict.level) == ("PASS", Level.HOST)
        assert [len(samples) >= BRIEF.iters for samples in row.latency_ns] == [True, True]
        assert row.from_host is not None
        assert row.from_host.identical == 1.0
        assert row.memory is not None
        assert row.memory.rss.peak
        assert row.engine is not None
        assert row.engine.name == "onnxruntime"
    assert report.skipped == {}
    results = collect(opened, [report], threads=1, plan=BRIEF)
    results.save(tmp_path / "bench.json")
    assert Results.model_validate_json((tmp_path / "bench.json").read_text()) == results


@pytest.mark.parametrize(
    ("before", "after", "error", "reason"),
    [
        ("exit 0", "", MissingError, "result.json is not there"),
        ("", 'rm "$result"', MissingError, "result.json is not there"),
        ("", 'sed -i "s/\\"nonce\\":\\"[0-9a-f]*/&0/" "$result"', GateError, "of another run"),
        ("", 'head -c 300 "$result" >"$result.cut"; mv "$result.cut" "$result"', GateError, "cut"),
        (
            "",
            '[ -z "$outputs" ] || printf X | dd of="$outputs" bs=1 seek=200 conv=notrunc 2>&-',
            GateError,
            "damaged on their way",
        ),
        (
            "",
            'sed -i "s/\\"model_sha256\\":\\"[0-9a-f]*/\\"model_sha256\\":\\"00/" "$result"',
            GateError,
            "executed another file",
        ),
        (
            "",
            'sed -i "s/\\"latency_ns\\":\\[[0-9]*/\\"latency_ns\\":[0/" "$result"',
            GateError,
            "not positive",
        ),
    ],
    ids=["nothing", "removed", "nonce", "cut", "outputs", "model", "clock"],
)
def test_a_run_that_cannot_be_proven_gives_no_figure(
    measure: Measure, before: str, after: str, error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        measure(before, after)


def test_a_runner_that_crashes_fails_its_artefact_and_has_no_latency(measure: Measure) -> None:
    for row in measure("kill -SEGV $$", "").rows:
        assert row.verdict.status == "FAIL"
        assert "status 139" in row.verdict.reasons[0]
        assert row.latency is None
        assert row.latency_ns == ()


@pytest.mark.parametrize("interpreter", ["/nowhere/sh", "/"], ids=["absent", "forbidden"])
def test_a_runner_that_cannot_be_started_says_nothing_of_its_artefacts(
    measure: Measure, monkeypatch: pytest.MonkeyPatch, interpreter: str
) -> None:
    """As on a device whose folder takes no programs, or that lacks the loader of ours."""
    monkeypatch.setattr(f"{__name__}.WRAPPER", WRAPPER.replace("/bin/sh", interpreter))
    report = measure("", "")
    assert report.rows == ()
    assert list(report.skipped) == ["onnx baked fp32", "onnx agnostic fp32"]
    for reason in report.skipped.values():
        assert reason.startswith("the runner for onnx cannot be started: env: ")


def test_an_artefact_that_fails_in_a_later_round_has_no_latency(measure: Measure) -> None:
    """The second timed start of each artefact crashes."""
    counting = (
        '[ -n "$outputs" ] || { n=$(ls "$model".ran* 2>/dev/null | wc -l); touch "$model.ran$n"; '
        "[ $n -lt 2 ] || kill -SEGV $$; }"
    )
    for row in measure(counting, "").rows:
        assert row.verdict.status == "FAIL"
        assert row.latency is None


def test_a_run_that_stayed_short_of_what_was_asked_is_not_valid(measure: Measure) -> None:
    only_one = 'sed -i "s/\\"latency_ns\\":\\[\\([0-9]*\\)[0-9,]*/\\"latency_ns\\":[\\1/" "$result"'
    for row in measure("", only_one).rows:
        assert "only 1 of 10 calls in 60 s" in row.invalid


def test_a_set_that_executes_nothing_says_how_to_have_one_that_does(
    native_set: RunnerSet, opened: Opened, tmp_path: Path
) -> None:
    absent = {"programs": {}, "absent": {"onnx": "no headers"}}
    empty = RunnerSet(native_set.folder, native_set.manifest.model_copy(update=absent))
    device = LocalDevice(folder=str(tmp_path / "device"))
    (report,), _ = bench_devices(opened, [device], lambda facts: empty, BRIEF, lambda line: None)
    assert report.rows == ()
    assert list(report.skipped) == ["onnx baked fp32", "onnx agnostic fp32"]
    for reason in report.skipped.values():
        assert "no headers; then run: swipe-bench runner build" in reason
    assert collect(opened, [report], threads=1).unverified


@dataclass(frozen=True, slots=True)
class Warming(LocalDevice):
    """This machine, but a sustained run makes it hot."""

    heat: list[int] = field(default_factory=list)

    def shell(
        self, argv: Sequence[str] | str, timeout_s: float = 60, *, tether: bool = False
    ) -> Completed:
        if f"--min-secs {SLICE}" in argv:
            self.heat.append(3)
        return LocalDevice.shell(self, argv, timeout_s, tether=tether)

    def thermal(self) -> Thermal:
        return Thermal(status=max(self.heat, default=0))


def test_heat_of_a_sustained_run_is_no_fault_of_the_rounds_before_it(
    native_set: RunnerSet, opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measurement, "SLICE_SECONDS", SLICE)
    device = Warming(folder=str(tmp_path / "device"))
    plan = replace(BRIEF, sustained_secs=SLICE, gate=Gate(limit_s=0))
    (report,), _ = bench_devices(
        opened, [device], lambda facts: native_set, plan, lambda line: None
    )
    assert device.heat
    assert report.sustained
    assert report.throttled == ()
    for row in report.rows:
        assert not [reason for reason in row.invalid if "thermal" in reason]


def test_a_lock_that_was_lost_ends_the_measurement_at_the_next_round(
    native_set: RunnerSet, opened: Opened, tmp_path: Path
) -> None:
    device = LocalDevice(folder=str(tmp_path / "device"))
    said: list[str] = []

    def take_over(line: str) -> None:
        said.append(line)
        if "round 1" in line:
            (tmp_path / "device" / "lock" / "owner").write_text("another host 1\n")

    with pytest.raises(MissingError, match="another host took it over"):
        bench_devices(opened, [device], lambda facts: native_set, BRIEF, take_over)
    assert not [line for line in said if "round 2" in line]
