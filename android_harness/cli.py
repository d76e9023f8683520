"""``swipe-bench``: latency beside accuracy beside verdict, for every artefact of a bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swipe.console import console, make_app, run
from swipe.errors import ParityError

if TYPE_CHECKING:
    from rich.table import Table

    from android_harness.local import Bench

app = make_app("Measure a bundle's artefacts against PyTorch on this machine.")


@app.command(no_args_is_help=False)
def bench(
    bundle: Annotated[Path, typer.Argument(help="A folder written by swipe-export.")] = Path(
        "bundle"
    ),
    blocks: Annotated[int, typer.Option(min=1, help="Rounds over all implementations.")] = 20,
    calls: Annotated[int, typer.Option(min=1, help="Timed calls per round.")] = 25,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads per implementation.")] = 1,
    lexicon: Annotated[
        str | None, typer.Option(help="Decode with this lexicon; default: the bundle's.")
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
    from swipe.files import write_text_atomic

    with console.status("") as status:
        results = run_bench(
            bundle, Plan(blocks=blocks, block_calls=calls), threads, lexicon, status.update
        )
    console.print(_table(results))
    for name, reason in results.skipped.items():
        console.print(f"{name}: UNVERIFIED, not executed here: {reason}")
    path = json_out or bundle / "bench.json"
    write_text_atomic(path, json.dumps(results.to_dict(), allow_nan=False) + "\n")
    console.print(f"results with raw samples: {path}")
    if results.failed:
        reasons = "; ".join(
            f"{row.name}: {', '.join(row.verdict.reasons)}" for row in results.failed
        )
        raise ParityError(reasons, fix="export again; a stale or damaged artefact is not shipped")


def _table(results: Bench) -> Table:
    from rich.table import Table

    source = results.manifest.source
    table = Table(
        title=f"{source.verification_swipes:,} swipes ({source.swipes}), "
        f"{results.threads} thread(s), * ships"
    )
    table.add_column("implementation")
    for heading in (
        "kB", "load ms", "first ms", "p50 ms", "p90 ms", "p99 ms", "x eager",
        "frames agree", "words agree", "top-1 %", "top-4 %", "verdict",
    ):  # fmt: skip
        table.add_column(heading, justify="right")
    eager = results.rows[0].latency.p50_ms
    for row in results.rows:
        metrics = row.verdict.metrics
        parity = (
            ("-", "-", "-", "-")
            if metrics is None
            else (
                f"{metrics.frame_agreement:.2%}",
                f"{metrics.word_agreement:.2%}",
                f"{metrics.top1:.2f}",
                f"{metrics.top4:.2f}",
            )
        )
        table.add_row(
            row.name + (" *" if row.taken else ""),
            f"{row.size_bytes / 1000:.0f}",
            f"{row.load_ms:.1f}",
            f"{row.first_ms:.2f}",
            f"{row.latency.p50_ms:.3f}",
            f"{row.latency.p90_ms:.3f}",
            f"{row.latency.p99_ms:.3f}",
            f"{row.latency.p50_ms / eager:.2f}",
            *parity,
            str(row.verdict.status),
        )
    return table


def main() -> None:
    """Console script ``swipe-bench``."""
    run(app)


if __name__ == "__main__":
    main()
