"""``swipe-bench``: latency beside accuracy beside verdict, for every artefact of a bundle."""

from __future__ import annotations

from contextlib import nullcontext
from enum import StrEnum
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from android_harness.verbs import register as register_verbs
from android_harness.verbs_runner import register as register_runner
from swipe.console import console, make_app, run
from swipe.errors import ExitCode, MissingError, ParityError, UsageError
from swipe.files import require_writable
from swipe.progress import Say, telling

if TYPE_CHECKING:
    from android_harness.artefacts import Opened
    from android_harness.devices import Device
    from android_harness.measurement import DevicePlan
    from android_harness.results import DeviceReport, Results

BUNDLE: Final = Path("bundle")
CPU: Final = "cpu"

app = make_app(
    "Measure a bundle's artefacts against PyTorch: on this machine, or on a phone over adb.\n\n"
    "Example: [bold]swipe-bench --device android[/]; all its options: [bold]swipe-bench run -h[/]",
    default="run",
)


class Where(StrEnum):
    """What ``--device`` takes."""

    HOST = "host"
    LOCAL = "local"
    ANDROID = "android"


@app.command("run", no_args_is_help=False)
def bench(
    bundle: Annotated[
        Path | None,
        typer.Argument(
            help="A folder written by swipe-export; default: ./bundle, exported first when there "
            "is none."
        ),
    ] = None,
    device: Annotated[
        list[Where] | None,
        typer.Option(
            help="host: the Python runtimes here. local: the native runners here. android: the "
            "native runners on a phone. May be given several times; default: host."
        ),
    ] = None,
    serial: Annotated[
        list[str] | None,
        typer.Option(help="A phone, as adb devices calls it; may be given several times."),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads per implementation.")] = 1,
    cpus: Annotated[
        str | None, typer.Option(help='Stay on these CPUs of the device, e.g. "4-7".')
    ] = None,
    ep: Annotated[
        str, typer.Option(help="ONNX Runtime's execution provider on the device: cpu, xnnpack.")
    ] = CPU,
    rounds: Annotated[
        int | None,
        typer.Option("--rounds", "--blocks", min=1, help="Rounds over all; default: 20, 5 there."),
    ] = None,
    calls: Annotated[
        int | None, typer.Option(min=1, help="Timed calls per round, at least; default: 25, 100.")
    ] = None,
    min_secs: Annotated[
        float, typer.Option(min=0.0, help="Seconds of timed calls per round on a device, at least.")
    ] = 0.5,
    sustained: Annotated[
        float,
        typer.Option(min=0.0, help="Go on for SECONDS with each artefact to ship, for the curve."),
    ] = 0.0,
    cool_secs: Annotated[
        float, typer.Option(min=0.0, help="How long to wait for a hot phone to cool down.")
    ] = 300.0,
    runtime: Annotated[
        str | None,
        typer.Option(help="Runners to use, see swipe-bench runner list; default: those that fit."),
    ] = None,
    adb: Annotated[
        str | None, typer.Option(help="The adb program; default: $ADB, then PATH.")
    ] = None,
    device_dir: Annotated[str | None, typer.Option(help="Our folder on the phone.")] = None,
    clean: Annotated[
        bool, typer.Option("--clean", help="Remove our folder from the device, and do no more.")
    ] = False,
    lexicon: Annotated[
        str | None, typer.Option(help="Decode swipes with this lexicon; default: the bundle's.")
    ] = None,
    json_out: Annotated[
        Path | None, typer.Option("--json", help="Results file; default: BUNDLE/bench.json.")
    ] = None,
) -> None:
    """Latency, agreement with PyTorch and accuracy of every artefact, in one interleaved run.

    Example: [bold]swipe-bench bundle --device host --device android --rounds 10[/]
    """
    from android_harness.artefacts import open_bundle
    from android_harness.measurement import ROUND_SECONDS, DevicePlan
    from android_harness.results import place_aside, repeats
    from android_harness.thermal import Gate
    from exporter.manifest import BENCH

    for option, seconds in (("--min-secs", min_secs), ("--sustained", sustained)):
        if not isfinite(seconds):
            raise UsageError(f"{option} {seconds:g} has no end", fix="name a number of seconds")
    places = tuple(dict.fromkeys(device or [Where.HOST]))
    if places == (Where.HOST,):
        _refuse_options_of_devices(clean, cpus, ep != CPU, runtime, sustained)
    devices = _open_devices(places, serial, adb, device_dir)
    if clean:
        _clean(devices)
        raise typer.Exit
    plan = DevicePlan(
        rounds=rounds or 5,
        iters=calls or 100,
        min_secs=min_secs,
        max_secs=max(min_secs, ROUND_SECONDS),
        threads=threads,
        cpus=cpus,
        ep=ep,
        sustained_secs=sustained,
        gate=Gate(limit_s=cool_secs),
    )
    if bundle is None:
        bundle = BUNDLE
        if not bundle.exists():
            _export_first(bundle)
    out = json_out or bundle / BENCH
    with telling() as say:
        opened = open_bundle(bundle, lexicon, say)
        require_writable(out)
        aside = place_aside(out) if json_out is None and out.exists() else None
        if aside is not None:
            require_writable(aside)
        results = _measure(opened, places, devices, plan, (rounds, calls), runtime, say)
    # An hour on a phone is not to be lost to a minute on this machine.
    if aside is not None and out.exists() and results.devices and not repeats(results, out):
        out.replace(aside)
        console.print(f"earlier results, of devices that this run does not have: {aside}")
    _show(results, out)


register_verbs(app)
register_runner(app)


def _refuse_options_of_devices(
    clean: bool, cpus: str | None, ep: bool, runtime: str | None, sustained: float
) -> None:
    """The Python runtimes know none of these: results must not say that they were heeded."""
    given = {
        "--clean": clean,
        "--cpus": cpus,
        "--ep": ep,
        "--runtime": runtime,
        "--sustained": sustained,
    }
    for option in (name for name, value in given.items() if value):
        raise UsageError(
            f"{option} is for devices, and none is to be measured",
            fix="add --device android, or --device local",
        )


def _open_devices(
    places: tuple[Where, ...], serials: list[str] | None, adb: str | None, folder: str | None
) -> list[Device]:
    """The devices that were asked for; the Python runtimes are none."""
    from android_harness.devices.adb import FOLDER, AdbDevice
    from android_harness.devices.discovery import choose, find_adb
    from android_harness.devices.folder import require_possible
    from android_harness.devices.local import LocalDevice

    for option, given in (("--serial", serials), ("--adb", adb), ("--device-dir", folder)):
        if given and Where.ANDROID not in places:
            raise UsageError(f"{option} without --device android", fix="add --device android")
    devices: list[Device] = []
    if Where.LOCAL in places:
        devices.append(LocalDevice())
    if Where.ANDROID in places:
        # Before a device is asked how much space there is: it would look for the root for ever.
        require_possible(folder or FOLDER)
        program = find_adb(adb)
        devices += [
            AdbDevice(chosen.serial, program, folder or FOLDER)
            for chosen in choose(program, serials or [])
        ]
    return devices


def _clean(devices: list[Device]) -> None:
    from android_harness.devices.folder import DeviceFolder

    for device in devices:
        removed = DeviceFolder(device).clean()
        said = f"removed {device.folder}" if removed else f"there is no {device.folder}"
        console.print(f"{device.name}: {said}")


def _measure(
    opened: Opened,
    places: tuple[Where, ...],
    devices: list[Device],
    plan: DevicePlan,
    host: tuple[int | None, int | None],
    runtime: str | None,
    say: Say,
) -> Results:
    from android_harness.bench import bench_devices, collect, sparing_others
    from android_harness.devices.adb import AdbDevice
    from android_harness.host import measure_host
    from android_harness.interleaving import Plan
    from android_harness.runners.selection import runners_for

    reports: list[DeviceReport] = []
    lost: dict[str, str] = {}
    phones: list[Device] = [device for device in devices if isinstance(device, AdbDevice)]
    here = [device for device in devices if device not in phones]
    # Phones first, because much can be missing there; alone, because adb's work is in the way here.
    for group in (group for group in (phones, here) if group):
        found, gone = bench_devices(
            opened,
            group,
            lambda facts: runners_for(facts, runtime, say),
            plan,
            say,
            alone=not (reports or lost),
        )
        reports += found
        lost |= gone
    if Where.HOST in places:
        rounds, calls = host
        length = Plan(blocks=rounds or 20, block_calls=calls or 25)
        with sparing_others(Where.HOST, lost) if reports or lost else nullcontext():
            reports.insert(0, measure_host(opened, length, plan.threads, say))
    return collect(opened, reports, threads=plan.threads, plan=plan, lost=lost)


def _show(results: Results, path: Path) -> None:
    """Print and keep `results`, and end with their exit code."""
    from android_harness.grids import notes_of
    from android_harness.tables import tables_of

    for table in tables_of(results):
        console.print(table)
    for note in notes_of(results):
        console.print(note)
    if results.devices:
        results.save(path)
        console.print(f"results with raw samples: {path}")
    if results.failed:
        reasons = "; ".join(
            f"{device.title}, {row.name}: {', '.join(row.verdict.reasons)}"
            for device in results.devices
            for row in device.failed
        )
        raise ParityError(reasons, fix="export again; a stale or damaged artefact is not shipped")
    if results.lost:
        raise MissingError(
            f"nothing was measured on {', '.join(results.lost)}", fix="see above, and try again"
        )
    raise typer.Exit(ExitCode.UNVERIFIED if results.unverified else ExitCode.OK)


def _export_first(bundle: Path) -> None:
    """Build what ``swipe-export all --quantize`` builds: there is nothing else to measure here."""
    from exporter.bundle import Request, export
    from exporter.cache import default_folder
    from exporter.origins.requests import SwipeRequest
    from exporter.policy import Policy
    from exporter.targets import TARGETS
    from train.released import default_checkpoint

    console.print(f"no {bundle} here yet: exporting it first, as swipe-export all --quantize does")
    asked = SwipeRequest(default_checkpoint())
    export(Request(TARGETS, asked, bundle, Policy(), default_folder()), console.print)


def main() -> None:
    """Console script ``swipe-bench``."""
    run(app)


if __name__ == "__main__":
    main()
