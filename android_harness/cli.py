"""``swipe-bench``: latency beside accuracy beside verdict, for every artefact of a bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from exporter.figures import BRIEF, brief_cells
from swipe.console import console, make_app, make_table, run
from swipe.errors import ExitCode, ParityError

if TYPE_CHECKING:
    from rich.table import Table

    from android_harness.local import Bench, Row

BUNDLE: Final = Path("bundle")

app = make_app("Measure a bundle's artefacts against PyTorch on this machine.")


@app.command(no_args_is_help=False)
def bench(
    bundle: Annotated[
        Path | None,
        typer.Argument(
            help="A folder written by swipe-export; default: ./bundle, exported first when there "
            "is none."
        ),
    ] = None,
    blocks: Annotated[int, typer.Option(min=1, help="Rounds over all implementations.")] = 20,
    calls: Annotated[int, typer.Option(min=1, help="Timed calls per round.")] = 25,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads per implementation.")] = 1,
    lexicon: Annotated[
        str | None, typer.Option(help="Decode swipes with this lexicon; default: the bundle's.")
    ] = None,
    json_out: Annotated[
        Path | None, typer.Option("--json", help="Results file; default: BUNDLE/bench.json.")
    ] = None,
) -> None:
    """Latency, agreement with PyTorch and accuracy of every artefact, in one interleaved run.

    Example: [bold]swipe-bench bundle --blocks 40[/]
    """
    from android_harness.local import bench as run_bench
    from android_harness.protocol import Plan
    from exporter.manifest import BENCH
    from swipe.files import write_text_atomic

    if bundle is None:
        bundle = BUNDLE
        if not bundle.exists():
            _export_first(bundle)
    with console.status("") as status:
        results = run_bench(
            bundle, Plan(blocks=blocks, block_calls=calls), threads, lexicon, status.update
        )
    for table in (_latency_table(results), _parity_table(results)):
        console.print(table)
    for name, reason in results.skipped.items():
        console.print(f"{name}: UNVERIFIED, not executed here: {reason}")
    path = json_out or bundle / BENCH
    write_text_atomic(path, json.dumps(results.to_dict(), allow_nan=False) + "\n")
    console.print(f"results with raw samples: {path}")
    if results.failed:
        reasons = "; ".join(
            f"{row.name}: {', '.join(row.verdict.reasons)}" for row in results.failed
        )
        raise ParityError(reasons, fix="export again; a stale or damaged artefact is not shipped")
    raise typer.Exit(ExitCode.UNVERIFIED if results.skipped else ExitCode.OK)


def _export_first(bundle: Path) -> None:
    """Build what ``swipe-export all --quantize`` builds: there is nothing else to measure here."""
    from exporter.bundle import Request, export
    from exporter.cache import default_folder
    from exporter.origins.requests import SwipeRequest
    from exporter.policy import Policy
    from exporter.targets import TARGETS
    from train.released import default_checkpoint

    console.print(f"no {bundle} here yet: exporting it first, as swipe-export all --quantize does")
    asked = SwipeRequest(default_checkpoint())
    export(Request(TARGETS, asked, bundle, Policy(), default_folder()), console.print)


def _latency_table(results: Bench) -> Table:
    title = f"latency per call, {results.threads} thread(s), interleaved"
    percentiles = ("p50 ms", "p90 ms", "p99 ms")
    table = make_table(
        title, "implementation", "kB", "load ms", "first ms", *percentiles, "x eager"
    )
    for row in results.rows:
        timing, latency = row.timing, row.latency
        if timing is None or latency is None:
            continue
        table.add_row(
            _name(row),
            f"{row.size_bytes / 1000:.0f}",
            f"{timing.load_ms:.1f}",
            f"{timing.first_ms:.2f}",
            f"{latency.p50_ms:.3f}",
            f"{latency.p90_ms:.3f}",
            f"{latency.p99_ms:.3f}",
            f"{latency.p50_ms / results.eager_ms:.2f}",
        )
    return table


def _parity_table(results: Bench) -> Table:
    source = results.manifest.source
    title = f"against PyTorch on {source.verification_samples:,} samples: {source.samples}"
    table = make_table(title, "implementation", *BRIEF, "verdict", "level")
    table.caption = "* is the artefact to ship"
    for row in results.rows:
        verdict = row.verdict
        table.add_row(
            _name(row), *brief_cells(verdict.metrics), str(verdict.status), str(verdict.level)
        )
    return table


def _name(row: Row) -> str:
    return row.name + (" *" if row.taken else "")


def main() -> None:
    """Console script ``swipe-bench``."""
    run(app)


if __name__ == "__main__":
    main()
