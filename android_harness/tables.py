"""Results on screen: a latency table and a parity table per device, and devices side by side.

An emulator's latency is shown as what it is and never set in relation to anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from android_harness.results import EAGER, DeviceReport, Results, Row
from exporter.figures import BRIEF, brief_cells
from swipe.console import make_table

if TYPE_CHECKING:
    from rich.table import Table

    from android_harness.diff import Comparison


def tables_of(results: Results) -> Iterator[Table]:
    """All tables of `results`."""
    for device in results.devices:
        yield _latency_table(device, results.threads)
        yield _parity_table(device, results)
        if device.sustained:
            yield _sustained_table(device)
    if len(results.devices) > 1:
        yield side_by_side(results.devices)


def notes_of(results: Results) -> Iterator[str]:
    """What a reader has to know besides."""
    for device in results.devices:
        for name, reason in device.skipped.items():
            yield f"{device.title}, {name}: UNVERIFIED, not executed there: {reason}"
        if device.elsewhere:
            yield f"{device.title}: not for such a device: {', '.join(device.elsewhere)}"
        if device.facts.emulated is not None:
            yield f"{device.title}: EMULATED ({device.facts.emulated}): no latency of hardware"
        for row in device.rows:
            for reason in row.invalid:
                yield f"{device.title}, {row.name}: latency INVALID: {reason}"
    for name, reason in results.lost.items():
        yield f"{name}: LOST, nothing was measured: {reason}"


def side_by_side(devices: Sequence[DeviceReport]) -> Table:
    """p50 of every artefact on every device; only real and valid ones may be compared."""
    table = make_table("p50 ms by device", "implementation", *(d.title for d in devices))
    timed = (row for device in devices for row in device.rows if row.latency is not None)
    names = dict.fromkeys(row.name for row in timed)
    for name in names:
        table.add_row(name, *(_p50(device, name) for device in devices))
    if any(device.facts.emulated for device in devices):
        table.caption = "(…) emulated: not to be compared"
    return table


def comparison_table(comparison: Comparison) -> Table:
    """What changed between two results."""
    table = make_table("changes", "device", "artefact", "figure", "old", "new", "")
    for change in comparison.changes:
        verdict = "WORSE" if change.worse else ""
        table.add_row(change.device, change.row, change.figure, change.old, change.new, verdict)
    return table


def _p50(device: DeviceReport, name: str) -> str:
    for row in device.rows:
        if row.name == name and row.latency is not None:
            return _marked(device, row, f"{row.latency.p50_ms:.3f}")
    return "-"


def _marked(device: DeviceReport, row: Row, figure: str) -> str:
    if device.facts.emulated is not None:
        return f"({figure})"
    return f"{figure} !" if row.invalid else figure


def _latency_table(device: DeviceReport, threads: int) -> Table:
    percentiles = ("p50 ms", "95 %", "p90 ms", "p99 ms")
    headings = ["implementation", "kB", "load ms", "first ms", *percentiles, "x eager", "MB"]
    eager = device.eager_ms
    if eager is None or device.facts.emulated is not None:
        headings.remove("x eager")
    table = make_table(f"{device.title}: latency per call, {threads} thread(s)", *headings)
    for row in device.rows:
        if row.latency is not None:
            cells = dict(zip(headings, [_name(row)], strict=False)) | _latency_cells(row, eager)
            table.add_row(*(cells[heading] for heading in headings))
    return table


def _latency_cells(row: Row, eager: float | None) -> dict[str, str]:
    latency, memory = row.latency, row.memory
    if latency is None:
        raise AssertionError("only measured rows are shown")
    between = latency.intervals_ms and latency.intervals_ms[0]
    peak = memory and memory.rss.peak
    return {
        "kB": f"{row.size_bytes / 1000:.0f}",
        "load ms": f"{float(np.median(row.load_ms)):.1f}",
        "first ms": f"{float(np.median(row.first_ms)):.2f}",
        "p50 ms": f"{latency.p50_ms:.3f}" + (" !" if row.invalid else ""),
        "95 %": f"{between[0]:.3f}-{between[1]:.3f}" if between else "-",
        "p90 ms": f"{latency.p90_ms:.3f}",
        "p99 ms": f"{latency.p99_ms:.3f}",
        "x eager": f"{latency.p50_ms / eager:.2f}" if eager else "-",
        "MB": f"{peak / 1000:.0f}" if peak else "-",
    }


def _parity_table(device: DeviceReport, results: Results) -> Table:
    title = (
        f"{device.title}: against PyTorch on {results.verification_samples:,} samples: "
        f"{results.samples}"
    )
    there = ("S/D/I", "= host", "words = host")
    devices = there if any(row.from_host for row in device.rows) else ()
    table = make_table(title, "implementation", *BRIEF, *devices, "verdict", "level")
    table.caption = "* is the artefact to ship"
    for row in device.rows:
        verdict = row.verdict
        cells = _device_cells(row) if devices else []
        table.add_row(
            _name(row), *brief_cells(verdict.metrics), *cells, verdict.status, verdict.level
        )
    return table


def _device_cells(row: Row) -> list[str]:
    """Letters of words against PyTorch's, and the same file on this machine."""
    edits, host = row.word_edits, row.from_host
    return [
        f"{edits.substitutions}/{edits.deletions}/{edits.insertions}" if edits else "-",
        f"{host.identical:.1%}" if host else "-",
        f"{host.words:.2%}" if host and host.words is not None else "-",
    ]


def _sustained_table(device: DeviceReport) -> Table:
    table = make_table(
        f"{device.title}: sustained", "artefact", "after s", "p50 ms", "p90 ms", "C", "MHz"
    )
    for name, slices in device.sustained.items():
        for piece in slices:
            table.add_row(
                name,
                f"{piece.at_s:.0f}",
                f"{piece.p50_ms:.3f}",
                f"{piece.p90_ms:.3f}",
                "-" if piece.temp_mc is None else f"{piece.temp_mc / 1000:.1f}",
                "-" if piece.khz_max is None else f"{piece.khz_max / 1000:.0f}",
            )
    return table


def _name(row: Row) -> str:
    return row.name + (" *" if row.taken and row.name != EAGER else "")
