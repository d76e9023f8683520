"""What others left on disk: ``check`` and ``clean``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swipe.console import console, make_table
from swipe.errors import GateError, MissingError, UsageError
from train.commands import (
    app,
)

if TYPE_CHECKING:
    from train.inspection.verdict import Inspection


@app.command()
def check(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Files: .safetensors, .pt, .pth, .ckpt, .onnx; or bundle folders."),
    ] = None,
    all_below: Annotated[
        Path | None, typer.Option("--all", help="Check everything below this folder.")
    ] = None,
    stats: Annotated[bool, typer.Option(help="Print min, max, mean and std per tensor.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Say VALID or INVALID of anyone's checkpoints, ONNX files and bundles, with the first fault.

    Exit codes: 0 all valid, 3 any invalid, 5 not checked for want of a library, 2 unreadable.

    Example: [bold]swipe-train check --all runs[/]
    """
    from train.inspection.kinds import find_checkpoints, inspect_file

    listed = [*(paths or []), *(find_checkpoints(all_below) if all_below else [])]
    files = list({path.absolute(): path for path in listed}.values())
    if not files:
        raise UsageError("nothing to check", fix="name checkpoints, or a folder with --all")
    found = [inspect_file(path, stats=stats) for path in files]
    if as_json:
        print(json.dumps([inspection.to_dict() for inspection in found], indent=2))
    else:
        for inspection in found:
            _show(inspection)
    invalid = sum(inspection.verdict == "INVALID" for inspection in found)
    if invalid:
        raise GateError(
            f"{invalid} of {len(found)} checkpoints are INVALID",
            fix="list what may go with: swipe-train clean DIR",
        )
    unchecked = [inspection for inspection in found if inspection.verdict == "UNCHECKED"]
    if unchecked:
        kind = MissingError if any(one.missing for one in unchecked) else UsageError
        raise kind(
            f"{len(unchecked)} of {len(found)} could not be checked",
            fix="; ".join(sorted({one.mend for one in unchecked})),
        )


def _show(inspection: Inspection) -> None:
    """One inspection for a person."""
    styles = {"VALID": "green", "INVALID": "red", "UNCHECKED": "yellow"}
    console.print(inspection.verdict, style=styles[inspection.verdict], end=" ")
    console.print(
        f"{inspection.path}: {inspection.tensors} tensors, "
        f"{inspection.values:,} values, sha256 {(inspection.sha256 or '-')[:16]}"
    )
    unchecked = [f"unchecked: {inspection.unchecked}"] if inspection.unchecked else []
    odd = [f"warning: {warning}" for warning in inspection.warnings]
    for line in (*inspection.reasons, *unchecked, *odd):
        console.print(f"  {line}")
    if inspection.stats:
        table = make_table("", "tensor", "shape", "min", "max", "mean", "std")
        for row in inspection.stats:
            figures = (row.minimum, row.maximum, row.mean, row.std)
            shape = "x".join(map(str, row.shape))
            table.add_row(row.name, shape, *(f"{value:.3g}" for value in figures))
        console.print(table)


@app.command()
def clean(
    folder: Annotated[Path, typer.Argument(help="Folder of runs or checkpoints.")],
    keep: Annotated[
        int | None,
        typer.Option(
            help="Valid versions of a model to keep per folder, best first; default: all."
        ),
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Really delete.")] = False,
) -> None:
    """List broken checkpoints and leftovers; delete them with --delete, never the only valid one.

    Example: [bold]swipe-train clean runs --keep 2[/]
    """
    from train.cleaning import plan_removals, remove

    plan = plan_removals(folder, keep)
    for finding in plan.left:
        console.print(f"left: {finding.path}: {finding.reason}")
    for finding in plan.removals:
        console.print(f"{finding.path}: {finding.reason}")
    if not plan.removals:
        console.print("nothing to delete")
    elif delete:
        remove(plan.removals)
        console.print(f"{len(plan.removals)} files deleted")
    else:
        console.print(f"{len(plan.removals)} files would go; nothing was deleted: add --delete")
