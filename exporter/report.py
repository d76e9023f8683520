"""The bundle as Markdown: what to ship, what was refused and why, how it was measured.

`exporter.report_page` shows the same as one HTML file with a chart.
"""

from __future__ import annotations

from pathlib import Path

from exporter import report_page
from exporter.figures import HEADINGS, cells
from exporter.manifest import (
    PAGE,
    REPORT,
    Build,
    FormatEntry,
    Manifest,
    RungEntry,
    TensorEntry,
)
from swipe.files import write_text_atomic


def write_report(manifest: Manifest, folder: Path) -> None:
    """Write ``report.md`` and ``report.html`` into `folder`."""
    write_text_atomic(folder / REPORT, render(manifest))
    write_text_atomic(folder / PAGE, report_page.render(manifest))


def render(manifest: Manifest) -> str:
    """The report's text."""
    columns = ("format", "view", "rung", "file", "kB", "verdict", "level", *HEADINGS)
    lines = [
        "# Export report",
        "",
        *manifest.source.lines(),
        f"Quantization may cost {manifest.accuracy_budget:g} points of accuracy.",
        *(_build_line(number, build) for number, build in enumerate(manifest.builds)),
        "",
        "## Artefacts to ship",
        "",
        f"| {' | '.join(columns)} |",
        "|---" * len(columns) + "|",
    ]
    lines += [_artefact_row(entry, entry.taken) for entry in manifest.formats]
    for view in manifest.views:
        lines += ["", f"## What the {view.name} view takes and gives", ""]
        lines += [_tensor_line("input", tensor) for tensor in view.inputs]
        lines += [_tensor_line("output", t) for t in (view.text, view.output) if t is not None]
        if view.only_in:
            lines += ["", f"This view exists in {', '.join(view.only_in)} only."]
        if view.also_tried:
            lines += ["", f"Also tried: {', '.join(view.also_tried)}."]
    lines += _runtime_needs(manifest)
    lines += ["", "## Every rung that was tried", ""]
    for entry in manifest.formats:
        for rung in entry.rungs:
            why = "; ".join(rung.verdict.reasons) or "all checks held"
            mark = "taken" if rung.taken else ("refused" if rung.file is None else "kept beside")
            lines.append(
                f"* **{entry.format} {entry.view} {rung.rung}**: {rung.verdict.status}, {mark}: "
                f"{why} ({rung.seconds:g} s)"
            )
    for number, build in enumerate(manifest.builds):
        lines += ["", f"## Versions of build {number}", ""]
        lines += [f"* {name} {version}" for name, version in build.versions.items()]
    return "\n".join(lines) + "\n"


def _build_line(number: int, build: Build) -> str:
    changed = ", with uncommitted changes" if build.uncommitted_changes else ""
    commit = "" if build.commit is None else f", commit `{build.commit[:12]}`{changed}"
    flags = " ".join(build.processor_flags) or "none"
    return (
        f"Build {number}: {build.created} on {build.platform}, {build.processor} (int8 "
        f"instructions: {flags}), {build.threads} thread{commit}."
    )


def _runtime_needs(manifest: Manifest) -> list[str]:
    """Operators that an artefact takes from libraries beside its runtime."""
    lines = [
        f"* `{entry.taken.file}` needs {', '.join(operators)} of `{domain}`: build "
        "onnxruntime-extensions with it, and register that in the session"
        for entry in manifest.formats
        for domain, operators in entry.taken.facts.get("custom_operators", {}).items()
    ]
    return ["", "## What runtimes need besides", "", *lines] if lines else []


def _tensor_line(role: str, tensor: TensorEntry) -> str:
    shape = ", ".join(map(str, tensor.shape))
    return f"* {role} `{tensor.name} {tensor.dtype}[{shape}]`: {tensor.meaning}"


def _artefact_row(entry: FormatEntry, rung: RungEntry) -> str:
    size = "-" if rung.size_bytes is None else f"{rung.size_bytes / 1000:.0f}"
    row = [
        entry.format, entry.view, rung.rung, str(rung.file), size,
        rung.verdict.status, rung.verdict.level, *cells(rung.verdict.metrics),
    ]  # fmt: skip
    return "| " + " | ".join(row) + " |"
