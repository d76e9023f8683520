"""One run over a bundle: this machine, its native runners, phones; one file of results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
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
    opened: Opened,
    devices: Sequence[Device],
    find: FindRunners,
    plan: DevicePlan,
    say: Say,
    *,
    alone: bool = True,
) -> tuple[list[DeviceReport], dict[str, str]]:
    """Measure an opened bundle on `devices`, side by side.

    Args:
        opened: the bundle.
        devices: at least one.
        find: the runners for each.
        plan: how long and how to measure.
        say: told what is going on.
        alone: whether nothing else was asked for before.

    Returns:
        The reports, and the reasons of devices that gave nothing, by name. A device that is lost
        does not spoil the others.

    Raises:
        SwipeError: the only device gave nothing.
    """
    if len(devices) == 1 and alone:
        measured = _measure(opened, devices[0], find, plan, say)
        return [_judge(opened, measured, plan, say)], {}
    found: dict[str, Measured] = {}
    gone: dict[str, str] = {}
    stopped = Event()
    with ThreadPoolExecutor(len(devices)) as pool:
        waiting = {
            device.name: pool.submit(_measure, opened, device, find, plan, _until(stopped, say))
            for device in devices
        }
        try:
            for name, future in waiting.items():
                with sparing_others(name, gone):
                    found[name] = future.result()
        except BaseException:  # interrupts reach this thread only, and the pool is waited for
            stopped.set()
            end_programs()
            raise
    reports = []
    for name, measured in found.items():
        with sparing_others(name, gone):
            reports.append(_judge(opened, measured, plan, say))
    return reports, gone


@contextmanager
def sparing_others(name: str, gone: dict[str, str]) -> Iterator[None]:
    """Put the device `name` into `gone`, with the reason, if it gives nothing."""
    try:
        yield
    except SwipeError as error:
        gone[name] = f"{error}; {error.fix}"


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


def _judge(opened: Opened, measured: Measured, plan: DevicePlan, say: Say) -> DeviceReport:
    say(f"{measured.facts.serial}: parity of its outputs")
    return judge_device(measured, opened.artefacts, plan)


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
        lexicon=_as_text(opened.subjects.decoding),
        threads=threads,
        cpus=plan and plan.cpus,
        ep="cpu" if plan is None else plan.ep,
        devices=tuple(reports),
        lost=_as_text(lost or {}),
    )


def _as_text(facts: Mapping[str, str]) -> dict[str, str]:
    """What may hold the name of a file, which need not be text, as JSON takes it."""
    return {name: fact.encode(errors="backslashreplace").decode() for name, fact in facts.items()}
