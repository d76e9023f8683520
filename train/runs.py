"""Run folders: ``runs/<time>-<name>/`` holds one training run, ``runs/latest`` names the newest.

A folder is made and held before anything is read, so that two runs never write into one.
"""

from __future__ import annotations

import fcntl
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Final

from swipe.errors import UsageError
from swipe.files import cannot_write

RUNS: Final = Path("runs")
LATEST: Final = RUNS / "latest"
CONFIG: Final = "config.json"
STATE: Final = "state.safetensors"


@contextmanager
def new_run(name: str, out: Path | None) -> Iterator[Path]:
    """Make and hold a new run folder; it is removed again when nothing was put into it.

    Args:
        name: what to call the run in the dated default.
        out: the folder instead of the default; may exist.

    Raises:
        UsageError: the folder holds a run already, another process has it, or it cannot be made.
    """
    made: list[Path] = []
    try:
        folder = _make(name, out, made)
        with _held(folder):
            # Not earlier: who held it until now may have trained there.
            if (folder / CONFIG).exists():
                raise UsageError(
                    f"{folder} holds a run already",
                    fix="add --resume to go on with it, or choose --out",
                )
            yield folder
    finally:
        with suppress(OSError):  # the first one that is not empty ends it
            for path in reversed(made):
                path.rmdir()


@contextmanager
def old_run(out: Path | None) -> Iterator[Path]:
    """Find the run to resume, as `find_run` does, and hold its folder.

    Raises:
        UsageError: there is none, or another process is training it.
    """
    folder = find_run(out)
    with _held(folder):
        yield folder


def _make(name: str, out: Path | None, made: list[Path]) -> Path:
    """Make `out`, or a dated folder that is nobody else's; `made` gets what was not there before.

    Raises:
        UsageError: it cannot be made.
    """
    dated = RUNS / f"{datetime.now():%Y%m%d-%H%M%S}-{name}"
    folder = out or dated
    try:
        for parent in (*reversed(folder.parents), *([] if out is None else [out])):
            if not parent.is_dir():
                parent.mkdir(exist_ok=True)
                made.append(parent)
        if out is None:
            folder = _make_next(dated)
            made.append(folder)
    except OSError as error:
        raise cannot_write(folder, error) from error
    return folder


def _make_next(dated: Path) -> Path:
    """Make `dated`, or the first of its successors -2, -3, ... that nobody has made."""
    for number in count(1):
        folder = dated if number == 1 else dated.with_name(f"{dated.name}-{number}")
        with suppress(FileExistsError):
            folder.mkdir()
            break
    return folder


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Keep other processes out of `folder`; the system lets it go when this process ends, however.

    Raises:
        UsageError: another process has it, or it cannot be opened.
    """
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        # The folder itself, so that no file stays behind. Not every network file system can
        # lock one; there, nobody is kept out.
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise UsageError(
            f"{folder}: this run is being trained by another process",
            fix="wait until it has ended, stop it with Ctrl-C, or choose another --out",
        ) from error
    except OSError:
        pass
    try:
        yield
    finally:
        os.close(handle)


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
