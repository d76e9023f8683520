"""Results as grids of text: latency and parity per device, devices side by side, and notes.

What the console and the page show, which add only their own borders and colours. An emulator's
latency is shown as what it is and never set in relation to anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from android_harness.results import EAGER, DeviceReport, Results, Row
from exporter.figures import BRIEF, brief_cells


@dataclass(frozen=True, slots=True)
class Grid:
    """A table before anybody draws it.

    Attributes:
        title: what it shows.
        headings: of the columns; the first one names the rows.
        rows: a text for every heading.
        caption: how to read it.
    """

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str | None = None


def device_grids(device: DeviceReport, results: Results) -> Iterator[Grid]:
    """Latency and parity on one of the devices of `results`."""
    yield _latency_grid(device, results.threads)
    yield _parity_grid(device, results)
    if any(row.from_host for row in device.rows):
        yield _places_grid(device)


def grids_of(results: Results) -> Iterator[Grid]:
    """All of `results`."""
    for device in results.devices:
        yield from device_grids(device, results)
        if device.sustained:
            yield sustained_grid(device)
    if len(results.devices) > 1:
        yield side_by_side(results.devices)


def notes_of(results: Results) -> Iterator[str]:
    """What a reader has to know besides."""
    for device in results.devices:
        yield from device_notes(device)
    yield from lost_notes(results)


def device_notes(device: DeviceReport) -> Iterator[str]:
    """The same, of one device."""
    for name, reason in device.skipped.items():
        yield f"{device.title}, {name}: UNVERIFIED, not executed there: {reason}"
    if device.elsewhere:
        yield f"{device.title}: not for such a device: {', '.join(device.elsewhere)}"
    if device.facts.emulated is not None:
        yield f"{device.title}: EMULATED ({device.facts.emulated}): no latency of hardware"
    for row in device.untold:
        yield f"{device.title}, {row.name}: UNVERIFIED: {'; '.join(row.verdict.reasons)}"
    for row in device.rows:
        for reason in row.invalid:
            yield f"{device.title}, {row.name}: latency INVALID: {reason}"


def lost_notes(results: Results) -> Iterator[str]:
    """The same, of devices that gave nothing."""
    for name, reason in results.lost.items():
        yield f"{name}: LOST, nothing was measured: {reason}"


def labels_of(devices: Sequence[DeviceReport]) -> list[str]:
    """Their titles, numbered where several have the same: two phones of a kind, or two days."""
    total, met = Counter(device.title for device in devices), Counter[str]()
    labels = []
    for device in devices:
        met[device.title] += 1
        number = f" #{met[device.title]}" if total[device.title] > 1 else ""
        labels.append(device.title + number)
    return labels


def sustained_grid(device: DeviceReport) -> Grid:
    """Every piece of its long runs."""
    return Grid(
        f"{device.title}: sustained",
        ("artefact", "after s", "p50 ms", "p90 ms", "C", "MHz"),
        tuple(
            (
                name,
                f"{piece.at_s:.0f}",
                f"{piece.p50_ms:.3f}",
                f"{piece.p90_ms:.3f}",
                "-" if piece.temp_mc is None else f"{piece.temp_mc / 1000:.1f}",
                "-" if piece.khz_max is None else f"{piece.khz_max / 1000:.0f}",
            )
            for name, slices in device.sustained.items()
            for piece in slices
        ),
    )


def side_by_side(devices: Sequence[DeviceReport]) -> Grid:
    """p50 of every artefact on every device; only real and valid ones may be compared."""
    timed = (row for device in devices for row in device.rows if row.latency is not None)
    emulated = any(device.facts.emulated is not None for device in devices)
    return Grid(
        "p50 ms by device",
        ("implementation", *labels_of(devices)),
        tuple(
            (name, *(_p50(device, name) for device in devices))
            for name in dict.fromkeys(row.name for row in timed)
        ),
        "(…) emulated: not to be compared" if emulated else None,
    )


def _p50(device: DeviceReport, name: str) -> str:
    for row in device.rows:
        if row.name == name and row.latency is not None:
            return _marked(device, row, f"{row.latency.p50_ms:.3f}")
    return "-"


def _marked(device: DeviceReport, row: Row, figure: str) -> str:
    if device.facts.emulated is not None:
        return f"({figure})"
    return f"{figure} !" if row.invalid else figure


def _latency_grid(device: DeviceReport, threads: int) -> Grid:
    percentiles = ("p50 ms", "95 %", "p90 ms", "p99 ms")
    headings = ["implementation", "kB", "load ms", "first ms", *percentiles, "x eager", "MB"]
    eager = device.eager_ms
    if eager is None or device.facts.emulated is not None:
        headings.remove("x eager")
    cells = [_latency_cells(row, eager) for row in device.rows if row.latency is not None]
    return Grid(
        f"{device.title}: latency per call, {threads} thread(s)",
        tuple(headings),
        tuple(tuple(row[heading] for heading in headings) for row in cells),
    )


def _latency_cells(row: Row, eager: float | None) -> dict[str, str]:
    latency, memory = row.latency, row.memory
    if latency is None:
        raise AssertionError("only measured rows are shown")
    between = latency.intervals_ms and latency.intervals_ms[0]
    peak = memory and memory.rss.peak
    return {
        "implementation": _name(row),
        "kB": f"{row.size_bytes / 1000:.0f}",
        "load ms": f"{float(np.median(row.load_ms)):.1f}",
        "first ms": f"{float(np.median(row.first_ms)):.2f}",
        "p50 ms": f"{latency.p50_ms:.3f}" + (" !" if row.invalid else ""),
        "95 %": f"{between[0]:.3f}-{between[1]:.3f}" if between else "-",
        "p90 ms": f"{latency.p90_ms:.3f}",
        "p99 ms": f"{latency.p99_ms:.3f}",
        "x eager": f"{latency.p50_ms / eager:.2f}" if eager else "-",
        "MB": f"{peak * 1024 / 1e6:.0f}" if peak else "-",  # the kernel's kB are 1024 bytes
    }


def _parity_grid(device: DeviceReport, results: Results) -> Grid:
    return Grid(
        f"{device.title}: against PyTorch on {results.verification_samples:,} samples: "
        f"{results.samples}",
        ("implementation", *BRIEF, "verdict", "level"),
        tuple(
            (
                _name(row),
                *brief_cells(row.verdict.metrics),
                row.verdict.status,
                row.verdict.level,
            )
            for row in device.rows
        ),
        "* is the artefact to ship",
    )


def _places_grid(device: DeviceReport) -> Grid:
    """The same files there and on this machine."""
    headings = ("max delta", "same bits", "decisions", "words", "S/D/I")
    return Grid(
        f"{device.title}: against the same file on this machine",
        ("implementation", *headings),
        tuple((_name(row), *_place_cells(row)) for row in device.rows if row.from_host),
        "S/D/I: letters of the words against PyTorch's words",
    )


def _place_cells(row: Row) -> list[str]:
    edits, host = row.word_edits, row.from_host
    if host is None:
        raise AssertionError("only rows that were compared are shown")
    return [
        f"{host.max_abs_delta:.1e}",
        f"{host.identical:.1%}",
        "-" if host.decisions is None else f"{host.decisions:.2%}",
        "-" if host.words is None else f"{host.words:.2%}",
        f"{edits.substitutions}/{edits.deletions}/{edits.insertions}" if edits else "-",
    ]


def _name(row: Row) -> str:
    return row.name + (" *" if row.taken and row.name != EAGER else "")
