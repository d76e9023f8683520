"""This machine through the Python runtimes: PyTorch eager and every artefact, in one run."""

from __future__ import annotations

import platform
from dataclasses import replace
from pathlib import Path

from android_harness.artefacts import Artefact, Opened, verdict_on
from android_harness.devices import Facts
from android_harness.devices.readings import ABI_OF_MACHINE, parse_cpuinfo
from android_harness.interleaving import Loader, Plan, Timing, measure
from android_harness.results import EAGER, DeviceReport, Row
from android_harness.stats import summarize
from exporter.evidence import Evidence
from exporter.formats import Runner
from exporter.manifest import CHECKPOINT
from exporter.manifest import Verdict as VerdictEntry
from exporter.parity import Level, refused
from exporter.targets import Target, find_target
from swipe.progress import Say


def measure_host(opened: Opened, plan: Plan, threads: int, say: Say) -> DeviceReport:
    """Latency and parity of PyTorch and of every artefact that can be executed here.

    Args:
        opened: the bundle.
        plan: how long to measure.
        threads: CPU threads per implementation.
        say: told what is going on.
    """
    import torch

    torch.set_num_threads(threads)
    loaders: dict[str, Loader] = {EAGER: opened.subjects.eager}
    interpreted: dict[str, Runner] = {}
    skipped: dict[str, str] = {}
    artefacts = {artefact.name: artefact for artefact in opened.artefacts}
    for name, artefact in artefacts.items():
        target = artefact.target
        if not target.level.executed:
            skipped[name] = f"{target.name} executes on {'/'.join(target.executes_on)} only"
        elif artefact.unread is not None:
            skipped[name] = artefact.unread
        elif target.level is Level.REFERENCE:
            interpreted[name] = target.format().load(artefact.path)
        else:
            loaders[name] = _loader(target, artefact.path, threads)
    eager = opened.evidence[opened.subjects.eager_view]
    calls = {
        name: (artefacts[name].evidence if name in artefacts else eager).calls for name in loaders
    }
    measured = measure(loaders, calls, plan, say)
    skipped |= measured.missing
    rows = []
    for name, runner in (measured.runners | interpreted).items():
        say(f"parity of {name}")
        timing = measured.timings.get(name)
        if name in artefacts:
            rows.append(_artefact_row(artefacts[name], runner, timing))
        else:
            rows.append(_eager_row(opened, eager, runner, timing))
    for name, reason in measured.failed.items():
        artefact = artefacts[name]
        rows.append(artefact.row(refused(reason, artefact.target.level)))
    return DeviceReport(facts=_facts(), rows=tuple(rows), skipped=skipped)


def _facts() -> Facts:
    machine = platform.machine()
    model = f"{platform.system()} {machine}"
    abi = ABI_OF_MACHINE.get(machine.lower(), machine)
    return Facts("host", "host", model, abi, sdk=None, android=False, soc=_processor())


def _processor() -> str | None:
    """What this machine calls its processor."""
    told = Path("/proc/cpuinfo")
    known = parse_cpuinfo(told.read_text()) if told.is_file() else {}
    return known.get("model name") or platform.processor() or None


def _loader(target: Target, path: Path, threads: int) -> Loader:
    return lambda: target.format().load(path, threads)


def _eager_row(opened: Opened, evidence: Evidence, runner: Runner, timing: Timing | None) -> Row:
    rounding = opened.manifest.source.reference_rounding
    limits = find_target("onnx").baseline.limits.allowing(rounding)
    # Bounds are an artefact's to keep: a module takes what it can compute.
    unbounded = replace(evidence, refusals=())
    verdict = verdict_on(runner, unbounded, limits, Level.HOST)
    return _row(
        Row(
            name=EAGER,
            format=None,
            view=None,
            rung=None,
            taken=False,
            sha256=None,
            size_bytes=(opened.folder / CHECKPOINT).stat().st_size,
            verdict=VerdictEntry(**verdict.to_dict()),
        ),
        timing,
    )


def _artefact_row(artefact: Artefact, runner: Runner, timing: Timing | None) -> Row:
    level = artefact.target.level
    verdict = verdict_on(runner, artefact.evidence, artefact.limits, level)
    return _row(artefact.row(verdict), timing)


def _row(row: Row, timing: Timing | None) -> Row:
    """`row` with its timing; None where an interpreter's time would say nothing."""
    if timing is None:
        return row
    return row.model_copy(
        update={
            "load_ms": timing.load_ms,
            "first_ms": (timing.first_ms,),
            "latency_ns": tuple(map(tuple, timing.latency_ns)),
            "latency": summarize(timing.latency_ns),
        }
    )
