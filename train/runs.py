"""Run folders: ``runs/<time>-<name>/`` holds one training run, ``runs/latest`` names the newest."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Final

from swipe.errors import UsageError

RUNS: Final = Path("runs")
LATEST: Final = RUNS / "latest"


def new_run(name: str, out: Path | None) -> Path:
    """Choose a new run folder; `out` overrides the dated default. The first file creates it.

    Raises:
        UsageError: the folder holds a run already.
    """
    folder = out or RUNS / f"{datetime.now():%Y%m%d-%H%M%S}-{name}"
    if (folder / "config.json").exists():
        raise UsageError(
            f"{folder} holds a run already", fix="add --resume to go on with it, or choose --out"
        )
    return folder


def find_run(out: Path | None) -> Path:
    """The run to resume: `out`, or the newest.

    Raises:
        UsageError: there is none.
    """
    folder = out or LATEST
    if not (folder / "config.json").is_file():
        raise UsageError(f"{folder} holds no run", fix="start one without --resume")
    return folder.resolve() if out is None else folder


def publish_run(folder: Path) -> None:
    """Point ``runs/latest`` at `folder`; only runs that have a checkpoint are published."""
    RUNS.mkdir(exist_ok=True)
    link = RUNS / f".latest-{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(os.path.relpath(folder.resolve(), RUNS.resolve()), target_is_directory=True)
    os.replace(link, LATEST)
