"""Results on the console."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from android_harness.grids import Grid, grids_of
from android_harness.results import Results
from swipe.console import make_table

if TYPE_CHECKING:
    from rich.table import Table

    from android_harness.diff import Comparison


def tables_of(results: Results) -> Iterator[Table]:
    """All tables of `results`."""
    return map(table_of, grids_of(results))


def table_of(grid: Grid) -> Table:
    """A grid with the console's borders."""
    table = make_table(grid.title, *grid.headings)
    for row in grid.rows:
        table.add_row(*row)
    table.caption = grid.caption
    return table


def comparison_table(comparison: Comparison) -> Table:
    """What changed between two results."""
    table = make_table("changes", "device", "artefact", "figure", "old", "new", "")
    for change in comparison.changes:
        verdict = "WORSE" if change.worse else ""
        table.add_row(change.device, change.row, change.figure, change.old, change.new, verdict)
    return table
