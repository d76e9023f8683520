"""Results as one HTML file with charts, for those who were not there; see `exporter.html`.

It shows what the console shows (`android_harness.grids`), what each device is, and three charts.
Everything that comes from results is escaped: models, properties and reasons are other people's
text. An emulator's latency is not drawn beside that of hardware.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import numpy as np

from android_harness.charts import (
    STYLE,
    Bar,
    Course,
    Piece,
    Rounds,
    draw_courses,
    draw_latency,
    draw_rounds,
)
from android_harness.devices import Thermal
from android_harness.grids import (
    Grid,
    device_grids,
    device_notes,
    labels_of,
    lost_notes,
    side_by_side,
    sustained_grid,
)
from android_harness.results import DeviceReport, Results, Row
from android_harness.stats import Latency
from android_harness.thermal import DRIFT
from exporter.html import escape, page, table
from exporter.parity import Status
from swipe.errors import GateError

LEAST_ROUNDS: Final = 3
"""Fewer show no drift."""

BETWEEN_MS: Final = (1e-6, 1e9)
"""What can be a latency: a nanosecond, the clock's step, to eleven days."""

_STYLE: Final = """
h3{font-size:1rem}.facts td{white-space:normal}.facts td:last-child{text-align:left}
.facts td:first-child{white-space:nowrap;vertical-align:top}
"""
_NOT_SAID: Final = "not said"


def render(measured: Sequence[Results]) -> str:
    """The page of any number of results.

    Raises:
        GateError: a latency is none: not a number, or impossible.
    """
    devices = [device for results in measured for device in results.devices]
    for device in devices:
        _check(device)
    labels = labels_of(devices)
    named = iter(labels)
    body = [
        "<h1>Measurements</h1>",
        *(part for results in measured for part in _head(results)),
        "<h2>Latency</h2>",
        *_latency(devices, labels),
        *_apart(measured),
        *(
            part
            for results in measured
            for device in results.devices
            for part in _device(device, next(named), results)
        ),
        "<h2>Where it comes from</h2>",
        *map(_provenance, measured),
    ]
    return page("Measurements", body, STYLE + _STYLE)


def _check(device: DeviceReport) -> None:
    low, high = BETWEEN_MS
    for name, figure in _figures(device):
        if not (low <= figure <= high):
            raise GateError(
                f"{device.title}, {name}: a latency of {figure:g} ms",
                fix="measure again: the results are damaged",
            )


def _figures(device: DeviceReport) -> Iterator[tuple[str, float]]:
    """Every latency that is drawn, with its artefact's name."""
    for row in device.rows:
        for figure in () if row.latency is None else _all_of(row.latency):
            yield row.name, figure
        for samples in row.latency_ns:
            yield row.name, min(samples, default=0) / 1e6
    for name, slices in device.sustained.items():
        for piece in slices:
            yield name, piece.p50_ms


def _all_of(latency: Latency) -> Iterator[float]:
    yield from (latency.p50_ms, latency.p90_ms, latency.p99_ms)
    yield from (figure for interval in latency.intervals_ms or () for figure in interval)


def _head(results: Results) -> Iterator[str]:
    cpus = "" if results.cpus is None else f" on CPUs {results.cpus}"
    yield _paragraph(
        f"{results.created}: {len(results.devices)} device(s), {results.threads} thread(s){cpus}, "
        f"provider {results.ep}; every artefact was checked on {results.verification_samples:,} "
        f"samples: {results.samples}."
    )
    yield from _list(lost_notes(results))


def _latency(devices: Sequence[DeviceReport], labels: Sequence[str]) -> Iterator[str]:
    emulated = [n for d, n in zip(devices, labels, strict=True) if d.facts.emulated is not None]
    bars = [
        _bar(row, row.latency, label, number)
        for number, (device, label) in enumerate(zip(devices, labels, strict=True))
        if device.facts.emulated is None
        for row in device.rows
        if row.latency is not None
    ]
    if bars:
        yield draw_latency(bars)
        yield _soft(
            "A dot is the median (p50, on the right), the band behind it what other rounds would "
            "have given (95 %); the short mark is p90, the long one p99. A hollow dot and ! are a "
            "latency that is not to be used; the reason is shown when you point at it, and below."
        )
    else:
        yield _paragraph("No latency was measured on hardware.")
    if emulated:
        yield _soft(
            f"Not in the chart: {', '.join(emulated)}: emulated, which says nothing about hardware."
        )
    if len(devices) > 1:
        yield from _grid(side_by_side(devices))


def _apart(measured: Sequence[Results]) -> Iterator[str]:
    if len({results.weights_sha256 for results in measured}) > 1:
        yield _paragraph("These are results of different weights: one name, several models.")


def _bar(row: Row, latency: Latency, label: str, number: int) -> Bar:
    return Bar(
        artefact=row.name,
        device=label,
        number=number,
        p50_ms=latency.p50_ms,
        p90_ms=latency.p90_ms,
        p99_ms=latency.p99_ms,
        between_ms=latency.intervals_ms[0] if latency.intervals_ms else None,
        invalid=row.invalid,
    )


def _device(device: DeviceReport, label: str, results: Results) -> Iterator[str]:
    yield f"<h2>{escape(label)}</h2>"
    yield _facts_table(_facts(device, results))
    for grid in device_grids(device, results):
        yield from _grid(grid)
    yield from _list([*_refused(device), *device_notes(device)])
    yield from _drift(device)
    yield from _long_run(device)


