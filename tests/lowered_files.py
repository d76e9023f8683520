"""Artefacts of one rung, as the exporter builds them."""

from __future__ import annotations

from pathlib import Path

from exporter.formats import Lowering
from exporter.targets import find_target


def lowered(job: Lowering, folder: Path, name: str, rung: str = "fp32") -> Path:
    """`job` in the format called `name`, on `rung`, as a file or package in `folder`."""
    target = find_target(name)
    path = folder / f"{rung}{target.suffix}"
    if rung == "fp32":
        target.format().lower(job, path)
    else:
        target.format().quantize(job, path, rung)
    return path
