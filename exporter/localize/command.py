"""``swipe-export localize``: the table on screen, as JSON and as CSV, and the piece that fails."""

from __future__ import annotations

import csv
import json
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swipe.console import console, errors, make_table, tell_next
from swipe.errors import ExitCode, UsageError
from swipe.progress import counting

if TYPE_CHECKING:
    from exporter.localize.alignment import Row, Table
    from exporter.localize.minimise import Minimised
    from exporter.localize.source import Source


def localize(
    artefact: Annotated[
        Path | None, typer.Argument(help="An artefact, or a bundle: all that it ships.")
    ] = None,
    format_name: Annotated[
        str | None,
        typer.Option("--format", help="Build this format instead, or choose it in a bundle."),
    ] = None,
    rung: Annotated[
        str | None, typer.Option(help="Which rung: also one that export refused, e.g. int8.")
    ] = None,
    view: Annotated[str | None, typer.Option(help="baked or agnostic.")] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="What it was built from; default: the bundle's, then the export's."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Swipes to run; default: the bundle's, then the run's.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="How many swipes to run.")] = 32,
    floor_db: Annotated[
        float | None,
        typer.Option(help="A row below is bad; default by rung: fp32 80, fp16 40, int8 20."),
    ] = None,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Write the rows to this file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array.")] = False,
    minimise_to: Annotated[
        Path | None,
        typer.Option(
            "--minimise", help="Write the smallest piece that fails, its inputs and a script."
        ),
    ] = None,
) -> None:
    """Show where an artefact of a swipe model leaves PyTorch, tensor by tensor.

    Exit code 3: a row is bad.

    Example: [bold]swipe-export localize bundle/model.int8.onnx[/]
    """
    import torch

    from exporter.localize.source import Choice, sources_of

    torch.set_num_threads(1)
    choice = Choice(artefact, format_name, rung, view, checkpoint, data, samples)
    say = errors.print if as_json else console.print
    tables: list[Table] = []
    with tempfile.TemporaryDirectory() as scratch:
        for source in sources_of(choice, Path(scratch), say):
            if minimise_to is not None and tables:
                raise UsageError(
                    "--minimise takes one artefact, and the bundle ships several",
                    fix="name the file, or choose with --format and --view",
                )
            table, piece = _localized(source, floor_db, minimise_to, quiet=as_json)
            tables.append(table)
            if not as_json:
                _show(table, piece)
    if as_json:
        fields = [_finite(table.to_dict()) for table in tables]
        typer.echo(json.dumps(fields, indent=2, allow_nan=False))
    if csv_file is not None:
        _write_csv(csv_file, tables)
        say(f"rows: {csv_file}")
    bad = any(table.first_bad is not None for table in tables)
    raise typer.Exit(ExitCode.GATE_FAILED if bad else ExitCode.OK)


def _localized(
    source: Source, floor_db: float | None, folder: Path | None, *, quiet: bool
) -> tuple[Table, Minimised | None]:
    """The table of `source`, and what was cut out of it if it is bad and `folder` is given."""
    from exporter.localize.alignment import floor_of
    from exporter.localize.minimise import minimise
    from exporter.localize.reference import Reference
    from exporter.localize.survey import survey

    tapped = source.tapped()
    reference = Reference(tapped.program)

    def run(say: Any) -> Table:
        return survey(
            tapped, reference, source.calls,
            artefact=source.path.name, format_name=source.target.name, view=source.view.name,
            rung=source.rung, floor_db=floor_of(source.rung) if floor_db is None else floor_db,
            say=say,
        )  # fmt: skip

    if quiet:
        table = run(lambda done: None)
    else:
        with counting("swipes", len(source.calls)) as say:
            table = run(say)
    if folder is None or table.first_bad is None:
        return table, None
    return table, minimise(tapped, reference, table, source.calls, folder)


def _show(table: Table, piece: Minimised | None) -> None:
    title = f"{table.artefact}: {table.format} {table.rung}, view {table.view}"
    shown = make_table(
        title, "module", "PyTorch's", "operator", "max |delta|", "SQNR dB", "own dB", "flips"
    )
    exact = 0
    for index, row in enumerate(table.rows):
        if row.total is not None and row.total.max_abs_delta == 0.0:
            exact += 1
            continue
        style = None
        if index == table.first_bad:
            style = "bold red"
        elif row.is_bad(table.floor_db):
            style = "red"
        elif row.unmatched:
            style = "dim"
        shown.add_row(*_cells(row), style=style)
    console.print(shown)
    console.print(f"{table.note}; looking inside moved the output by {table.tap_delta:.2g}")
    if exact:
        console.print(f"{exact} rows that are exact are not shown; --csv and --json have all")
    for row in table.rows:
        if row.unmatched:
            console.print(f"not compared: {row.tensor}: {row.unmatched}")
    frames = "" if table.frames is None else f" of {table.frames:,} frames"
    last = table.rows[-1]
    console.print(f"{table.samples} swipes; the output flips {_count(last.flips)}{frames}")
    if table.costliest is not None:
        row = table.rows[table.costliest]
        console.print(f"largest error of its own: {_where(row)}, {_cells(row)[5]} dB")
    if table.first_bad is None:
        console.print(f"every compared row reaches {table.floor_db:g} dB")
        return
    console.print(f"first bad row: {_where(table.rows[table.first_bad])}", style="bold red")
    if piece is None:
        console.print("next: the same command with --minimise DIR")
    else:
        console.print(f"{piece.path.name} takes {', '.join(piece.starts)}")
        tell_next("python", piece.path.parent / "show.py")


def _where(row: Row) -> str:
    return f"{row.module or '(top)'} {row.node} ({row.operator})"


def _cells(row: Row) -> tuple[str, ...]:
    if row.total is None or row.own is None:
        return ("?", row.tensor, row.operator, "-", "-", "-", "-")
    return (
        row.module or "(top)",
        str(row.node),
        row.operator,
        f"{row.total.max_abs_delta:.2e}",
        f"{row.total.sqnr_db:.1f}",
        f"{row.own.sqnr_db:.1f}",
        _count(row.flips),
    )


def _count(flips: int | None) -> str:
    return "-" if flips is None else str(flips)


def _finite(value: Any) -> Any:
    """`value` for JSON, which has no NaN or infinity: they are spelled as strings."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _write_csv(path: Path, tables: list[Table]) -> None:
    """One line per row of each table; the first columns say whose it is."""
    lines = [
        {"artefact": t.artefact, "view": t.view, "rung": t.rung}
        | row.to_dict()
        | {"first_bad": index == t.first_bad}
        for t in tables
        for index, row in enumerate(t.rows)
    ]
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
