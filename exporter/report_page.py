"""The bundle as one HTML file; `exporter.html` says how pages are made.

Everything that comes from a manifest is escaped: names of data sets, libraries and reasons are
other people's text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from exporter.figures import BRIEF, brief_cells
from exporter.html import escape, page, table
from exporter.manifest import FormatEntry, Manifest, RungEntry
from exporter.report_chart import Dot, draw


def render(manifest: Manifest) -> str:
    """The page."""
    body = [
        "<h1>Export report</h1>",
        # Written for Markdown, whose code marks mean nothing here.
        *(f"<p>{escape(line.replace('`', ''))}</p>" for line in manifest.source.lines()),
        f"<p>Quantization may cost {manifest.accuracy_budget:g} points of accuracy.</p>",
        "<h2>To ship</h2>",
        table(
            ("artefact", "file", "kB", "verdict", "level", *BRIEF),
            map(_shipped, manifest.formats),
        ),
        *_chart(manifest),
        "<h2>Where they differ from PyTorch</h2>",
        table(
            ("artefact", "frames agree", "", "lost", "not ruled out", "worst part", "lost there"),
            (row for entry in manifest.formats for row in _differences(entry)),
        ),
        "<h2>Refused, or not sure enough to ship</h2>",
        *_reasons(manifest.formats),
        "<h2>Where it comes from</h2>",
        _provenance(manifest),
    ]
    return page("Export report", body)


def _status(rung: RungEntry) -> str:
    return f'<span class="{rung.verdict.status}">{rung.verdict.status}</span>'


def _name(entry: FormatEntry, rung: RungEntry) -> str:
    return f"{entry.format} {entry.view} {rung.rung}"


def _shipped(entry: FormatEntry) -> list[str]:
    rung = entry.taken
    return [
        escape(_name(entry, rung)),
        f"<code>{escape(str(rung.file))}</code>",
        "-" if rung.size_bytes is None else f"{rung.size_bytes / 1000:,.0f}",
        _status(rung),
        escape(rung.verdict.level),
        *map(escape, brief_cells(rung.verdict.metrics)),
    ]


def _chart(manifest: Manifest) -> Iterator[str]:
    dots = [
        Dot(
            label=_name(entry, rung),
            size_kb=rung.size_bytes / 1000,
            drop=metrics["cost"]["drop"],
            bound=metrics["cost"]["bound"],
            speed=None if rung.speed is None else rung.speed.ratio,
            passed=rung.verdict.status == "PASS",
        )
        for entry in manifest.formats
        for rung in entry.rungs
        if rung.size_bytes and (metrics := rung.verdict.metrics) is not None and metrics["cost"]
    ]
    chart = draw(dots, manifest.accuracy_budget)
    if chart:
        yield "<h2>Size, accuracy, speed</h2>"
        yield chart
        yield (
            '<p class="soft">A whisker ends at the loss that cannot be ruled out (95 %). A hollow '
            "dot did not pass. × is the time of a call over that of the float artefact on the "
            "machine that exported; swipe-bench measures latency.</p>"
        )


def _differences(entry: FormatEntry) -> Iterator[list[str]]:
    for rung in entry.rungs:
        metrics = rung.verdict.metrics
        if metrics is None:
            continue
        agreement, cost = metrics["agreement"], metrics["cost"]
        yield [
            escape(_name(entry, rung)),
            *(("-", "") if agreement is None else _share(agreement["frames"])),
            *(("-",) * 4 if cost is None else _cost(cost)),
        ]


def _share(share: float) -> tuple[str, str]:
    """A share as a number and as a bar."""
    width = max(0.0, min(1.0, share))
    return f"{share:.2%}", f'<span class="bar"><i style="width:{width:.1%}"></i></span>'


def _cost(cost: Mapping[str, Any]) -> tuple[str, str, str, str]:
    worst = escape(cost["worst_stratum"] or "-")
    return f"{cost['drop']:.2f}", f"{cost['bound']:.2f}", worst, f"{cost['worst_drop']:.2f}"


def _reasons(formats: Sequence[FormatEntry]) -> list[str]:
    rows = [
        f"<li>{escape(_name(entry, rung))}: {_status(rung)}: "
        f"{escape('; '.join(rung.verdict.reasons))}</li>"
        for entry in formats
        for rung in entry.rungs
        if rung.verdict.reasons
    ]
    return (
        ["<ul>", *rows, "</ul>"] if rows else ["<p>Nothing: every rung that was tried passed.</p>"]
    )


def _provenance(manifest: Manifest) -> str:
    source = manifest.source
    facts = {
        "weights": source.weights_sha256,
        **source.identity,
        "calibrated on": f"{source.calibration_samples:,} other samples",
        "samples": source.verification_sha256,
    }
    for build in manifest.builds[:1]:
        facts |= {"built": f"{build.created} on {build.platform}", "commit": build.commit or "-"}
        facts |= {"processor": build.processor, **build.versions}
    rows = ((escape(name), f"<code>{escape(fact)}</code>") for name, fact in facts.items())
    return table(("", ""), rows)
