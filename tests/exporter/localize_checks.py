"""Checks that every format's localising tests share: honest, altered, cut out and shown."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from lowering_jobs import strokes

from exporter.formats import calls_of
from exporter.localize.alignment import Table, floor_of
from exporter.localize.minimise import Minimised, minimise
from exporter.localize.reference import Reference
from exporter.localize.survey import survey
from exporter.localize.taps import Tapped

LAYER, NODE = "blocks.0.mix", "conv1d_3"
CALLS = calls_of(strokes(4, seed=9))
REPOSITORY = Path(__file__).resolve().parents[2]


def table_of(tapped: Tapped, rung: str = "fp32", calls: Any = CALLS, **options: Any) -> Table:
    return survey(
        tapped, Reference(tapped.program), calls,
        artefact="model", format_name="format", view="baked", rung=rung,
        floor_db=floor_of(rung), **options,
    )  # fmt: skip


def first_bad(table: Table) -> tuple[str | None, str | None]:
    assert table.first_bad is not None
    row = table.rows[table.first_bad]
    return row.module, row.node


def cut(tapped: Tapped, folder: Path, rung: str = "fp32") -> Minimised:
    return minimise(tapped, Reference(tapped.program), table_of(tapped, rung), CALLS, folder)


def show(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, folder / "show.py"],
        capture_output=True, text=True, cwd=REPOSITORY, check=False,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": ""},
    )  # fmt: skip


def assert_honest(table: Table) -> None:
    assert table.first_bad is None
    assert [row.tensor for row in table.rows if row.unmatched] == []
    assert table.rows[-1].node == "transpose"
    assert {row.flips for row in table.rows} == {0}
    assert table.frames == 4 * 32
    assert table.tap_delta <= 1e-5


def assert_altered(table: Table) -> None:
    assert first_bad(table) == (LAYER, NODE)
    # The layer's own error is large; what follows computes rightly with what it is given.
    own = {row.node: row.own.sqnr_db for row in table.rows if row.own is not None}
    assert own[NODE] < 40.0
    assert min(decibels for node, decibels in own.items() if node != NODE) > 100.0
    assert table.costliest == table.first_bad


def assert_shown(piece: Minimised, folder: Path) -> None:
    """The piece is the altered layer alone, and the script says that it fails."""
    assert len(piece.starts) == 1
    assert piece.starts[0].startswith("relu_2")
    shown = show(folder)
    assert shown.returncode == 1, shown.stderr
    assert f"SQNR {piece.divergence.sqnr_db:.1f} dB" in shown.stdout
