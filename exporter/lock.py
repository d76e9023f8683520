"""One writer at a time: a lock beside a folder that is about to be replaced.

The operating system releases it when the process ends, however it ends, so no lock is ever stale.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from swipe.errors import UsageError
from swipe.files import cannot_write


@contextmanager
def held(folder: Path, kind: str) -> Iterator[None]:
    """Be the only one to write `folder` while the block runs.

    Args:
        folder: what is going to be written; it need not exist.
        kind: what such a folder is called, e.g. "bundle".

    Raises:
        UsageError: another process holds it, its parent cannot be written, or it has none.
    """
    target = folder.resolve()
    if not target.name:
        raise UsageError(
            f"{folder} is no place for a {kind}: nothing can be put beside it",
            fix="choose a folder of its own with --out",
        )
    path = target.with_name(f".{target.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _acquire(path)
    except BlockingIOError as error:
        raise UsageError(
            f"another process{_holder(path)} is writing the {kind} {folder}",
            fix="wait until it is done, or choose another place with --out",
        ) from error
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        yield
    finally:
        # Removed while it is still held: whoever waits for this file sees that it is gone.
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(path: Path) -> int:
    """A descriptor that holds the lock on the file that is at `path` now."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(path, descriptor):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"{os.getpid()}".encode())
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        # The earlier holder removed the file between our opening and locking it.
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the open file is the one that is at `path` now."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _holder(path: Path) -> str:
    """Who holds the lock, as far as its file says."""
    try:
        process = path.read_text().strip()
    except OSError:
        return ""
    return f" ({process})" if process.isdecimal() else ""
