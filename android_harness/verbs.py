"""``swipe-bench diff``, ``report`` and ``devices``: what is done with results, and before them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from swipe.console import console, make_table
from swipe.errors import ParityError
from swipe.files import write_text_atomic


def diff(
    old: Annotated[Path, typer.Argument(help="Earlier results of swipe-bench.")],
    new: Annotated[Path, typer.Argument(help="Later results of swipe-bench.")],
    latency: Annotated[
        float,
        typer.Option(min=0.0, help="Percent of p50 and p90, beyond both runs' 95 % intervals."),
    ] = 5.0,
    points: Annotated[float, typer.Option(min=0.0, help="Points of the first score.")] = 0.25,
    size: Annotated[float, typer.Option(min=0.0, help="Percent of the artefact's size.")] = 5.0,
) -> None:
    """What got worse from one run to the next; exit 3 when something did.

    Example: [bold]swipe-bench diff release/bench.json bundle/bench.json[/]
    """
    from android_harness.diff import Tolerance, compare_results
    from android_harness.results import load_results
    from android_harness.tables import comparison_table

    tolerance = Tolerance(latency / 100, points, size / 100)
    found = compare_results(load_results(old), load_results(new), tolerance)
    console.print(comparison_table(found))
    for line in found.apart:
        console.print(line)
    if found.regressions:
        names = dict.fromkeys(f"{c.row} ({c.figure})" for c in found.regressions)
        raise ParityError(
            f"{len(found.regressions)} regressions: {', '.join(names)}",
            fix="find the change that caused them, or say how much worse is fine, see --help",
        )
    if not found.compared:
        raise ParityError(
            "nothing could be compared", fix="measure the same bundle on the same device"
        )


def report(
    results: Annotated[list[Path], typer.Argument(help="Results of swipe-bench, any number.")],
    html: Annotated[
        Path | None, typer.Option(help="Write a page with charts of them here, too.")
    ] = None,
) -> None:
    """The tables of earlier results, and their devices side by side.

    Example: [bold]swipe-bench report laptop.json pixel.json --html phones.html[/]
    """
    from android_harness.grids import notes_of, side_by_side
    from android_harness.page import render
    from android_harness.results import load_results
    from android_harness.tables import table_of, tables_of

    loaded = [load_results(path) for path in results]
    for found in loaded:
        for table in tables_of(found):
            console.print(table)
        for note in notes_of(found):
            console.print(note)
    if len(loaded) > 1:
        everywhere = [device for found in loaded for device in found.devices]
        console.print(table_of(side_by_side(everywhere)))
    if html is not None:
        write_text_atomic(html, render(loaded))
        console.print(f"page: {html}")


def devices(
    adb: Annotated[
        str | None, typer.Option(help="The adb program; default: $ADB, then PATH.")
    ] = None,
) -> None:
    """What adb sees, and what to do where a phone cannot be used.

    Example: [bold]swipe-bench devices[/]
    """
    from android_harness.devices.discovery import find_adb, list_devices

    table = make_table("devices", "serial", "state", "model")
    for found in list_devices(find_adb(adb)):
        table.add_row(found.serial, found.state, found.model or "-")
    console.print(table)


def register(app: typer.Typer) -> None:
    """Add the verbs to `app`."""
    for verb in (diff, report, devices):
        app.command(verb.__name__)(verb)
