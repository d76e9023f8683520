"""What is asked on the command line is heeded, or refused before anything is measured."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from recorded_runs import PHONE, record, results, row
from typer.testing import CliRunner, Result

from android_harness import bench, host
from android_harness.artefacts import Opened, open_bundle
from android_harness.bench import bench_devices, collect
from android_harness.cli import _show, app
from android_harness.devices import Device, Facts, Thermal, discovery
from android_harness.devices.adb import AdbDevice
from android_harness.devices.discovery import Listed
from android_harness.devices.local import LocalDevice
from android_harness.interleaving import Plan
from android_harness.measurement import DevicePlan, Measured, Runs, _skipped
from android_harness.pack import Answers
from android_harness.results import EAGER, load_results
from android_harness.runners import selection
from android_harness.runners.build import Options
from android_harness.runners.sets import RunnerManifest, RunnerSet
from exporter.formats import Runner, onnx
from swipe.errors import LoweringError, MissingError, ParityError, SwipeError, UsageError


def _bench(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["run", *map(str, arguments)])


@pytest.fixture
def _no_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(*given: object) -> None:
        pytest.fail("measured before everything was known to be there")

    monkeypatch.setattr(host, "measure_host", measure)


@pytest.mark.parametrize(
    "options",
    [("--clean",), ("--cpus", "0"), ("--ep", "xnnpack"), ("--runtime", "x"), ("--sustained", "5")],
    ids=lambda options: options[0],
)
def test_what_only_devices_heed_is_refused_without_one(options: tuple[str, ...]) -> None:
    done = _bench(*options)
    assert isinstance(done.exception, UsageError)
    assert options[0] in str(done.exception)


@pytest.mark.parametrize("option", ["--min-secs", "--sustained"])
def test_seconds_that_never_end_are_refused(option: str) -> None:
    done = _bench("--device", "local", option, "inf")
    assert isinstance(done.exception, UsageError)
    assert f"{option} inf" in str(done.exception)


@pytest.mark.parametrize("folder", ["swipe-bench", "data/x", "/data", "/data/../x"])
def test_a_folder_that_cannot_be_ours_is_refused_before_a_device_is_asked(
    folder: str, tmp_path: Path
) -> None:
    for options in ((), ("--clean",)):
        done = _bench("--device", "android", "--device-dir", folder, "--adb", tmp_path, *options)
        assert isinstance(done.exception, UsageError)
        assert "cannot be our folder" in str(done.exception)


@pytest.mark.slow
@pytest.mark.usefixtures("_no_measuring")
def test_a_file_that_cannot_be_written_is_refused_before_measuring(
    published: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path, tmp_path / "file" / "bench.json"):
        done = _bench(published, "--json", out)
        assert isinstance(done.exception, UsageError), done.output
        assert "cannot write" in str(done.exception)


@pytest.mark.slow
@pytest.mark.usefixtures("_no_measuring")
def test_what_a_device_lacks_is_known_before_this_machine_is_measured(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWIPE_EXPORT_CACHE", str(tmp_path))  # other tests build sets
    done = _bench(published, "--device", "host", "--device", "local", "--runtime", "glibc-aarch64")
    assert isinstance(done.exception, MissingError), done.output
    assert "glibc-aarch64" in str(done.exception)


@pytest.mark.slow
@pytest.mark.parametrize("spoiler", ["local", "host"])
def test_what_a_phone_gave_is_kept_whatever_comes_after(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoiler: str
) -> None:
    def measure(opened: object, device: Device, *given: object) -> Measured:
        if device.name == spoiler:
            raise MissingError("no runner", fix="build one")
        heat = Thermal()
        facts = replace(PHONE, serial=device.name)
        return Measured(facts, heat, heat, 0.0, (), (), {}, {}, ())

    def refuse(*given: object) -> None:
        raise LoweringError("it cannot be executed", fix="export again")

    monkeypatch.setattr(bench, "_measure", measure)
    monkeypatch.setattr(host, "measure_host", refuse)
    monkeypatch.setattr(discovery, "find_adb", lambda asked: Path("adb"))
    monkeypatch.setattr(discovery, "choose", lambda adb, serials: [Listed("A", "device", None)])
    out = tmp_path / "bench.json"
    done = _bench(published, "--device", "android", "--device", spoiler, "--json", out)
    assert isinstance(done.exception, MissingError), done.output
    results = load_results(out)
    assert [device.facts.serial for device in results.devices] == ["A"]
    assert list(results.lost) == [spoiler]


@pytest.mark.parametrize("earlier", ["phone", "of another version", "host", None])
def test_a_run_without_the_phone_keeps_the_results_of_the_phone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier: str | None
) -> None:
    """Its hour is not lost to a minute on this machine."""
    here = replace(PHONE, kind="host", serial="host")
    bundle = tmp_path / "bundle"
    out = bundle / "bench.json"
    bundle.mkdir()
    if earlier == "of another version":
        out.write_text("{}")
    elif earlier is not None:
        results(row(), facts=PHONE if earlier == "phone" else here).save(out)
    before = out.read_bytes() if out.exists() else b""
    monkeypatch.setattr("android_harness.artefacts.open_bundle", lambda *_: None)
    monkeypatch.setattr("android_harness.cli._measure", lambda *_: results(row(), facts=here))
    done = _bench(bundle)
    assert load_results(out).devices[0].facts == here
    kept = [path for path in tmp_path.iterdir() if path != bundle]
    if earlier in ("host", None):
        assert kept == []
    else:
        (aside,) = kept
        assert re.fullmatch(r"bundle\.bench\.[0-9]{8}-[0-9]{6}\.json", aside.name)
        assert aside.read_bytes() == before
        assert str(aside) in done.output


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        ("PASS", 0, ""),
        ("UNVERIFIED", 4, "onnx baked int8: UNVERIFIED: missed"),
        ("FAIL", 3, "onnx baked int8: missed"),
    ],
)
def test_too_few_swipes_to_tell_are_no_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], status: str, code: int, told: str
) -> None:
    """Nothing is wrong with such an artefact: to export it again would give the same."""
    found = results(row(status=status))
    with pytest.raises((typer.Exit, ParityError)) as ended:
        _show(found, tmp_path / "bench.json")
    assert ended.value.exit_code == code
    assert told in f"{capsys.readouterr().out}{ended.value}"
    assert (tmp_path / "bench.json").is_file()


@pytest.fixture(scope="module")
def opened(published: Path) -> Opened:
    """A bundle of two artefacts."""
    return open_bundle(published, None, lambda line: None)


@pytest.mark.slow
def test_a_missing_library_leaves_out_its_own_artefacts_only(
    published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def metadata(path: Path) -> dict[str, str]:
        if path.name == "model-agnostic.fp32.onnx":
            raise MissingError("onnx cannot be imported", fix="pip install it")
        return found(path)

    found = onnx.metadata
    monkeypatch.setattr(onnx, "metadata", metadata)
    partly = open_bundle(published, None, lambda line: None)
    plan = Plan(loads=1, warmup=1, blocks=1, block_calls=1)
    report = host.measure_host(partly, plan, 1, lambda line: None)
    assert [row.name for row in report.rows] == [EAGER, "onnx baked fp32"]
    reason = "onnx cannot be imported; pip install it"
    assert report.skipped == {"onnx agnostic fp32": reason}
    results = collect(partly, [report], threads=1)
    assert results.unverified
    programs = RunnerManifest.model_construct(programs={"onnx": None})
    skipped = dict(_skipped(partly.artefacts, RunnerSet(published, programs)))
    assert skipped == {"onnx agnostic fp32": reason}


@pytest.mark.slow
def test_names_of_files_that_are_no_text_can_be_kept(opened: Opened, tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    named: Any = SimpleNamespace(decoding={"name": "lex\udcff.txt", "sha256": "0"})
    odd = replace(opened, subjects=named)
    results = collect(odd, [], threads=1, lost={"A": "no program /tmp/adb\udcff"})
    results.save(out)
    assert load_results(out) == results
    assert results.lexicon == {"name": "lex\\udcff.txt", "sha256": "0"}
    assert results.lost == {"A": "no program /tmp/adb\\udcff"}


@pytest.mark.slow
def test_a_device_whose_answers_cannot_be_judged_does_not_spoil_the_others(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(opened: object, device: Device, *given: object) -> Measured:
        heat = Thermal()
        cut = {name: Runs(answers=Answers((), ()), rounds=[record()]) for name in names}
        runs = cut if device.name == "bad" else {}
        return Measured(replace(PHONE, serial=device.name), heat, heat, 0.0, (), (), runs, {}, ())

    names = [artefact.name for artefact in opened.artefacts]
    monkeypatch.setattr(bench, "_measure", measure)
    phones = [AdbDevice(name, tmp_path) for name in ("bad", "good")]
    reports, lost = bench_devices(opened, phones, pytest.fail, DevicePlan(), lambda line: None)
    assert [report.facts.serial for report in reports] == ["good"]
    assert list(lost) == ["bad"]
    assert "0 answers to" in lost["bad"]


@pytest.mark.slow
@pytest.mark.parametrize("error", [MissingError, LoweringError])
def test_what_cannot_be_loaded_here_is_no_reason_to_measure_nothing(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, error: type[SwipeError]
) -> None:
    """A runtime that is not installed leaves an artefact out; one that refuses it fails it."""

    def load(path: Path, threads: int = 1) -> Runner:
        if path.name == "model-agnostic.fp32.onnx":
            raise error("it is not to be", fix="mend it")
        return found(path, threads)

    found = onnx.load
    monkeypatch.setattr(onnx, "load", load)
    plan = Plan(loads=1, warmup=1, blocks=1, block_calls=1)
    report = host.measure_host(opened, plan, 1, lambda line: None)
    measured = [EAGER, "onnx baked fp32"]
    if error is MissingError:
        assert [row.name for row in report.rows] == measured
        assert report.skipped == {"onnx agnostic fp32": "it is not to be; mend it"}
    else:
        *others, failed = report.rows
        assert [row.name for row in others] == measured
        assert failed.name == "onnx agnostic fp32"
        assert (failed.verdict.status, failed.latency_ns) == ("FAIL", ())
        assert failed.verdict.reasons == ("it is not to be",)
    results = collect(opened, [report], threads=1)
    assert results.unverified == (error is MissingError)
    assert bool(results.failed) == (error is LoweringError)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"cpus": "nonsense"}, "no list of CPUs"),
        ({"cpus": "900"}, "cannot stay on 900"),
        ({"ep": "nonsense"}, "no such provider"),
        ({"ep": "xnnpack"}, "for --ep xnnpack"),
        ({"iters": 20_000_000}, "whole number from 0"),
    ],
    ids=["list", "cpu", "provider", "absent", "calls"],
)
def test_what_a_runner_cannot_do_is_no_fault_of_an_artefact(
    native_set: RunnerSet,
    opened: Opened,
    tmp_path: Path,
    asked: dict[str, Any],
    reason: str,
) -> None:
    device = LocalDevice(folder=str(tmp_path / "device"))
    plan = DevicePlan(rounds=1, min_secs=0.0, **asked)
    with pytest.raises(UsageError, match=reason):
        bench_devices(opened, [device], lambda facts: native_set, plan, lambda line: None)


def test_the_runners_of_this_machine_are_those_that_are_built_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def find(flavour: str) -> RunnerSet:
        raise MissingError(flavour, fix="")

    def build(flavour: str, options: Options, say: object) -> RunnerSet:
        raise SwipeError(f"built {flavour}", fix="")

    def nowhere() -> str:
        raise UsageError("no runners execute on darwin", fix="")

    monkeypatch.setattr(selection, "find_set", find)
    monkeypatch.setattr(selection, "build_set", build)
    monkeypatch.setattr(selection, "default_flavour", lambda: "linux-aarch64")
    here = Facts("local", "local", None, "arm64-v8a", sdk=None, android=False)
    with pytest.raises(SwipeError, match="built linux-aarch64"):
        selection.runners_for(here, None, lambda line: None)
    # Where no runner executes, a phone's are missing all the same, and can be had.
    monkeypatch.setattr(selection, "default_flavour", nowhere)
    phone = Facts("android", "A", None, "arm64-v8a", sdk=35, android=True)
    with pytest.raises(MissingError, match="android-arm64-v8a"):
        selection.runners_for(phone, None, lambda line: None)


def test_runners_that_nobody_can_build_are_a_mistake_on_the_command_line() -> None:
    here = Facts("local", "local", None, "x86_64", sdk=None, android=False)
    with pytest.raises(UsageError, match="can be called linux_x86_64") as caught:
        selection.runners_for(here, "linux_x86_64", lambda line: None)
    assert "linux-x86_64" in caught.value.fix


@pytest.mark.slow
def test_an_engine_that_was_upgraded_makes_the_set_of_this_machine_stale(
    native_set: RunnerSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(flavour: str, options: Options, say: object) -> RunnerSet:
        raise SwipeError(f"built {flavour}", fix="")

    monkeypatch.setattr(selection, "build_set", build)
    here, flavour = LocalDevice().facts(), native_set.manifest.flavour
    assert selection.runners_for(here, None, lambda line: None) == native_set
    program = native_set.program("onnx").model_copy(update={"version": "1.17.0"})
    old = native_set.manifest.model_copy(update={"programs": {"onnx": program}})
    monkeypatch.setattr(selection, "find_set", lambda name: RunnerSet(native_set.folder, old))
    with pytest.raises(SwipeError, match=f"built {flavour}"):
        selection.runners_for(here, None, lambda line: None)


def test_this_machine_says_which_processor_it_has() -> None:
    here = LocalDevice().facts()
    assert host._processor() == here.soc
