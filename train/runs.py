"""Run folders: ``runs/<time>-<name>/`` holds one training run, ``runs/latest`` names the newest."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Final

from swipe.errors import UsageError

RUNS: Final = Path("runs")
LATEST: Final = RUNS / "latest"
CONFIG: Final = "config.json"


def new_run(name: str, out: Path | None) -> Path:
    """Choose a new run folder; `out` overrides the dated default. The first file creates it.

    Raises:
        UsageError: the folder holds a run already.
    """
    folder = out or RUNS / f"{datetime.now():%Y%m%d-%H%M%S}-{name}"
    if (folder / CONFIG).exists():
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
    if not (folder / CONFIG).is_file():
        raise UsageError(f"{folder} holds no run", fix="start one without --resume")
    return folder.resolve() if out is None else folder


def publish_run(folder: Path) -> None:
    """Point ``runs/latest`` at `folder`; only runs that have a checkpoint are published.

    Raises:
        UsageError: ``runs`` cannot be written; the run itself is complete.
    """
    link = RUNS / f".latest-{os.getpid()}"
    try:
        RUNS.mkdir(exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(folder.resolve(), RUNS.resolve()), target_is_directory=True)
        os.replace(link, LATEST)
    except OSError as error:
        raise UsageError(
            f"cannot point {LATEST} at the finished run {folder}: {error.strerror}",
            fix=f"name the run yourself: swipe-export all --checkpoint {folder}",
        ) from error
