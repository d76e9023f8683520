"""Run folders: ``runs/<time>-<name>/`` holds one training run, ``runs/latest`` names the newest."""

from __future__ import annotations

import os
import shlex
from datetime import datetime
from pathlib import Path
from typing import Final

from swipe.errors import UsageError

RUNS: Final = Path("runs")
LATEST: Final = RUNS / "latest"
CONFIG: Final = "config.json"
STATE: Final = "state.safetensors"


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
    """The run to resume: `out`, or the one whose state was saved last.

    Raises:
        UsageError: there is none.
    """
    if out is None:
        saved = [path for path in RUNS.glob(f"*/{STATE}") if not path.parent.is_symlink()]
        if not saved:
            raise UsageError(f"{RUNS} holds no run to resume", fix="start one without --resume")
        return max(saved, key=lambda path: path.stat().st_mtime).parent
    if not (out / CONFIG).is_file():
        raise UsageError(f"{out} holds no run", fix="start one without --resume")
    return out


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
            fix=f"name the run yourself: swipe-export all --checkpoint {shlex.quote(str(folder))}",
        ) from error


def checkpoint_file(path: Path) -> Path:
    """`path` itself, or the ``best.safetensors`` of a run folder.

    Raises:
        UsageError: there is no such file.
    """
    path = path / "best.safetensors" if path.is_dir() else path
    if not path.is_file():
        raise UsageError(
            f"no checkpoint {path}",
            fix="train one with 'make train', or name one with --checkpoint",
        )
    return path
