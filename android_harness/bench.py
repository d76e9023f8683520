"""One run over a bundle: this machine, its native runners, phones; one file of results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Event
from typing import Final

from android_harness.artefacts import Opened
from android_harness.devices import Device, Facts
from android_harness.devices.process import end_programs
from android_harness.devices.requirements import require_usable
from android_harness.judgement import judge_device
from android_harness.measurement import DevicePlan, Measured, measure_device
from android_harness.results import DeviceReport, Results
from android_harness.runners.sets import RunnerSet
from exporter.provenance import library_versions
from swipe.errors import SwipeError
from swipe.files import size_bytes
from swipe.progress import Say

SCRATCH_BYTES: Final = 64_000_000
"""For calls, answers and records on a device."""

FindRunners = Callable[[Facts], RunnerSet]
"""The runners for a device; raises MissingError when they are not built."""


def bench_devices(
    opened: Opened, devices: Sequence[Device], find: FindRunners, plan: DevicePlan, say: Say
) -> tuple[list[DeviceReport], dict[str, str]]:
    """Measure an opened bundle on `devices`, side by side.

    Returns:
        The reports, and the reasons of devices that gave nothing, by name. A device that is lost
        does not spoil the others.

    Raises:
        SwipeError: the only device gave nothing.
    """
    if len(devices) == 1:
        measured = [_measure(opened, devices[0], find, plan, say)]
        return _judge(opened, measured, plan, say), {}
    gone: dict[str, str] = {}
    stopped = Event()
    with ThreadPoolExecutor(len(devices)) as pool:
        waiting = {
            device.name: pool.submit(_measure, opened, device, find, plan, _until(stopped, say))
            for device in devices
        }
        try:
            measured = [
                found for name, future in waiting.items() if (found := _settled(name, future, gone))
            ]
        except BaseException:  # interrupts reach this thread only, and the pool is waited for
            stopped.set()
            end_programs()
            raise
    return _judge(opened, measured, plan, say), gone


def _until(stopped: Event, say: Say) -> Say:
    """`say` that ends its caller once `stopped` is set: something is said before every run."""

    def told(line: str) -> None:
        if stopped.is_set():
            raise CancelledError
        say(line)

    return told


def _measure(
    opened: Opened, device: Device, find: FindRunners, plan: DevicePlan, say: Say
) -> Measured:
    facts = device.facts()
    require_usable(facts)
    runners = find(facts)
    sizes = [file.size_bytes for file in runners.manifest.files.values()]
    sizes += [size_bytes(artefact.path) for artefact in opened.artefacts]
    require_usable(facts, need_bytes=sum(sizes) + SCRATCH_BYTES)
    return measure_device(device, facts, opened.artefacts, runners, plan, say)


def _settled(name: str, future: Future[Measured], gone: dict[str, str]) -> Measured | None:
    """What a device gave; a device that gave nothing is put into `gone`."""
    try:
        return future.result()
    except SwipeError as error:
        gone[name] = f"{error}; {error.fix}"
        return None


def _judge(
    opened: Opened, measured: Sequence[Measured], plan: DevicePlan, say: Say
) -> list[DeviceReport]:
    reports = []
    for found in measured:
        say(f"{found.facts.serial}: parity of its outputs")
        reports.append(judge_device(found, opened.artefacts, plan))
    return reports


def collect(
    opened: Opened,
    reports: Sequence[DeviceReport],
    *,
    threads: int,
    plan: DevicePlan | None = None,
    lost: dict[str, str] | None = None,
) -> Results:
    """The file of results."""
    source = opened.manifest.source
    return Results(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=library_versions(),
        identity=source.identity,
        weights_sha256=source.weights_sha256,
        samples=source.samples,
        verification_samples=source.verification_samples,
        verification_sha256=source.verification_sha256,
        lexicon=dict(opened.subjects.decoding),
        threads=threads,
        cpus=plan and plan.cpus,
        ep="cpu" if plan is None else plan.ep,
        devices=tuple(reports),
        lost=lost or {},
    )
