"""The bundle as Markdown: what to ship, what was refused and why, how it was measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from exporter.manifest import (
    REPORT,
    Build,
    FormatEntry,
    Manifest,
    RungEntry,
    TensorEntry,
)
from swipe.files import write_text_atomic


def write_report(manifest: Manifest, folder: Path) -> None:
    """Write ``report.md`` into `folder`."""
    write_text_atomic(folder / REPORT, render(manifest))


def _settings(decoder: Mapping[str, float | None]) -> str:
    return ", ".join(f"{k} {'infinite' if v is None else f'{v:g}'}" for k, v in decoder.items())


def render(manifest: Manifest) -> str:
    """The report's text."""
    source = manifest.source
    lines = [
        "# Export report",
        "",
        f"Weights `{source.weights_sha256[:16]}`, step {source.checkpoint_step:,}, "
        f"{source.parameters:,} parameters, contract `{source.contract_id}`.",
        f"Judged on {source.verification_swipes:,} swipes ({source.swipes}), lexicon "
        f"`{source.lexicon}` (`{source.lexicon_sha256[:16]}`), accuracy budget "
        f"{source.accuracy_budget:g} points of decoded top-1.",
        f"Decoder: {_settings(source.decoder)}.",
        *(_build_line(number, build) for number, build in enumerate(manifest.builds)),
        "",
        "## Artefacts to ship",
        "",
        "| format | view | rung | file | kB | verdict | level | max abs delta | frames agree "
        "| top-1 | PyTorch top-1 |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_artefact_row(entry, entry.taken) for entry in manifest.formats]
    for view in manifest.views:
        lines += ["", f"## What the {view.name} view takes and gives", ""]
        lines += [_tensor_line("input", tensor) for tensor in view.inputs]
        lines += [_tensor_line("output", view.output)]
        if view.also_tried:
            lines += ["", f"Also compared with PyTorch on: {', '.join(view.also_tried)}."]
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


def _tensor_line(role: str, tensor: TensorEntry) -> str:
    shape = ", ".join(map(str, tensor.shape))
    return f"* {role} `{tensor.name} {tensor.dtype}[{shape}]`: {tensor.meaning}"


def _artefact_row(entry: FormatEntry, rung: RungEntry) -> str:
    metrics = rung.verdict.metrics
    size = "-" if rung.size_bytes is None else f"{rung.size_bytes / 1000:.0f}"
    figures = (
        ["-"] * 4
        if metrics is None
        else [
            f"{metrics['max_abs_delta']:.1e}",
            f"{metrics['agreement']['frames']:.2%}",
            f"{metrics['scores']['top1']:.2f} %",
            f"{metrics['reference_scores']['top1']:.2f} %",
        ]
    )
    cells = [
        entry.format, entry.view, rung.rung, str(rung.file), size,
        rung.verdict.status, rung.verdict.level, *figures,
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"