def _refused(device: DeviceReport) -> Iterator[str]:
    for row in device.failed:
        reasons = "; ".join(row.verdict.reasons)
        yield f"{device.title}, {row.name}: {row.verdict.status}: {reasons}"


def _drift(device: DeviceReport) -> Iterator[str]:
    rounds = [
        Rounds(row.name, tuple(float(np.median(r)) / 1e6 for r in row.latency_ns), row.invalid)
        for row in device.rows
        if len(row.latency_ns) >= LEAST_ROUNDS
    ]
    if rounds:
        yield "<h3>Drift over the rounds</h3>"
        # The machine around an emulator drifts, and nobody judges the rounds of the host.
        judged = device.facts.kind != "host" and device.facts.emulated is None
        yield draw_rounds(rounds, DRIFT if judged else None)
        limit = (
            f" The dashed line is at {DRIFT:.2f} times the first: a last round above it makes the "
            "latency invalid."
        )
        yield _soft(
            "The median of every round over that of the first, all to one scale; the last one's is "
            "on the right." + (limit if judged else "")
        )


def _long_run(device: DeviceReport) -> Iterator[str]:
    courses = [
        Course(name, tuple(Piece(s.at_s, s.p50_ms, _degrees(s.temp_mc)) for s in slices))
        for name, slices in device.sustained.items()
        if slices
    ]
    if courses:
        yield "<h3>A long run</h3>"
        yield draw_courses(courses)
        hot = any(piece.temp_c is not None for course in courses for piece in course.pieces)
        thin = " The thin line is the temperature of the hottest CPU zone." if hot else ""
        yield _soft("p50 of each piece; every artefact has its own scale." + thin)
        grid = sustained_grid(device)
        summary = f"<summary>{escape(grid.title)}, in figures</summary>"
        yield f"<details>{summary}{_table(grid)}</details>"


def _facts(device: DeviceReport, results: Results) -> Iterator[tuple[str, str]]:
    facts = device.facts
    megahertz = sorted({khz // 1000 for khz in facts.cpu_max_khz})
    engines = dict.fromkeys(f"{r.engine.name} {r.engine.version}" for r in device.rows if r.engine)
    yield "device", facts.kind if facts.serial == facts.kind else f"{facts.kind} {facts.serial}"
    yield "measured", results.created
    yield "model", facts.model or _NOT_SAID
    yield "chip", facts.soc or _NOT_SAID
    yield "ABI", facts.abi
    level = _NOT_SAID if facts.sdk is None else f"API level {facts.sdk}"
    other = "no" if facts.sdk is None else f"{level}, but its programs are not Android's"
    yield "Android", level if facts.android else other
    yield "system", facts.build or _NOT_SAID
    yield "governors", ", ".join(facts.governors) or _NOT_SAID
    yield "highest MHz", ", ".join(map(str, megahertz)) or _NOT_SAID
    yield "emulated", facts.emulated or "no sign of it"
    yield "engines", ", ".join(engines) or "the Python runtimes, see below"
    if device.thermal:
        yield "waited to cool down", f"{device.waited_s:.0f} s"
        for when, thermal in zip(("before", "after"), device.thermal, strict=False):
            yield when, _heat(thermal)
        yield "throttled", "; ".join(device.throttled) or "no sign of it"


def _heat(thermal: Thermal) -> str:
    said = [] if thermal.status is None else [f"thermal status {thermal.status}"]
    said += [] if thermal.battery_c is None else [f"battery {thermal.battery_c:.1f} °C"]
    said += [f"{name} {heat / 1000:.1f} °C" for name, heat in thermal.zones_mc.items()]
    said += [] if thermal.charging is None else ["charging" if thermal.charging else "not charging"]
    return ", ".join(said) or _NOT_SAID


def _provenance(results: Results) -> str:
    facts = {
        "measured": results.created,
        "weights": results.weights_sha256,
        **results.identity,
        "samples": results.verification_sha256,
        **{f"lexicon {name}": fact for name, fact in results.lexicon.items()},
        **results.versions,
    }
    return _facts_table(facts.items())


def _grid(grid: Grid) -> Iterator[str]:
    yield f"<h3>{escape(grid.title)}</h3>"
    yield _table(grid)
    if grid.caption is not None:
        yield _soft(grid.caption)


def _table(grid: Grid) -> str:
    return table(grid.headings, ([_cell(text) for text in row] for row in grid.rows))


def _cell(text: str) -> str:
    return f'<span class="{text}">{text}</span>' if text in tuple(Status) else escape(text)


def _facts_table(facts: Iterable[tuple[str, str]]) -> str:
    rows = [(escape(name), f"<code>{escape(fact)}</code>") for name, fact in facts]
    return f'<div class="facts">{table(("", ""), rows)}</div>'


def _list(lines: Iterable[str]) -> Iterator[str]:
    items = [f"<li>{escape(line)}</li>" for line in lines]
    if items:
        yield f"<ul>{''.join(items)}</ul>"


def _paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def _soft(text: str) -> str:
    return f'<p class="soft">{escape(text)}</p>'


def _degrees(thousandths: int | None) -> float | None:
    return None if thousandths is None else thousandths / 1000
