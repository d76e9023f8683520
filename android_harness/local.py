"""Bench a bundle on this machine: PyTorch eager and every artefact that can be executed here."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from android_harness.protocol import Loader, Plan, Timing, measure
from android_harness.stats import Latency, summarize
from exporter.evidence import Evidence, judge
from exporter.formats import Runner
from exporter.ladder import foreign_metadata, limits_of
from exporter.manifest import (
    CHECKPOINT,
    Manifest,
    RungEntry,
    load_manifest,
    require_unaltered,
)
from exporter.origins import reopen
from exporter.parity import Level, Limits, Status, Verdict, refused
from exporter.provenance import library_versions
from exporter.targets import Target, find_target
from swipe.errors import GateError

SCHEMA: Final = "swipe-export/bench/3"
EAGER: Final = "pytorch eager"


@dataclass(frozen=True, slots=True)
class Row:
    """One implementation's results.

    Attributes:
        name: e.g. "onnx baked int8".
        taken: whether the manifest ships it.
        size_bytes: of the artefact; for PyTorch, of the checkpoint.
        timing: loading, first call and raw samples; None where an interpreter stands in for the
            format's runtime, whose time would say nothing.
        latency: its percentiles.
        verdict: parity with PyTorch on the bundle's verification samples.
    """

    name: str
    taken: bool
    size_bytes: int
    timing: Timing | None
    latency: Latency | None
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Bench:
    """All results of one run.

    Attributes:
        rows: one per implementation that was measured; PyTorch first.
        skipped: artefacts that cannot be executed here, with the reason; never a pass.
        manifest: the bundle's manifest.
        threads: CPU threads each implementation was given.
        decoding: name and hash of the lexicon that decoded; empty where none did.
    """

    rows: tuple[Row, ...]
    skipped: dict[str, str]
    manifest: Manifest
    threads: int
    decoding: Mapping[str, str]

    @property
    def failed(self) -> list[Row]:
        """Rows that missed a parity limit."""
        return [row for row in self.rows if row.verdict.status is not Status.PASS]

    @property
    def eager_ms(self) -> float:
        """PyTorch's median latency, which is always measured."""
        (eager,) = [row.latency for row in self.rows if row.name == EAGER]
        if eager is None:
            raise AssertionError("PyTorch was measured")
        return eager.p50_ms

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready results, raw samples included."""
        rows = [{**asdict(row), "verdict": row.verdict.to_dict()} for row in self.rows]
        return {
            "schema": SCHEMA,
            "device": "local",
            "machine": f"{platform.system()} {platform.machine()}",
            "emulated": False,
            "threads": self.threads,
            "versions": library_versions(),
            **self.manifest.source.identity,
            "weights_sha256": self.manifest.source.weights_sha256,
            "samples": self.manifest.source.samples,
            "lexicon": self.decoding,
            "rows": rows,
            "skipped": self.skipped,
        }


def bench(
    folder: Path, plan: Plan, threads: int, lexicon: str | None, observe: Callable[[str], None]
) -> Bench:
    """Measure latency and parity of every implementation in the bundle at `folder`.

    Args:
        folder: a bundle written by ``swipe-export``.
        plan: how long to measure.
        threads: CPU threads per implementation.
        lexicon: lexicon to decode swipes with; None: the manifest's.
        observe: told what is going on.

    Raises:
        UsageError: there is no bundle, or its lexicon or factory is not here.
        GateError: an artefact, the checkpoint or the samples are not the manifest's.
    """
    import torch

    torch.set_num_threads(threads)
    manifest = load_manifest(folder)
    source = manifest.source
    subjects = reopen(folder, source, lexicon=lexicon, say=observe)
    rounding = source.reference_rounding
    names = {subjects.eager_view, *(entry.view for entry in manifest.formats)}
    evidence = {name: subjects.evidence(name) for name in names}
    loaders: dict[str, Loader] = {EAGER: subjects.eager}
    float_limits = find_target("onnx").baseline.limits.allowing(rounding)
    entries: dict[str, _Judged] = {
        EAGER: _Judged(None, float_limits, evidence[subjects.eager_view], Level.HOST)
    }
    interpreted: dict[str, Runner] = {}
    skipped: dict[str, str] = {}
    for format_entry in manifest.formats:
        target = find_target(format_entry.format)
        for entry in format_entry.rungs:
            if entry.file is None:
                continue
            name = f"{target.name} {format_entry.view} {entry.rung}"
            path = require_unaltered(folder, entry)
            if not target.level.executed:
                skipped[name] = f"{target.name} executes on {'/'.join(target.executes_on)} only"
                continue
            foreign = foreign_metadata(target, path, subjects.metadata(format_entry.view))
            if foreign is not None:
                raise GateError(f"{path} {foreign}", fix="export again")
            if target.level is Level.REFERENCE:
                interpreted[name] = target.format().load(path)
            else:
                loaders[name] = _loader(target, path, threads)
            judged_by = evidence[format_entry.view]
            budget = manifest.accuracy_budget
            limits = limits_of(target, entry.rung, budget, judged_by.rounding)
            entries[name] = _Judged(entry, limits, judged_by, target.level)
    if len(entries) == 1 and not skipped:
        raise GateError(f"{folder} ships no artefact", fix="export again")
    calls = {name: entries[name].evidence.calls for name in loaders}
    runners, timings = measure(loaders, calls, plan, observe)
    rows = []
    for name, runner in (runners | interpreted).items():
        observe(f"parity of {name}")
        judged = entries[name]
        timing = timings.get(name)
        rows.append(
            Row(
                name=name,
                taken=judged.entry is not None and judged.entry.taken,
                size_bytes=(judged.entry and judged.entry.size_bytes)
                or (folder / CHECKPOINT).stat().st_size,
                timing=timing,
                latency=None if timing is None else summarize(timing.latency_ns),
                verdict=_verdict(runner, judged),
            )
        )
    return Bench(tuple(rows), skipped, manifest, threads, subjects.decoding)


@dataclass(frozen=True, slots=True, eq=False)
class _Judged:
    """An implementation, and what it is judged by; PyTorch itself has no entry in the manifest."""

    entry: RungEntry | None
    limits: Limits
    evidence: Evidence
    level: Level


def _loader(target: Target, path: Path, threads: int) -> Loader:
    return lambda: target.format().load(path, threads)


def _verdict(runner: Runner, judged: _Judged) -> Verdict:
    try:
        return judge(runner, judged.evidence, judged.limits, judged.level)
    except GateError as error:
        return refused(str(error), judged.level)
